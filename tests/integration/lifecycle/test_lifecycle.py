"""Start and stop, once, twice, from anywhere; one Replicator for one database."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import await_true, library_threads, restored, unusable, write
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replica, Replicator
from sqlitereplica.errors import (
    DatabaseStateError,
    ReplicatorClosedError,
    StoreError,
    SyncTimeoutError,
)
from sqlitereplica.replicate import engine
from sqlitereplica.sqlite import is_ready

# -- start and stop --------------------------------------------------------------------


def test_starting_and_stopping_twice_is_once(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """Both are idempotent, and a stopped Replicator can be started again."""
    replicator = Replicator(path, replica)
    replicator.stop()
    for _ in range(2):
        replicator.start()
        threads = library_threads()
        replicator.start()
        assert library_threads() == threads
        write(db)
        replicator.sync()
        assert restored(replica) == db.serialize()
        replicator.stop()
        replicator.stop()
        await_true(lambda: library_threads() == set())


def test_threads_are_named_and_gone_after_stop(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """For capture, other processes, the history and each replica one, all daemons."""
    replicas = [tmp_path / "a", tmp_path / "b"]
    before = set(threading.enumerate())
    with Replicator(path, replicas):
        new = set(threading.enumerate()) - before
        names = sorted(t.name for t in new)
        assert names == [
            "sqlitereplica",
            f"sqlitereplica-{tmp_path}/a",
            f"sqlitereplica-{tmp_path}/b",
            "sqlitereplica-desk",
            "sqlitereplica-history",
        ]
        assert all(t.daemon for t in new)
    await_true(lambda: set(threading.enumerate()) == before)


def test_signal_handlers_are_left_alone(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """A library has no business with signals."""
    before = [signal.getsignal(s) for s in signal.valid_signals()]
    with Replicator(path, replica) as replicator:
        assert [signal.getsignal(s) for s in signal.valid_signals()] == before
        replicator.sync()
    assert [signal.getsignal(s) for s in signal.valid_signals()] == before


def test_stopping_from_other_threads_at_once(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """Any thread may stop it; the others return when it is stopped."""
    replicator = Replicator(path, replica)
    replicator.start()
    write(db)
    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(replicator.stop) for _ in range(5)]:
            done.result(60)
    await_true(lambda: library_threads() == set())
    assert restored(replica) == db.serialize()


def test_stop_flushes(path: Path, db: sqlite3.Connection, replica: Path) -> None:
    """What was committed before ``stop`` is durable when it returns, without a sync."""
    with Replicator(path, replica, sync_interval=3600):
        write(db)
    assert restored(replica) == db.serialize()


@pytest.mark.parametrize("state", ["never started", "stopped"])
def test_calls_while_not_running_are_refused(
    path: Path, db: sqlite3.Connection, replica: Path, state: str
) -> None:
    """``ReplicatorClosedError``, whatever is called; a status is always there."""
    replicator = Replicator(path, replica)
    if state == "stopped":
        replicator.start()
        replicator.stop()
    for call in (
        replicator.sync,
        replicator.snapshot,
        lambda: asyncio.run(replicator.sync_async()),
    ):
        with pytest.raises(ReplicatorClosedError) as caught:
            call()
        assert caught.value.kind == "closed"
    assert replicator.status().state == "stopped"
    assert not replicator.status().ok


def test_waiting_callers_are_told_when_it_is_stopped(
    path: Path, db: sqlite3.Connection
) -> None:
    """Nobody is left waiting, neither who came before the stop nor who comes during it."""
    fs = SwitchableFileSystem()
    replicator = Replicator(path, Replica(fs, path="/r"))
    replicator.start()
    replicator.sync()
    write(db)
    fs.fail()
    ended = threading.Event()

    def wait() -> Exception | None:
        while not ended.is_set():
            try:
                replicator.sync(timeout=None)
            except ReplicatorClosedError:
                return None
        return AssertionError("not told")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(wait) for _ in range(4)]
        with pytest.raises(SyncTimeoutError):
            replicator.stop(timeout=0.3)
        results = [w.result(30) for w in waiting]
        ended.set()
    assert results == [None] * 4


# -- one Replicator for one database ---------------------------------------------------


def test_second_replicator_of_a_database_is_refused(
    path: Path, db: sqlite3.Connection, replica: Path, tmp_path: Path
) -> None:
    """In this process, by whatever name; as soon as the first has stopped it may start."""
    link = tmp_path / "link.db"
    link.symlink_to(path)
    first = Replicator(path, replica)
    second = Replicator(link, tmp_path / "other")
    folder = tmp_path / "replica" / ".." / ".app.db-sqlitereplica"
    third = Replicator(path, tmp_path / "third", meta_path=folder)
    with first:
        first.sync()
        for other in (second, third) * 3:
            with pytest.raises(DatabaseStateError) as caught:
                other.start()
            assert caught.value.kind == "elsewhere"
        assert second.status().state == "stopped"
        write(db)
        first.sync()
    with second:
        second.sync()
    assert restored(replica) == restored(tmp_path / "other")


# -- with and async with ---------------------------------------------------------------


def test_exception_of_the_body_is_kept(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """A failing flush is a note on it, not in its place."""
    with pytest.raises(ValueError, match="mine") as caught:
        with Replicator(path, unusable(tmp_path)):
            raise ValueError("mine")
    assert any("while stopping" in note for note in caught.value.__notes__)
    await_true(lambda: library_threads() == set())


def test_failing_flush_is_raised_when_the_body_succeeded(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Leaving the block says that data are not durable; everything is stopped all the same."""
    with pytest.raises(StoreError):
        with Replicator(path, unusable(tmp_path)):
            pass
    await_true(lambda: library_threads() == set())


def test_async_with_and_sync_async(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """The same for asyncio; the event loop goes on meanwhile."""

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with Replicator(path, replica) as replicator:
            ticking = asyncio.create_task(tick())
            write(db)
            await replicator.sync_async()
            assert restored(replica) == db.serialize()
            ticking.cancel()
        return ticks

    assert asyncio.run(main()) > 1
    await_true(lambda: library_threads() == set())


def test_async_with_keeps_the_exception_of_the_body(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """As in the synchronous form."""

    async def main() -> None:
        async with Replicator(path, unusable(tmp_path)):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        asyncio.run(main())


# -- a database that comes later -------------------------------------------------------


def test_missing_database_is_waited_for(path: Path, replica: Path) -> None:
    """A sync has nothing to make durable until there is a database, then it has."""
    with Replicator(path, replica) as replicator:
        replicator.sync()
        await_true(lambda: replicator.status().state == "waiting")
        assert not path.exists() and not replica.exists()
        db = make_database(path)
        write(db)
        replicator.sync()
        assert restored(replica) == db.serialize()
        db.close()
    assert os.listdir(replica) == ["ltx"]


def test_database_made_during_the_look_for_it_is_not_overlooked(
    path: Path, replica: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who made it and calls ``sync`` while capture believes it missing waits for it."""
    synced = threading.Event()

    def look(database: str) -> bool:
        ready = is_ready(database)
        if not ready and not path.exists():
            db = make_database(path)
            write(db)
            db.close()
            threads.submit(replicator.sync).add_done_callback(lambda _: synced.set())
            await_true(
                lambda: (
                    replicator._running and replicator._running.engine.tickets.waiting
                )
            )
        return ready

    monkeypatch.setattr(engine, "is_ready", look)
    with ThreadPoolExecutor(1) as threads:
        with Replicator(path, replica) as replicator:
            assert synced.wait(30)
            assert restored(replica) == serialized(path)


HALF_MADE = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("pragma cache_size=1")
db.execute("begin")
db.execute("create table t(v)")
for _ in range(100):
    db.execute("insert into t values(randomblob(3000))")
assert os.stat(sys.argv[1]).st_size > 0
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_page_size_of_a_half_made_database_stays_the_application_s_to_choose(
    path: Path, replica: Path
) -> None:
    """A file that rolls back to nothing is no database yet: it is not made one in WAL."""
    subprocess.run([sys.executable, "-c", HALF_MADE, str(path)], check=False)
    assert path.with_name("app.db-journal").exists()
    with Replicator(path, replica) as replicator:
        await_true(lambda: path.stat().st_size == 0)
        await_true(lambda: replicator.status().state == "waiting")
        replicator.sync()
        db = make_database(path, page_size=8192)
        write(db)
        replicator.sync()
        assert db.execute("pragma page_size").fetchone() == (8192,)
        assert restored(replica) == db.serialize()
        db.close()
