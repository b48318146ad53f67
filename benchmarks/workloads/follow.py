"""Followers: from a commit to the moment at which a reader of the followed file sees it.

The source is replicated by ours in every case; only the follower differs.
"""

from __future__ import annotations

import array
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import databases
from benchmarks.context import Context, Figures, Writer
from benchmarks.measure import wait_for
from benchmarks.systems import SYSTEMS, Running, System
from benchmarks.workloads.lag import RATE, figures_of, lags_of

_SYNC, _LOOK = 0.1, 0.1
_PAUSE = 0.01
_CATCH_UP = 20.0


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """Paced commits to a database of some size, followed in a folder and on S3."""
    if system.name == "none":
        return {}
    found = {}
    for where in ("folder", "s3"):
        case = f"{where}, {RATE} tx/s, looks every {_LOOK:g} s"
        found[case] = _follow(system, context, where)
    return found


def _follow(system: System, context: Context, where: str) -> Figures:
    with context.fresh() as folder:
        database, copy = folder / "a.db", folder / "f.db"
        replica = str(folder / "replica")
        if where == "s3":
            replica = context.remote.url(f"follow-{time.time_ns()}")
        databases.copy(context.large, database)
        databases.make_empty(database)
        with SYSTEMS["ours"].start([(database, replica)], _SYNC) as source:
            source.sync()
            with system.follow(replica, copy, _LOOK) as follower:
                wait_for(lambda: copy.exists() or None, _CATCH_UP)
                follower.forget_peak()
                idle = _idle(follower, context, where)
                cpu = follower.cpu()
                seen, result, times = _write(context, database, copy)
                cpu = follower.cpu() - cpu
                rss = follower.rss()
        lags = lags_of(seen, result["first"], times)
    return {
        **figures_of(lags),
        "cpu_percent": 100 * cpu / result["wall"],
        "rss_mb": rss,
        **idle,
    }


def _idle(follower: Running, context: Context, where: str) -> Figures:
    """What looks cost that find nothing new."""
    time.sleep(context.settle)
    asked = context.remote.requests if where == "s3" else 0
    cpu, begun = follower.cpu(), time.perf_counter()
    time.sleep(context.seconds)
    took = time.perf_counter() - begun
    figures = {"idle_cpu_percent": 100 * (follower.cpu() - cpu) / took}
    if where == "s3":
        figures["idle_requests_per_s"] = (context.remote.requests - asked) / took
    return figures


def _write(
    context: Context, database: Path, copy: Path
) -> tuple[Seen, dict[str, Any], array.array[float]]:
    """Write at a pace while somebody reads the copy."""
    times = copy.with_name("commits")
    with Seen(copy) as seen:
        writer = Writer(
            "small", database, seconds=context.seconds, rate=RATE, commits=times
        )
        result = writer.result()
        wait_for(lambda: seen.last >= result["last"] or None, _CATCH_UP)
        writer.end()
    return seen, result, array.array("d", times.read_bytes())


class Seen:
    """A reader that looks all the time which row is the last one."""

    def __init__(self, path: Path) -> None:
        self.last = 0
        self._path, self._found = path, list[tuple[int, float]]()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Seen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _read(self) -> None:
        # A connection for each look: Litestream's file begins in WAL mode and leaves it with
        # the first change, which a connection that is open does not notice.
        while not self._stopping.wait(_PAUSE):
            with closing(sqlite3.connect(self._path, timeout=30)) as reader:
                (row,) = reader.execute("select coalesce(max(id), 0) from t").fetchone()
            if row > self.last:
                self._found.append((row, time.time()))
                self.last = row

    def visible(self) -> Sequence[tuple[int, float]]:
        """Rows and when each was first seen to be the last."""
        return self._found
