"""Workloads by name. Each measures one system once and returns its figures by case."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.context import Context, Figures
from benchmarks.systems import System
from benchmarks.workloads import (
    bulk,
    commits,
    compaction,
    delta,
    folders,
    follow,
    idle,
    lag,
    reading,
    remote,
    restores,
    resume,
    snapshot,
    verify,
    waiters,
)

Workload = Callable[[System, Context], Mapping[str, Figures]]
"""Measures a system once; figures by case. A case that does not apply is left out."""

GROUPS: Mapping[str, tuple[str, ...]] = {"readers": ("reading", "follow")}
"""Workloads that answer one question together."""

WORKLOADS: Mapping[str, Workload] = {
    "commits": commits.measure,
    "lag": lag.measure,
    "follow": follow.measure,
    "idle": idle.measure,
    "folders": folders.measure,
    "snapshot": snapshot.measure,
    "bulk": bulk.measure,
    "restore": restores.measure,
    "verify": verify.measure,
    "compaction": compaction.measure,
    "delta": delta.measure,
    "resume": resume.measure,
    "sync": idle.measure_sync,
    "remote": remote.measure,
    "reading": reading.measure,
    "waiters": waiters.measure,
}
