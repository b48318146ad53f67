"""Nothing to do: CPU, memory and requests; and ``sync()`` of one small commit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping

from benchmarks import databases
from benchmarks.context import Context, Figures
from benchmarks.measure import peak_rss, percentile
from benchmarks.systems import System

_COMMITS = 50


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """One database, and many in one process."""
    if system.name == "none":
        return {"1 databases": {"rss_mb": _bare_interpreter()}}
    return {
        f"{count} databases": _measure(system, context, count)
        for count in (1, context.many)
    }


def _measure(system: System, context: Context, count: int) -> Figures:
    with context.fresh() as folder:
        pairs = []
        for i in range(count):
            database = folder / f"{i}.db"
            databases.make_empty(database)
            pairs.append((database, str(folder / f"replica{i}")))
        # The first files of all would be compacted in the window, or just not.
        with system.start(pairs, 1.0, levels=[3600]) as running:
            running.sync()
            time.sleep(context.settle)
            begun, cpu, requests = time.monotonic(), running.cpu(), running.requests()
            time.sleep(2 * context.seconds)
            spent, cpu = time.monotonic() - begun, running.cpu() - cpu
            figures = {"cpu_percent": 100 * cpu / spent, "rss_mb": running.rss()}
            after = running.requests()
            if requests is not None and after is not None:
                done = sum(after.values()) - sum(requests.values())
                figures["requests_per_minute"] = 60 * done / spent
        return figures


def _bare_interpreter() -> float:
    """MiB of a Python that has imported nothing: what a library does not add."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = peak_rss(process.pid)
        process.communicate(b"\n")
    return found


def measure_sync(system: System, context: Context) -> Mapping[str, Figures]:
    """A small commit and the wait for it: ``sync()``, or ``litestream sync -wait``."""
    if system.name == "none":
        return {}
    with context.fresh() as folder:
        database = folder / "a.db"
        databases.make_empty(database)
        with system.start([(database, str(folder / "replica"))], 1.0) as running:
            running.sync()
            took = running.sync_times(_COMMITS)
    p50, p99 = percentile(took, 0.5) * 1e3, percentile(took, 0.99) * 1e3
    return {"one small commit": {"p50_ms": p50, "p99_ms": p99}}
