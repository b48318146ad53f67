"""A folder of very many databases to which nobody writes, in one process.

What the process costs once all of them are replicated: CPU, memory, descriptors, threads. And
how long it takes until a commit to one of them is in its replica, without a call, and with one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from benchmarks import databases
from benchmarks.context import Context, Figures
from benchmarks.measure import resident, wait_for
from benchmarks.systems import Running, System

_LOAD, _LAG = 3600.0, 120.0
_SAMPLES = 3


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """``context.many`` databases; empty ones, so that the copying is not what is measured."""
    if system.name == "none":
        return {}
    count = context.many
    with context.fresh() as folder:
        source, replica = folder / "databases", folder / "replica"
        _make(source, count)
        begun = time.monotonic()
        with system.start_folder(source, replica, count) as running:
            wait_for(lambda: _is_loaded(running, replica, count), _LOAD, pause=1.0)
            figures = {"load_s": time.monotonic() - begun, "load_cpu_s": running.cpu()}
            time.sleep(context.settle)
            figures |= _idle(running, context)
            figures |= _lags(running, source, replica, min(count, _SAMPLES))
    return {f"{count} databases": figures}


def _make(folder: Path, count: int) -> None:
    folder.mkdir()
    first = folder / "0.db"
    databases.make_empty(first)
    for number in range(1, count):
        shutil.copyfile(first, folder / f"{number}.db")


def _is_loaded(running: Running, replica: Path, count: int) -> bool | None:
    """True once every database has a file in its replica; raises if it never will."""
    if running.pid is not None and not os.path.exists(f"/proc/{running.pid}/fd"):
        raise RuntimeError("it ended")
    found = sum(1 for n in range(count) if _files_of(replica, n))
    return True if found == count else None


def _files_of(replica: Path, number: int) -> int:
    try:
        return len(os.listdir(replica / f"{number}.db" / "ltx" / "0"))
    except FileNotFoundError:
        return 0


def _idle(running: Running, context: Context) -> dict[str, float]:
    pid = running.pid
    assert pid is not None
    running.settle_folder()
    begun, cpu = time.monotonic(), running.cpu()
    time.sleep(max(1.0, 6 * context.seconds))
    spent, cpu = time.monotonic() - begun, running.cpu() - cpu
    return {
        "cpu_percent": 100 * cpu / spent,
        "rss_mb": resident(pid),
        "peak_rss_mb": running.rss(),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
    }


def _lags(
    running: Running, source: Path, replica: Path, samples: int
) -> dict[str, float]:
    """Seconds from a commit to its file in the replica: by itself, and by ``sync``."""
    noticed, asked = [], []
    for number in range(samples):
        before = _files_of(replica, number)
        begun = _commit(source / f"{number}.db")
        wait_for(
            lambda n=number, b=before: _files_of(replica, n) > b or None,  # type: ignore[misc]
            _LAG,
        )
        noticed.append(time.monotonic() - begun)
        begun = _commit(source / f"{number}.db")
        running.sync_one(source / f"{number}.db")
        asked.append(time.monotonic() - begun)
    middle = samples // 2
    return {"lag_s": sorted(noticed)[middle], "sync_s": sorted(asked)[middle]}


def _commit(path: Path) -> float:
    with closing(databases.connect(path)) as connection:
        databases.append_row(connection)
    return time.monotonic()
