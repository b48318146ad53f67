"""Compaction: how fast the files of level 0 are merged into level 1.

Both systems do it by themselves, at multiples of an interval since the epoch. So both are
given the same interval and the same backlog: transactions that each change pages all over
a large database, each begun when the one before is in the replica, so that each has a file
of its own. The backlog is complete before a multiple. From the multiple on it is timed
until the file of level 1 that ends the backlog is visible: that is what a user of either
has, waking up, merging, and putting. CPU seconds are those of the process meanwhile, the
memory is its peak meanwhile, beside what it had resident before, and the throughput is of
the compressed bytes that the file was made of. (If a multiple came while the backlog was
written, it is written once more in the next interval.) Inputs are read from where each
system prefers: copies that Litestream keeps beside the database, the replica's folder for
ours.

Wall time is not all of the cost: ours rests as long as it works, so that an application
in the same process goes on; Litestream, alone in a process, takes all it can get. So both
throughputs are given, by the clock and by CPU time. A second case has
``Replicator.compact()``, for which somebody waits. Litestream cannot be asked: beside that
stand its figures of the first case again.

The first full image is out of the way before: Litestream copies it to level 1 at the
multiple after the start, ours makes it a snapshot. Level 2 is made of level 1 by the same
code in both, from larger files, and is not measured by itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import databases
from benchmarks.contents import Stored, increments, size_mib, stored
from benchmarks.context import Context, Figures
from benchmarks.measure import wait_for
from benchmarks.systems import Ours, Running, System

_SYNC = 0.02
_EACH = 0.2  # seconds of an interval for each transaction, some times what it takes
_DAY = _NEVER = 86_400
_TRIES = 5
_SPARE = 4.0  # seconds of an interval besides
_QUIET = 0.2  # of a core; a system that polls often is never idle
_TIMEOUT = 300.0


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """Merge ``files`` level-0 files, of as many pages in all as the database has."""
    if system.name == "none":
        return {}
    what = f"{context.files} files of level 0, {context.size:g} MiB"
    found = _measure(system, context)
    asked = _measure_asked(context) if isinstance(system, Ours) else found
    return {f"{what}, in the background": found, f"{what}, asked for": asked}


def _measure_asked(context: Context) -> Figures:
    """Figures of ``Replicator.compact()``."""
    with context.fresh() as folder:
        database, replica = folder / "a.db", folder / "replica"
        databases.copy(context.large, database)
        pairs = [(database, str(replica))]
        with Ours().start(pairs, _SYNC, levels=[_NEVER]) as running:
            running.compact()
            _write(database, replica, context.files)
            return _watch(running, replica, time.time(), running.compact)


def _measure(system: System, context: Context) -> Figures:
    """Figures of the compaction that a multiple of the interval brings."""
    interval = _interval(_SPARE + _EACH * context.files)
    with context.fresh() as folder:
        database, replica = folder / "a.db", folder / "replica"
        databases.copy(context.large, database)
        pairs = [(database, str(replica))]
        with system.start(pairs, _SYNC, levels=[interval]) as running:
            running.sync()
            for _ in range(_TRIES):
                _sleep_until(_next_multiple(time.time(), interval))
                _wait_for_quiet(running)
                due = _next_multiple(time.time(), interval)
                _write(database, replica, context.files)
                if time.time() < due:
                    return _watch(running, replica, due)
    raise TimeoutError(f"a backlog takes more than {interval} s: ask for fewer files")


def _write(database: Path, replica: Path, files: int) -> None:
    """Change pages in many transactions; returns when all are in the replica."""
    for i in range(files):
        before = _end(replica)
        databases.change(database, 1 / files, seed=i)
        wait_for(partial(_is_behind, replica, before), _TIMEOUT)


def _end(replica: Path) -> int:
    return increments(replica)[-1].max_txid


def _is_behind(replica: Path, txid: int) -> bool | None:
    return True if _end(replica) > txid else None


def _watch(
    running: Running,
    replica: Path,
    due: float,
    ask: Callable[[], object] = lambda: None,
) -> Figures:
    """Figures of the compaction that begins at ``due``, or that ``ask`` asks for."""
    waiting = increments(replica)
    end = waiting[-1].max_txid
    _sleep_until(due - _SYNC)
    running.forget_peak()
    before = running.rss()
    cpu = running.cpu()
    ask()
    made = wait_for(lambda: _made(replica, end), _TIMEOUT, 0.02)
    cpu = running.cpu() - cpu
    inputs = [f for f in waiting if f.max_txid >= made.min_txid]
    wall, size = made.visible - due, size_mib(inputs)
    # The clock of a file's times lags by a tick, CPU times are in ticks.
    wall, cpu = max(wall, 0.01), max(cpu, 0.01)
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "input_mb": size,
        "input_files": len(inputs),
        "output_mb": size_mib([made]),
        "mb_per_s": size / wall,
        "mb_per_cpu_s": size / cpu,
        "rss_mb": running.rss(),
        "rss_before_mb": before,
    }


def _made(replica: Path, end: int) -> Stored | None:
    """The file of level 1 that has a transaction of level 0, if there is one."""
    found = (f for f in stored(replica) if f.level == 1 and f.max_txid >= end)
    return next(found, None)


def _wait_for_quiet(running: Running) -> None:
    """Return when what the start brought with it is done."""

    def is_quiet() -> bool | None:
        cpu = running.cpu()
        time.sleep(1.0)
        return True if running.cpu() - cpu < _QUIET else None

    wait_for(is_quiet, _TIMEOUT)


def _interval(least: float) -> int:
    """Seconds, of which a day is a multiple.

    Litestream counts from the year 1, ours from 1970: only such multiples are the same.
    """
    return next(n for n in range(math.ceil(least), _DAY) if _DAY % n == 0)


def _next_multiple(moment: float, interval: int) -> float:
    return (moment // interval + 1) * interval


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))
