"""Restore, from one replica that both systems can read."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import databases
from benchmarks.context import Context, Figures
from benchmarks.measure import Run
from benchmarks.systems import SYSTEMS, System

_UNMERGED = [86_400]
"""Seconds between compactions: none may take the place of the many files."""


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """A snapshot alone, and one with many small files after it."""
    found: dict[str, Figures] = {}
    for case, replica in replicas(context):
        for verify in (False, True):
            with context.fresh() as folder:
                figures = _restore(system, context, replica, folder / "a.db", verify)
            if figures is not None:
                found[case + (", quick_check" if verify else "")] = figures
    return found


def _restore(
    system: System, context: Context, replica: Path, target: Path, verify: bool
) -> Figures | None:
    os.sync()
    if system.name == "none":
        return None if verify else {"wall_s": copy_durably(context.large, target)}
    run = system.restore(str(replica), target, verify)
    return None if run is None else restore_figures(system, run)


def restore_figures(system: System, run: Run) -> Figures:
    """Figures of a restore; of ours also those that the process printed."""
    figures = {"wall_s": run.wall, "cpu_s": run.cpu}
    if system.name == "ours":
        figures.update(json.loads(run.printed))
    return figures


def copy_durably(source: Path, target: Path) -> float:
    """Seconds to copy a database to disk: the floor."""
    begun = time.perf_counter()
    shutil.copyfile(source, target)
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return time.perf_counter() - begun


def replicas(context: Context) -> Iterator[tuple[str, Path]]:
    """The replicas, made once for all rounds."""
    one, many = context.folder / "one", context.folder / "many"
    if not many.exists():
        with context.fresh() as folder:
            database = folder / "a.db"
            databases.copy(context.large, database)
            making = folder / "replica"
            pairs = [(database, str(making))]
            with SYSTEMS["ours"].start(pairs, 1.0, _UNMERGED) as running:
                running.sync()
                shutil.copytree(making, one, dirs_exist_ok=True)
                running.sync_times(context.files)
            shutil.copytree(making, many)
    yield "snapshot alone", one
    yield f"snapshot and {context.files} level-0 files", many
