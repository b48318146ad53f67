"""An object store: how many requests, and restores when each takes 20 ms longer."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from benchmarks import databases
from benchmarks.context import Context, Figures, Writer
from benchmarks.systems import SYSTEMS, System
from benchmarks.workloads.restores import replicas, restore_figures

_RATE = 50
_DELAY = 0.02


def measure(system: System, context: Context) -> Mapping[str, Figures]:
    """Requests of one database, active and idle; a tiny restore and a large one."""
    if system.name == "none":
        return {}
    found = _requests(system, context)
    for case, path in _restorable(context).items():
        with context.fresh() as folder, context.remote.delayed(_DELAY):
            before = context.remote.requests
            os.sync()
            run = system.restore(context.remote.url(path), folder / "a.db", False)
            assert run is not None
            asked = context.remote.requests - before
            found[f"restore, {case}, +{_DELAY * 1e3:g} ms"] = {
                **restore_figures(system, run),
                "requests": asked,
            }
    return found


def _requests(system: System, context: Context) -> dict[str, Figures]:
    """Per minute, committing at a pace and then not at all."""
    remote, seconds = context.remote, 6 * context.seconds
    with context.fresh() as folder:
        database = folder / "a.db"
        databases.make_empty(database)
        url = remote.url(f"requests-{time.time_ns()}")
        with system.start([(database, url)], 1.0) as running:
            running.sync()
            time.sleep(context.settle)
            before, begun, cpu = remote.requests, time.monotonic(), running.cpu()
            writer = Writer("small", database, seconds=seconds, rate=_RATE)
            writer.result()
            minutes = (time.monotonic() - begun) / 60
            active = {"requests_per_minute": (remote.requests - before) / minutes}
            active["cpu_s_per_minute"] = (running.cpu() - cpu) / minutes
            time.sleep(context.settle)
            before, cpu = remote.requests, running.cpu()
            time.sleep(seconds)
            idle = {"requests_per_minute": (remote.requests - before) * 60 / seconds}
            idle["cpu_s_per_minute"] = (running.cpu() - cpu) * 60 / seconds
            writer.end()
    return {f"{_RATE} tx/s, sync interval 1 s": active, "idle": idle}


def _restorable(context: Context) -> Mapping[str, str]:
    """Replicas in the store by case, made once for all rounds."""
    paths = context.uploaded
    if not paths:
        *_, (case, large) = replicas(context)
        context.remote.upload(large, "large")
        with context.fresh() as folder:
            database = folder / "a.db"
            databases.make_empty(database)
            url = context.remote.url("tiny")
            with SYSTEMS["ours"].start([(database, url)], 1.0) as running:
                running.sync()
        paths["tiny database"] = "tiny"
        paths[case] = "large"
    return paths
