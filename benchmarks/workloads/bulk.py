"""A bulk load: large transactions, and how long the replica then needs."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import databases
from benchmarks.contents import RowFinder, size_mib, stored
from benchmarks.context import Context, Figures, Writer
from benchmarks.measure import WalWatch, wait_for
from benchmarks.systems import System

_TIMEOUT = 300.0


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """Load ``size`` MiB into an empty database."""
    with context.fresh() as folder:
        database, replica = folder / "a.db", folder / "replica"
        databases.make_empty(database)
        with system.start([(database, str(replica))], 1.0) as running:
            running.sync()
            cpu = running.cpu()
            with WalWatch(database) as wal:
                writer = Writer("bulk", database, size=context.size)
                result = writer.result()
            figures = {
                "load_s": float(result["wall"]),
                "worst_ms": float(result["worst_ms"]),
                "wal_mb": wal.peak_mib,
            }
            if system.name != "none":
                finder = RowFinder(replica)
                seen = wait_for(lambda: finder.time_of(result["last"]), _TIMEOUT, 0.05)
                figures["catch_up_s"] = max(0.0, seen - result["ended"])
                figures["cpu_s"] = running.cpu() - cpu
                figures["rss_mb"] = running.rss()
                figures["stored_mb"] = size_mib(stored(replica))
            writer.end()
    return {f"{context.size:g} MiB": figures}
