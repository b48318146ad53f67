"""From wherever a replica stands to the present, and time stamps on the way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from support.capturing import digest, serialized
from support.stepping import Stepped
from support.told import AWAY, MakeStepped, ToldStore, fill, level0, restored

from sqlitereplica import restore
from sqlitereplica.capture import Capture, View
from sqlitereplica.ltx import decode
from sqlitereplica.replicate.delta import DeltaRequest
from sqlitereplica.sqlite import SourceBusyError


def test_restart_after_offline_writes_ships_only_what_differs(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """Delta resume: kill, let the application write and checkpoint, start again."""
    stepped = make()
    fill(db)
    assert stepped.durable()
    stepped.kill()
    db.execute("update t set v = randomblob(4000) where id = 250")
    db.execute("pragma wal_checkpoint(truncate)").fetchall()
    stepped.begin()
    assert stepped.durable()
    first, second = level0(store)
    assert second.size < 20_000 < first.size
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_commit_while_a_question_is_answered_is_in_the_answer(
    db: sqlite3.Connection, make: MakeStepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was in step a moment ago lacks what came with the view, all of it."""
    stepped = make()
    fill(db, 50)
    assert stepped.durable()
    base = stepped.engine.capture.table.copy()
    request = DeltaRequest(replica="somebody", base=base, subscribe=False)
    view = Capture.view

    def commit_and_view(capture: Capture, **options: bool) -> View:
        db.execute("update t set v = randomblob(4000) where id in (10, 20, 30)")
        return view(capture, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Capture, "view", commit_and_view)
        stepped.engine.request(request)
        stepped.engine.step()
    assert request.answer is not None
    with request.answer as delta:
        table = stepped.engine.capture.table
        assert list(delta.pgnos) == list(table.differs_from(base))
        assert len(delta.pgnos) > 2 and delta.was_in_step


@pytest.mark.parametrize("stage", ["catch_up", "flush", "view"])
def test_question_of_a_replica_outlives_a_busy_moment(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """A lock that is taken just when it is answered must not leave it waiting for ever."""
    stepped = make()
    fill(db, 10)
    while stepped.workers[0]._request is None:
        stepped.step()

    def busy(capture: Capture) -> None:
        raise SourceBusyError("just then", path=capture.path)

    with monkeypatch.context() as patch:
        patch.setattr(Capture, stage, busy)
        stepped.engine.step()
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_state_found_in_a_folder_is_on_disk_before_it_counts(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An earlier process may have been killed between the link and the last fsync."""
    stepped = make()
    fill(db, 10)
    assert stepped.durable()
    stepped.restart()
    brought, real = list[str](), os.fsync

    def fsync(fd: int) -> None:
        brought.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert stepped.durable()
    (newest,) = level0(store)
    folder = Path(store.name) / "ltx" / "0"
    of_replica = [path for path in brought if path.startswith(str(folder))]
    assert of_replica == [str(folder / newest.name), str(folder)]


def test_lost_metadata_are_rebuilt_from_the_replica(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """Without the page table the replica itself is read, and little is sent."""
    stepped = make()
    fill(db)
    assert stepped.durable()
    stepped.kill()
    db.execute("delete from t where id = 7")
    for file in stepped.meta.glob("pages*"):
        file.unlink()
    stepped.begin()
    assert stepped.durable()
    assert level0(store)[1].size < 20_000
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_replicator_on_a_fresh_restore_uploads_nothing(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """T25: disaster, restore, and the chain goes on at the next TXID."""
    stepped = make()
    fill(db, 50)
    assert stepped.durable()
    stepped.kill()
    db.close()
    copy = tmp_path / "elsewhere" / "b.db"
    copy.parent.mkdir()
    restore(store, copy)
    again = Stepped(copy, [lambda: store])
    again.clock.advance(100)  # or the same file, put again, would not be noticed
    assert again.durable()
    assert len(level0(store)) == 1
    app = sqlite3.connect(copy, isolation_level=None)
    app.execute("insert into t(v) values('on')")
    assert again.durable()
    assert [f.max_txid for f in level0(store)] == [1, 2]
    assert restored(store, tmp_path) == digest(serialized(copy))
    app.close()
    again.engine.close()


def test_replica_beyond_the_spool_comes_back_by_a_delta(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """Memory and disk stay bounded while a store is away; nothing is sent twice."""
    stepped = make(buffer_size=1 << 20, spool_size=1 << 20)
    fill(db, 2000)
    assert stepped.durable()
    store.error = AWAY
    for i in range(60):
        db.execute("update t set v = randomblob(60000) where id = ?", (1 + i % 6,))
        stepped.clock.advance(1.1)
        stepped.step()
        on_disk = sum(f.stat().st_size for f in (stepped.meta / "spool").iterdir())
        assert on_disk < 2 << 20
    assert "behind" in {e.action for e in stepped.events}
    store.error = None
    stepped.clock.advance(1000)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    assert [f.max_txid for f in level0(store)] == list(range(1, len(level0(store)) + 1))
    assert sum(f.size for f in level0(store)[1:]) < 3_000_000


def test_place_in_line_that_is_lost_before_the_delta_was_stored(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """The replica does not hold the delta yet, so it is not what the next one starts from."""
    stepped = make(buffer_size=1 << 20, spool_size=1 << 20)
    fill(db, 300)
    assert stepped.durable()
    stepped.kill()
    db.execute("update t set v = 'while nobody looked' where id < 100")
    stepped.begin()
    worker = stepped.workers[0]
    while worker._request is None:
        stepped.step()
    stepped.engine.step()
    assert worker._request.answered.is_set()
    while "behind" not in {e.action for e in stepped.events}:
        db.execute("update t set v = randomblob(60000) where id > 280")
        stepped.clock.advance(1.1)
        stepped.engine.step()
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_place_in_line_that_is_lost_while_another_writes(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """What the store holds then is not what it held: every page is compared."""
    stepped = make(node_id=1, buffer_size=1 << 20, spool_size=1 << 20)
    fill(db, 300)
    assert stepped.durable()
    copy = tmp_path / "copy.db"
    restore(store, copy)
    while "behind" not in {e.action for e in stepped.events}:
        db.execute("update t set v = randomblob(60000) where id > 280")
        stepped.clock.advance(1.1)
        stepped.engine.step()  # the worker waits for the store all the time
    theirs = sqlite3.connect(copy, isolation_level=None)
    theirs.execute("update t set v = 'another host' where id < 100")
    other = Stepped(copy, [lambda: store], node_id=2)
    assert other.durable()
    assert [f.max_txid for f in level0(store)] == [1, 2]
    stepped.clock.advance(1000)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    theirs.close()
    other.engine.close()


def test_delta_is_one_state_although_the_application_goes_on(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T13: writes and checkpoints during a snapshot are not in it."""
    stepped = make()
    fill(db, 1500)
    before = digest(serialized(stepped.path))
    stepped.engine.step()
    assert stepped.engine.capture.attached
    original = View.runs

    def runs(view: View, pgnos: Iterable[int]) -> Iterator[tuple[int, list[bytes]]]:
        for run in original(view, pgnos):
            db.execute("update t set v = randomblob(4000)")
            db.execute("pragma wal_checkpoint(passive)").fetchall()
            stepped.engine.step()
            yield run

    monkeypatch.setattr(View, "runs", runs)
    stepped.clock.advance(1)
    while not level0(store):
        stepped.step()
    monkeypatch.undo()
    assert restored(store, tmp_path, txid=1) == before
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_history_with_a_gap_is_continued_by_a_snapshot(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """A replica that lost a file restores again after a start; nothing is overwritten."""
    stepped = make()
    for i in range(4):
        db.execute("insert into t(v) values(?)", (i,))
        assert stepped.durable()
    stepped.kill()
    store.delete([level0(store)[1]])
    stepped.begin()
    assert stepped.durable()
    assert [(f.min_txid, f.max_txid) for f in store.list_level(9)] == [(1, 5)]
    # The level-0 file of that number has every page too: whoever compacts over it must
    # not carry pages from before the gap past the snapshot.
    newest = level0(store)[-1]
    assert newest.max_txid == 5
    assert len(decode(store.get(newest))[1]) == decode(store.get(newest))[0].commit
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    assert restored(store, tmp_path, txid=1)
    db.execute("insert into t(v) values('after')")
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_garbled_newest_file_is_continued_by_a_snapshot(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """A newest file that is no LTX file is left alone, and the history goes on past it."""
    stepped = make()
    assert stepped.durable()
    db.execute("insert into t(v) values(1)")
    assert stepped.durable()
    stepped.kill()
    (tmp_path / "replica/ltx/0").joinpath(level0(store)[1].name).write_bytes(b"x" * 500)
    stepped.begin()
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_second_snapshot_of_the_same_state_is_the_first(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped
) -> None:
    """A snapshot of an unchanged database is neither made again nor a conflict."""
    stepped = make()
    db.execute("insert into t(v) values(1)")
    assert stepped.durable()
    for _ in range(2):
        for _ in range(2):
            assert stepped.snapshot() is None
            stepped.clock.advance(1)
        stepped.restart()
        assert stepped.durable()
    assert [(f.min_txid, f.max_txid) for f in store.list_level(9)] == [(1, 1)]


def test_page_size_changed_while_stopped_begins_a_new_line(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """T17: through DELETE mode and VACUUM; older transactions still restore."""
    stepped = make()
    fill(db, 20)
    assert stepped.durable()
    old = digest(serialized(stepped.path))
    stepped.kill()
    db.execute("pragma journal_mode=delete")
    db.execute("pragma page_size=1024")
    db.execute("vacuum")
    stepped.begin()
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    db.execute("insert into t(v) values('after')")
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    assert restored(store, tmp_path, txid=1) == old
