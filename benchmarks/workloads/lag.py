"""Lag: from a commit to the moment at which a restore would have it."""

from __future__ import annotations

import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from benchmarks import databases
from benchmarks.contents import RowFinder
from benchmarks.context import Context, Figures, Writer
from benchmarks.measure import percentile, wait_for
from benchmarks.systems import System

RATE = 200
_INTERVALS = (1.0, 0.1, 0.01)
_CATCH_UP = 30.0


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """Paced commits under several sync intervals."""
    if system.name == "none":
        return {}
    return {
        f"{RATE} tx/s, sync interval {interval:g} s": _measure(
            system, context, interval
        )
        for interval in _INTERVALS
    }


def _measure(system: System, context: Context, interval: float) -> Figures:
    with context.fresh() as folder:
        database, replica = folder / "a.db", folder / "replica"
        times = folder / "commits"
        databases.make_empty(database)
        with system.start([(database, str(replica))], interval) as running:
            running.sync()
            cpu = running.cpu()
            writer = Writer(
                "small", database, seconds=context.seconds, rate=RATE, commits=times
            )
            result = writer.result()
            cpu = running.cpu() - cpu
            finder = RowFinder(replica)
            wait_for(lambda: finder.time_of(result["last"]), _CATCH_UP, 0.05)
            rss = running.rss()
            writer.end()
            lags = lags_of(
                finder, result["first"], array.array("d", times.read_bytes())
            )
        return {
            **figures_of(lags),
            "cpu_percent": 100 * cpu / result["wall"],
            "rss_mb": rss,
        }


def figures_of(lags: Sequence[float]) -> Figures:
    """The middle, the tail and the worst of lags in seconds."""
    return {
        "lag_p50_ms": percentile(lags, 0.5) * 1e3,
        "lag_p99_ms": percentile(lags, 0.99) * 1e3,
        "lag_worst_ms": max(lags) * 1e3,
    }


class Visible(Protocol):
    """What knows when rows were first seen."""

    def visible(self) -> Iterable[tuple[int, float]]:
        """Rows, each the last one of its moment, and the times."""


def lags_of(finder: Visible, first: int, committed: array.array[float]) -> list[float]:
    """Seconds from each commit, rows ``first`` on, to the first time it was seen."""
    newest: list[tuple[int, float]] = []
    for row, seen in finder.visible():
        if not newest or row > newest[-1][0]:
            newest.append((row, seen))
    rows = [row for row, _ in newest]
    # Change times have the kernel's tick of some milliseconds, so never below 0.
    return [
        max(0.0, newest[bisect_left(rows, first + i)][1] - at)
        for i, at in enumerate(committed)
    ]
