"""Proof that a replica can be restored.

Litestream offers one: to restore the newest state and let SQLite check it in full. Ours
does the same (``level="restore", scope="latest"``), and reads all of the history besides.
Without replication it is a copy of the database that is checked.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from benchmarks.context import Context, Figures
from benchmarks.systems import Ours, System
from benchmarks.workloads.restores import replicas, restore_figures


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """The newest state, and every file, of a snapshot alone and with files after it."""
    found: dict[str, Figures] = {}
    for case, replica in replicas(context):
        with context.fresh() as folder:
            os.sync()
            if system.name == "none":
                found[case] = {"wall_s": _copy_and_check(context.large, folder / "a")}
                continue
            run = system.prove(str(replica), folder)
            if run is not None:
                found[case] = restore_figures(system, run)
            if isinstance(system, Ours):
                run = system.prove(str(replica), folder, history=True)
                figures = restore_figures(system, run)
                size = context.large.stat().st_size / (1 << 20)
                figures = {**figures, "database_mib_per_s": size / figures["call_s"]}
                found[f"{case}, every file"] = figures
    return found


def _copy_and_check(source: Path, target: Path) -> float:
    """Seconds to copy a database and to check it: the floor."""
    begun = time.perf_counter()
    shutil.copyfile(source, target)
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    return time.perf_counter() - begun
