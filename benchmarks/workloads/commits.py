"""Small commits without a pause: what replication costs the application.

Once with the replicator in a process beside the writer and once inside the writer's own,
which only a library can do; for Litestream that is its daemon again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks import databases
from benchmarks.contents import RowFinder
from benchmarks.context import Context, Figures, Writer
from benchmarks.measure import WalWatch, peak_rss, wait_for
from benchmarks.systems import Running, System

_CATCH_UP = 60.0
_SHOWN = ("rate", "p50_us", "p99_us", "worst_ms", "over_50_ms")


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """Both places of the replicator."""
    return {
        "writer in another process": _measure(system, context, inside=False),
        "writer in the same process": _measure(system, context, inside=True),
    }


def _measure(system: System, context: Context, *, inside: bool) -> Figures:
    with context.fresh() as folder:
        database, replica = folder / "a.db", folder / "replica"
        databases.make_empty(database)
        options: dict[str, object] = {"seconds": context.seconds}
        inside = inside and system.in_process
        if inside:
            options["replica"] = replica
            return _write(Running(), database, replica, options)
        with system.start([(database, str(replica))], 1.0) as running:
            running.sync()
            return _write(running, database, replica, options)


def _write(
    running: Running, database: Path, replica: Path, options: dict[str, object]
) -> Figures:
    cpu = running.cpu()
    with WalWatch(database) as wal:
        writer = Writer("small", database, **options)
        result = writer.result()
    figures = {name: float(result[name]) for name in _SHOWN}
    figures["wal_mb"] = wal.peak_mib
    if replica.exists():
        finder = RowFinder(replica)
        seen = wait_for(lambda: finder.time_of(result["last"]), _CATCH_UP, 0.05)
        figures["catch_up_s"] = max(0.0, seen - result["ended"])
        figures["rss_mb"] = running.rss() or peak_rss(writer.pid)
    spent = result["cpu"] + running.cpu() - cpu
    figures["cpu_s_per_10k"] = 1e4 * spent / result["commits"]
    writer.end()
    return figures
