"""Starting again after the database was changed while nobody watched."""

from __future__ import annotations

import time
from collections.abc import Mapping

from benchmarks import databases
from benchmarks.contents import RowFinder, size_mib, stored
from benchmarks.context import Context, Figures
from benchmarks.measure import wait_for
from benchmarks.systems import System

SHARE = 0.01
_TIMEOUT = 300.0


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """From the start of the process until the replica has what changed."""
    if system.name == "none":
        return {}
    with context.fresh() as folder:
        database, replica = folder / "a.db", folder / "replica"
        databases.copy(context.large, database)
        pairs = [(database, str(replica))]
        with system.start(pairs, 1.0) as running:
            running.sync()
        row = databases.change(database, SHARE)
        before = size_mib(stored(replica))
        begun = time.time()
        with system.start(pairs, 1.0) as running:
            finder = RowFinder(replica)
            seen = wait_for(lambda: finder.time_of(row), _TIMEOUT)
            figures = {
                "resumed_s": seen - begun,
                "cpu_s": running.cpu(),
                "uploaded_mb": size_mib(stored(replica)) - before,
            }
    return {f"{context.size:g} MiB, {SHARE:.0%} of the pages": figures}
