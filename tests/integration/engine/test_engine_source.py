"""The database comes, goes and changes under us; and the times of what is captured."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.capturing import digest, make_database, serialized
from support.stepping import FakeClock
from support.told import AWAY, MakeStepped, ToldStore, fill, level0, restored

from sqlitereplica import DatabaseStateError
from sqlitereplica.capture import Capture


def test_missing_and_empty_databases_are_waited_for(
    path: Path, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """T09: nothing is created; the first state is TXID 1."""
    stepped = make()
    assert stepped.durable()
    assert stepped.engine.state == "waiting"
    assert not path.exists()
    path.touch()
    assert stepped.durable()
    assert path.stat().st_size == 0
    db = make_database(path, page_size=8192)
    assert stepped.durable()
    assert [f.max_txid for f in level0(store)] == [1]
    assert restored(store, tmp_path) == digest(serialized(path))
    db.close()


@pytest.mark.parametrize("content", ["wal", "checkpointed", "delete-mode"])
def test_first_start_on_an_existing_database(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    content: str,
) -> None:
    """T09: with content in the WAL, without, and in DELETE mode."""
    fill(db, 100)
    if content == "checkpointed":
        db.execute("pragma wal_checkpoint(truncate)").fetchall()
    if content == "delete-mode":
        db.execute("pragma journal_mode=delete")
    stepped = make()
    assert stepped.durable()
    assert [(f.min_txid, f.max_txid) for f in level0(store)] == [(1, 1)]
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_database_replaced_while_running_is_compared_anew(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """An inode change is noticed within a second; the new file's difference is sent."""
    stepped = make()
    fill(db, 50)
    assert stepped.durable()
    other = make_database(tmp_path / "other.db")
    fill(other, 60)
    other.close()
    os.replace(tmp_path / "other.db", stepped.path)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{stepped.path}{suffix}")
    stepped.clock.advance(2)
    failed = stepped.sync().future.exception(0)
    assert isinstance(failed, DatabaseStateError)
    assert failed.kind == "replaced"
    stepped.clock.advance(10)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    assert [f.max_txid for f in level0(store)] == [1, 2]


def test_move_is_noticed_before_the_next_look_at_the_wal(
    db: sqlite3.Connection, make: MakeStepped, tmp_path: Path
) -> None:
    """Whatever is in the WAL from then on may be of the new file."""
    stepped = make()
    fill(db, 50)
    assert stepped.durable()
    db.close()
    make_database(tmp_path / "other.db").close()
    os.replace(tmp_path / "other.db", stepped.path)
    stepped.engine.step()
    assert not stepped.engine.capture.attached
    assert not os.path.exists(f"{stepped.path}-shm")


def test_database_replaced_during_the_attach_is_not_mixed_with_the_old_one(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """Connections to one file and descriptors of another are never used together."""
    fill(db, 50)
    db.execute("pragma wal_checkpoint(passive)").fetchall()
    calls, app = [], list[sqlite3.Connection]()

    def connect(path: str) -> sqlite3.Connection:
        calls.append(path)
        connection = sqlite3.connect(path)
        connection.execute("select * from t").fetchall()  # SQLite opens files late
        if len(calls) == 5:
            other = make_database(tmp_path / "other.db")
            fill(other, 60)
            other.close()
            db.close()
            os.replace(tmp_path / "other.db", path)
            for suffix in ("-wal", "-shm"):
                os.unlink(path + suffix)
            app.append(sqlite3.connect(path, isolation_level=None))
            app[0].execute("insert into t(v) values('to the new one')")
        return connection

    stepped = make(connect=connect)
    stepped.engine.step()
    assert not stepped.engine.capture.attached
    stepped.clock.advance(10)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    app[0].close()


def test_wal_removed_while_running_is_refused_by_name_and_survived(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """A dropped WAL: ``sync`` raises once, then what is left is compared and sent."""
    stepped = make()
    db.execute("insert into t(v) values(1)")
    assert stepped.durable()
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{stepped.path}{suffix}")
    stepped.clock.advance(2)
    failed = stepped.sync().future.exception(0)
    assert isinstance(failed, DatabaseStateError)
    assert failed.kind == "wal-lost"
    db.close()
    stepped.clock.advance(10)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


@pytest.mark.parametrize("kind", ["replaced", "wal-lost"])
def test_sync_looks_whether_it_is_still_the_same_file(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    kind: str,
) -> None:
    """A commit that went to another file in this very moment is not said to be durable."""
    stepped = make()
    fill(db, 50)
    assert stepped.durable()
    db.execute("pragma wal_checkpoint(passive)").fetchall()
    db.close()
    if kind == "replaced":
        make_database(tmp_path / "other.db").close()
        os.replace(tmp_path / "other.db", stepped.path)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{stepped.path}{suffix}")
    code = "insert into t(v) values('in another process, to the new one')"
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    program += "c.execute(sys.argv[2]); c.commit()"
    subprocess.run([sys.executable, "-c", program, stepped.path, code], check=True)
    failed = stepped.sync().future.exception(0)
    assert isinstance(failed, DatabaseStateError)
    assert failed.kind == kind
    stepped.clock.advance(10)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_exclusive_locking_mode_is_refused_by_name(
    path: Path, store: ToldStore, make: MakeStepped
) -> None:
    """``locking_mode=EXCLUSIVE`` shuts everybody out; the error says what to set."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma locking_mode=exclusive")
    db.execute("create table t(v)")
    stepped = make()
    ticket = stepped.engine.tickets.take(0, None)
    for _ in range(100):
        stepped.engine.step()
        stepped.clock.advance(0.1)
    error = ticket.future.exception(0)
    assert isinstance(error, DatabaseStateError)
    assert error.kind == "exclusive"
    assert "locking_mode" in str(error)
    db.close()
    stepped.clock.advance(10)
    assert stepped.durable()


def test_disk_that_cannot_be_read_is_said_by_name(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No raw error of the operating system comes out of ``sync``; it is tried again."""
    stepped = make()
    assert stepped.durable()
    wal = stepped.engine.capture._parts()[0]._wal
    original = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if fd == wal:
            raise OSError(errno.EIO, "Input/output error")
        return original(fd, size, offset)

    db.execute("insert into t(v) values(1)")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        failed = stepped.sync().future.exception(0)
    assert isinstance(failed, DatabaseStateError)
    assert failed.kind == "unreadable"
    stepped.clock.advance(1)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_capture_that_fails_again_and_again_is_tried_less_and_less(
    db: sqlite3.Connection, make: MakeStepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attach reads the whole database: that must not go on without a pause."""
    stepped = make()
    assert stepped.durable()

    def fails(capture: Capture) -> None:
        raise OSError("told to fail")

    with monkeypatch.context() as patch:
        patch.setattr(Capture, "step", fails)
        before = stepped.clock()
        while stepped.clock() < before + 60:
            stepped.clock.advance(max(0.01, stepped.engine.step()))
    assert len([e for e in stepped.events if e.action == "attach"]) < 25
    stepped.clock.advance(5)
    assert stepped.durable()
    # After a while in which all was well it is tried again at once.
    stepped.clock.advance(60)
    stepped.step()
    attached = len([e for e in stepped.events if e.action == "attach"])
    stepped.engine.fail(OSError("once"))
    stepped.clock.advance(0.06)
    stepped.engine.step()
    assert len([e for e in stepped.events if e.action == "attach"]) == attached + 1


def test_times_never_fall_although_the_clock_is_set_back(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, path: Path
) -> None:
    """Point-in-time restores rely on it: also over a restart."""
    clock = FakeClock()
    stepped = make(clock=clock)
    for hour in range(6):
        db.execute("insert into t(v) values(1)")
        assert stepped.durable()
        clock.wall_ms -= 3_600_000 if hour % 2 else 60_000
        if hour == 3:
            stepped.restart()
    times = [f.timestamp for f in store.list_all(accurate=True)]
    assert len(times) == 6
    assert times == sorted(times)


def test_increment_is_made_when_the_interval_is_over_and_not_before(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped
) -> None:
    """``sync_interval`` counts from the first commit that waits."""
    stepped = make(sync_interval=5.0)
    assert stepped.durable()
    db.execute("insert into t(v) values(1)")
    stepped.run()
    stepped.clock.advance(4.9)
    stepped.run()
    assert len(level0(store)) == 1
    stepped.clock.advance(0.2)
    stepped.run()
    assert len(level0(store)) == 2


@pytest.mark.parametrize("is_viewed", [False, True])
@pytest.mark.parametrize("quiet", [0.0, 0.5, 60.0])
def test_commit_is_in_a_local_replica_after_the_interval_and_a_look(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    quiet: float,
    is_viewed: bool,
) -> None:
    """With 0.1 s it takes 0.1 s and a quarter at most, however long nothing happened."""
    stepped = make(sync_interval=0.1)
    assert stepped.durable()
    if is_viewed:  # as while a snapshot is read
        stepped.engine.capture.view()

    def run_for(seconds: float) -> None:
        end = stepped.clock() + seconds
        while stepped.clock() < end - 1e-6:  # the clock moves by microseconds
            delay = stepped.engine.step()
            stepped.workers[0].advance()
            stepped.clock.advance(min(max(delay, 0.0001), end - stepped.clock()))

    run_for(quiet)
    db.execute("insert into t(v) values(1)")
    run_for(0.126)
    stepped.workers[0].advance()
    assert len(level0(store)) == 2


def test_journal_mode_stays_while_it_is_replicated(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """T17: another mode needs the database for itself; SQLite refuses, and we go on."""
    stepped = make()
    fill(db, 10)
    assert stepped.durable()
    for mode in ("delete", "truncate", "memory", "off"):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            db.execute(f"pragma journal_mode={mode}").fetchall()
        db.execute("insert into t(v) values(?)", (mode,))
        assert stepped.durable()
    assert db.execute("pragma journal_mode").fetchone() == ("wal",)
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


@pytest.mark.parametrize("back", [True, False])
def test_journal_mode_that_was_another_while_stopped_is_no_gap(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    back: bool,
) -> None:
    """T17: what was written without a WAL is found by comparison, and little is sent."""
    stepped = make()
    fill(db, 200)
    assert stepped.durable()
    stepped.kill()
    db.execute("pragma journal_mode=delete").fetchall()
    db.execute("update t set v = 'in delete mode' where id = 7")
    if back:
        db.execute("pragma journal_mode=wal").fetchall()
    stepped.begin()
    assert stepped.durable()
    assert level0(store)[1].size < 20_000
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_idle_database_causes_no_request_and_no_write(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, path: Path
) -> None:
    """T40: sixty minutes of nothing."""
    stepped = make()
    db.execute("insert into t(v) values(1)")
    assert stepped.durable()
    for _ in range(5):
        stepped.clock.advance(1)
        stepped.run()
    requests = dict(store.requests)
    before = digest(serialized(path)), os.stat(f"{path}-wal").st_mtime_ns
    for _ in range(3600):
        stepped.clock.advance(1)
        stepped.step()
    assert dict(store.requests) == requests
    assert (digest(serialized(path)), os.stat(f"{path}-wal").st_mtime_ns) == before


def test_file_that_cannot_be_deleted_takes_no_replica_out_for_good(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk of the spool refuses it just when the database is let go."""
    stepped = make(buffer_size=1 << 20)
    fill(db, 10)
    assert stepped.durable()
    store.error = AWAY
    for _ in range(30):
        db.execute("update t set v = randomblob(60000)")
        stepped.clock.advance(1.1)
        stepped.step()
    assert list((stepped.meta / "spool").iterdir())

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "read-only", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        stepped.engine.fail(RuntimeError("told to"))
    store.error = None
    stepped.clock.advance(1000)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
