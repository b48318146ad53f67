"""The first copy of a database that is there already."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import databases
from benchmarks.contents import first_restorable, size_mib, stored
from benchmarks.context import Context, Figures
from benchmarks.measure import wait_for
from benchmarks.systems import System

_TIMEOUT = 300.0


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """From the start of the process to the first file that can be restored."""
    case = f"{context.size:g} MiB"
    with context.fresh() as folder:
        database, replica = folder / "a.db", folder / "replica"
        databases.copy(context.large, database)
        if system.name == "none":
            return {case: {"restorable_s": _copy(database, replica)}}
        begun = time.time()
        with system.start([(database, str(replica))], 1.0) as running:
            found = wait_for(lambda: first_restorable(replica), _TIMEOUT)
            cpu = running.cpu()
            running.sync()
            rss = running.rss()
            return {
                case: {
                    "restorable_s": found.visible - begun,
                    "cpu_s": cpu,
                    "rss_mb": rss,
                    "stored_mb": size_mib(stored(replica)),
                }
            }


def _copy(database: Path, target: Path) -> float:
    """Seconds to copy the file durably: the floor."""
    begun = time.perf_counter()
    with database.open("rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        os.fsync(copy.fileno())
    return time.perf_counter() - begun
