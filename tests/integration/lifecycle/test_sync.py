"""``sync``: many callers at once, and stores that are away."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.capturing import serialized
from support.lifetime import await_true, library_threads, restored, write
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replica, Replicator, restore
from sqlitereplica.errors import (
    DatabaseStateError,
    StoreError,
    SyncTimeoutError,
)
from sqlitereplica.store import LTXStore

# -- many callers ----------------------------------------------------------------------


def test_thousand_waiters_cost_one_upload(path: Path, db: sqlite3.Connection) -> None:
    """All that wait at the same time wait for the same file."""
    fs = SwitchableFileSystem()

    def uploads() -> list[str]:
        return [name for name in fs.store if "/ltx/0/" in name]

    async def main() -> None:
        replicator = Replicator(path, Replica(fs, path="/r"), sync_interval=3600)
        async with replicator:
            await replicator.sync_async()
            before = len(uploads())
            fs.hang()
            write(db)
            waiting = [
                asyncio.create_task(replicator.sync_async()) for _ in range(1000)
            ]
            await asyncio.sleep(0)
            fs.heal()
            await asyncio.gather(*waiting)
            assert len(uploads()) <= before + 2

    asyncio.run(main())


def test_requests_gather_while_an_upload_is_under_way(
    path: Path, db: sqlite3.Connection
) -> None:
    """Each sees its own commit durable, at the price of what a slow store can take."""
    fs = SwitchableFileSystem()

    async def request(replicator: Replicator) -> None:
        write(db)
        await replicator.sync_async()

    async def main() -> float:
        replicator = Replicator(path, Replica(fs, path="/r"), sync_interval=3600)
        async with replicator:
            await replicator.sync_async()
            fs.latency = 0.1
            begin = time.monotonic()
            await asyncio.gather(*(request(replicator) for _ in range(500)))
            return time.monotonic() - begin

    seconds = asyncio.run(main())
    assert len(fs.store) <= 3 + seconds / 0.1
    restore(LTXStore.open(fs, path="/r"), path.with_name("out.db"))
    assert path.with_name("out.db").read_bytes() == db.serialize()


def test_many_threads_sync_at_once(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """Every thread's own commits are in the replica when its sync returns."""
    with Replicator(path, replica, sync_interval=3600) as replicator:

        def work(number: int) -> None:
            own = sqlite3.connect(path, isolation_level=None, timeout=30)
            for i in range(5):
                own.execute("insert into t(v) values(?)", (f"{number}-{i}",))
                replicator.sync()
            own.close()

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(work, range(20)))
        assert restored(replica) == db.serialize()
        assert len(LTXStore.open(replica).list_all()) <= 101


def test_cancelled_waiter_does_not_disturb_the_others(
    path: Path, db: sqlite3.Connection
) -> None:
    """The wait is shared, its cancellation is not."""
    fs = SwitchableFileSystem()

    async def main() -> None:
        async with Replicator(path, Replica(fs, path="/r")) as replicator:
            await replicator.sync_async()
            fs.hang()
            write(db)
            tasks = [asyncio.create_task(replicator.sync_async()) for _ in range(10)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await replicator.sync_async()
            fs.heal()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            kinds = [type(r) for r in results]
            assert kinds == [asyncio.CancelledError, type(None)] * 5

    asyncio.run(main())


def test_event_loop_may_end_while_a_sync_is_under_way(
    path: Path, db: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A wait whose loop is gone is nobody's; nothing is logged as an error."""
    fs = SwitchableFileSystem()
    with Replicator(path, Replica(fs, path="/r")) as replicator:
        replicator.sync()
        fs.hang()
        write(db)

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await replicator.sync_async()

        asyncio.run(main())
        fs.heal()
        replicator.sync()
    assert [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []


# -- a store that is away --------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_sync_times_out_with_the_cause(
    path: Path, db: sqlite3.Connection, asynchronous: bool
) -> None:
    """The error says who has not confirmed and what failed last; then all goes on."""
    fs = SwitchableFileSystem()
    fs.fail()
    with Replicator(path, Replica(fs, path="/r", name="mine")) as replicator:
        # The first failure is known only after the store's own retries.
        await_true(lambda: replicator.status().replicas[0].error)
        write(db)

        def sync() -> None:
            if asynchronous:
                asyncio.run(replicator.sync_async(timeout=0.05))
            else:
                replicator.sync(timeout=0.05)

        with pytest.raises(SyncTimeoutError) as caught:
            sync()
        assert caught.value.pending == ("mine",)
        assert isinstance(caught.value.__cause__, StoreError)
        assert "the store is away" in str(caught.value)
        status = replicator.status()
        assert not status.ok and status.replicas[0].error
        fs.heal()
        replicator.sync()
        assert replicator.status().ok


def test_sync_times_out_on_a_store_that_hangs(
    path: Path, db: sqlite3.Connection
) -> None:
    """Without any answer from the store there is no cause, but there is an end."""
    fs = SwitchableFileSystem()
    fs.hang()
    with Replicator(path, Replica(fs, path="/r", name="mine")) as replicator:
        with pytest.raises(SyncTimeoutError) as caught:
            replicator.sync(timeout=0.1)
        assert caught.value.pending == ("mine",)
        fs.heal()
        replicator.sync()


def test_stop_leaves_a_store_that_hangs_behind(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """It ends in time; the database stays locked until the put can no longer arrive."""
    fs = SwitchableFileSystem()
    replicator = Replicator(path, Replica(fs, path="/r"))
    replicator.start()
    replicator.sync()
    fs.hang()
    write(db)
    with pytest.raises(SyncTimeoutError):
        replicator.stop(timeout=0.3)
    with pytest.raises(DatabaseStateError) as caught:
        replicator.start()
    assert caught.value.kind == "elsewhere"
    fs.heal()
    await_true(lambda: library_threads() == set())
    with replicator:
        replicator.sync()
    restore(LTXStore.open(fs, path="/r"), tmp_path / "restored.db")
    assert (tmp_path / "restored.db").read_bytes() == serialized(path)
