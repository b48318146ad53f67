"""When a sync is done, when it fails, and who else may write."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from support.capturing import digest, serialized
from support.stepping import Stepped
from support.told import AWAY, LateStore, MakeStepped, ToldStore, level0, restored

from sqlitereplica import AnotherWriterError, StoreError, restore
from sqlitereplica.errors import MixedSQLiteCopiesError, ReplicatorClosedError
from sqlitereplica.ltx import Header, encode
from sqlitereplica.store import LTXStore


@pytest.mark.parametrize("after", [False, True])
def test_sync_is_not_acknowledged_before_the_put_returned(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    after: bool,
    tmp_path: Path,
) -> None:
    """T23: a put that failed, or whose answer was lost, is unknown, so not done."""
    stepped = make()
    assert stepped.durable()
    store.error, store.after = AWAY, after
    db.execute("insert into t(v) values(1)")
    ticket = stepped.sync()
    assert not ticket.future.done()
    store.error = None
    stepped.clock.advance(100)
    stepped.run()
    assert ticket.future.result(0) is None
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    assert [f.max_txid for f in level0(store)] == [1, 2]


def test_failure_that_waiting_will_not_cure_is_raised_at_once(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped
) -> None:
    """``sync`` does not wait for its timeout when credentials are refused."""
    stepped = make()
    assert stepped.durable()
    store.error = StoreError("forbidden", operation="put", transient=False)
    db.execute("insert into t(v) values(1)")
    assert stepped.sync().future.exception(0) is store.error
    store.error = None
    stepped.clock.advance(100)
    assert stepped.durable()


def test_file_that_went_away_with_its_place_in_line_is_no_failure(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The spool is full while a file of it is uploaded: the replica comes by a delta."""
    stepped = make(buffer_size=1 << 20, spool_size=3 << 20)
    assert stepped.durable()
    original = ToldStore.put

    def behind() -> bool:
        return "behind" in {e.action for e in stepped.events}

    def put(store: ToldStore, *arguments: object, **options: object) -> object:
        while not behind():
            db.execute("insert into t(v) values(randomblob(1100000))")
            stepped.clock.advance(1.1)
            stepped.engine.step()
        return original(store, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ToldStore, "put", put)
    db.execute("insert into t(v) values(randomblob(1100000))")
    ticket = stepped.sync()
    assert behind()
    assert ticket.future.exception(0) is None
    assert "replica-error" not in {e.action for e in stepped.events}
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


@pytest.mark.parametrize("how", ["fenced", "closed", "mixed"])
def test_snapshot_that_never_comes_is_told(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, how: str
) -> None:
    """Whoever waits for it without a timeout is not left waiting."""
    stepped = make()
    assert stepped.durable()
    request = stepped.lines[0].request_snapshot()
    if how == "fenced":
        store.error = AnotherWriterError("key")
        db.execute("insert into t(v) values(1)")
        stepped.sync()
    elif how == "closed":
        stepped.engine.close()
    else:
        stepped.engine.fail(MixedSQLiteCopiesError("a.db", ours="x", other="y"))
        stepped.engine.state = "failed"
        stepped.engine.step()
    for waiting in (request, stepped.lines[0].request_snapshot()):
        assert isinstance(
            waiting.exception(0),
            (AnotherWriterError, ReplicatorClosedError, MixedSQLiteCopiesError),
        )


def test_other_bytes_under_our_name_stop_the_worker_for_good(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped
) -> None:
    """Another writer: nothing more is put, and every sync says so."""
    stepped = make()
    assert stepped.durable()
    header = Header(page_size=4096, commit=1, min_txid=2, max_txid=2, timestamp=1)
    other = encode(header, [(1, bytes(4096))])
    LTXStore.put(store, 0, 2, 2, other, timestamp=1)
    db.execute("insert into t(v) values(1)")
    assert isinstance(stepped.sync().future.exception(0), AnotherWriterError)
    stepped.clock.advance(1000)
    db.execute("insert into t(v) values(1)")
    assert isinstance(stepped.sync().future.exception(0), AnotherWriterError)
    assert [f.max_txid for f in level0(store)] == [1, 2]
    assert store.get(level0(store)[1]) == other


def test_put_of_an_earlier_life_that_arrives_late_is_known_as_our_own(
    db: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """Killed with a put on its way: the next life meets it, compares, and goes on."""
    store = LateStore.open(tmp_path / "late")
    stepped = Stepped(path, [lambda: store], node_id=77)
    assert stepped.durable()
    store.delays = True
    db.execute("insert into t(v) values('on its way')")
    assert not stepped.durable()
    stepped.kill()
    store.delays = False
    db.execute("insert into t(v) values('meanwhile')")
    stepped.begin()
    while stepped.workers[0].phase.value != "catching-up":
        stepped.step()
    store.arrive()
    stepped.run()
    stepped.clock.advance(100)
    assert stepped.durable()
    assert [f.max_txid for f in level0(store)] == [1, 2, 3]
    assert restored(store, tmp_path) == digest(serialized(path))
    stepped.engine.close()


def test_copy_of_our_metadata_at_work_elsewhere_is_another_writer(
    db: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """The same node id does not help a second writer: one of the two is stopped."""
    store = ToldStore.open(tmp_path / "shared")
    stepped = Stepped(path, [lambda: store], node_id=77)
    assert stepped.durable()
    stepped.kill()
    copy = tmp_path / "copy" / "a.db"
    copy.parent.mkdir()
    restore(store, copy)
    other = Stepped(copy, [lambda: store], node_id=77)
    stepped.begin()
    assert other.durable()
    assert stepped.durable()
    app = sqlite3.connect(copy, isolation_level=None)
    for i in range(5):
        db.execute("insert into t(v) values(?)", (i,))
        app.execute("insert into t(v) values(?)", (-i,))
        stepped.sync()
        other.sync()
        for one in (stepped, other):
            one.clock.advance(1000)
            one.run()
    assert "failed" in {stepped.workers[0].phase.value, other.workers[0].phase.value}
    app.close()
    stepped.engine.close()
    other.engine.close()


def test_one_replica_away_does_not_delay_the_other(
    db: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """Replicas are independent; the one that returns catches up from the spool."""
    stores = [ToldStore.open(tmp_path / "one"), ToldStore.open(tmp_path / "two")]
    stepped = Stepped(path, [lambda: stores[0], lambda: stores[1]])
    assert stepped.durable()
    stores[1].error = AWAY
    for i in range(5):
        db.execute("insert into t(v) values(?)", (i,))
        assert not stepped.durable()
        assert restored(stores[0], tmp_path) == digest(serialized(path))
    stores[1].error = None
    stepped.clock.advance(100)
    assert stepped.durable()
    assert restored(stores[1], tmp_path) == digest(serialized(path))
    assert len(level0(stores[1])) == 6
    stepped.engine.close()
