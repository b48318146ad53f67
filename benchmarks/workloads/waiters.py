"""A thousand requests that commit and wait for durability: what that costs in uploads."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import databases
from benchmarks.context import Context, Figures
from benchmarks.measure import percentile
from benchmarks.systems import System
from sqlitereplica import Replicator

_WAITERS = 1000
_DELAY = 0.05


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """All at once and spread over a second, on an object store 50 ms away."""
    if system.name != "ours":
        return {}
    found = {}
    for case, spread in (("at once", 0.0), ("within 1 s", 1.0)):
        with context.fresh() as folder, context.remote.delayed(_DELAY):
            database = folder / "a.db"
            databases.make_empty(database)
            found[f"{_WAITERS} {case}"] = _run(database, context, spread)
    return found


def _run(database: Path, context: Context, spread: float) -> Figures:
    url = context.remote.url(f"waiters-{time.time_ns()}")
    with Replicator(database, url, sync_interval=3600) as replicator:
        replicator.sync()
        before = context.remote.puts
        took = asyncio.run(_all(database, replicator, spread))
        puts = context.remote.puts - before
    p50, p99 = percentile(took, 0.5) * 1e3, percentile(took, 0.99) * 1e3
    return {"puts": puts, "p50_ms": p50, "p99_ms": p99}


async def _all(database: Path, replicator: Replicator, spread: float) -> list[float]:
    """Seconds from the beginning of each request to its answer."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("create table waiter(number)")
    begun = time.monotonic()

    async def request(number: int) -> float:
        due = begun + spread * number / _WAITERS
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        connection.execute("insert into waiter values(?)", (number,))
        await replicator.sync_async()
        return time.monotonic() - began

    try:
        return await asyncio.gather(*(request(n) for n in range(_WAITERS)))
    finally:
        connection.close()
