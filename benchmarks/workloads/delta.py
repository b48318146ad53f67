"""Restore where an older copy of the database is already.

Ours replaces it and takes from it what it can (``if_exists="replace"``): pages that a
comparison of checksums shows unchanged, or, if the copy was restored from the same replica,
all but what came since. Litestream does not restore over a database, so its full restore
is what stands beside both. Without replication it is a copy of the database.

The replica is a folder: what is saved of a download shows in ``fetched_mb`` only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import databases
from benchmarks.context import Context, Figures
from benchmarks.systems import Ours, System
from benchmarks.workloads.restores import copy_durably, restore_figures

_SHARE = 0.01


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """A full restore, one over a plain copy, and one over a restored copy."""
    replica, restored = _prepared(context)
    what = f"{context.size:g} MiB, {_SHARE:.0%} of the pages"
    full, plain, again = (
        f"full, {what}",
        f"over a copy, {what}",
        f"over a restored copy, {what}",
    )
    if system.name != "ours":
        figures = _restore(system, context, replica, None)
        return dict.fromkeys((full, plain, again), figures)
    return {
        full: _restore(system, context, replica, None),
        plain: _restore(system, context, replica, restored, shutil.copyfile),
        # With the note of the restore that made it:
        again: _restore(system, context, replica, restored, shutil.copy2),
    }


def _restore(
    system: System,
    context: Context,
    replica: Path,
    old: Path | None,
    copy: Callable[[Path, Path], object] = shutil.copyfile,
) -> Figures:
    with context.fresh() as folder:
        target = folder / "a.db"
        if old is not None:
            copy(old, target)
        os.sync()
        if system.name == "none":
            return {"wall_s": copy_durably(context.large, target)}
        run = system.restore(str(replica), target, False, replace=old is not None)
        assert run is not None
        return restore_figures(system, run)


def _prepared(context: Context) -> tuple[Path, Path]:
    """A replica, and the state before its last one restored; made once for all rounds."""
    replica, restored = context.folder / "delta", context.folder / "restored.db"
    if not restored.exists():
        with context.fresh() as folder:
            database, ours = folder / "a.db", Ours()
            databases.copy(context.large, database)
            with ours.start([(database, str(replica))], 1.0) as running:
                running.sync()
                # The first image has no page checksums beside it, a snapshot has.
                databases.change(database, _SHARE, seed=1)
                running.snapshot()
                ours.restore(str(replica), restored, False)
                databases.change(database, _SHARE)
                running.sync()
    return replica, restored
