"""What the commands of the frameworks do: restore, tell what there is, verify."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlitereplica.restore import (
    RestorePoints,
    RestoreResult,
    restore,
    restore_points,
    verify,
)
from sqlitereplica.restore.report import Level, Scope
from sqlitereplica.sizes import size_text
from sqlitereplica.store import Replica

__all__ = ["Target", "restore_targets", "show_status", "verify_targets"]

Write = Callable[[str], object]
"""Prints one line."""


@dataclass(frozen=True, slots=True)
class Target:
    """A database by the name that its framework has for it, and its replicas."""

    name: str
    path: str
    replicas: Sequence[Replica]


def restore_targets(targets: Iterable[Target], write: Write, **options: Any) -> None:
    """Restore each; ``options`` and errors are those of ``restore``."""
    for target in targets:
        result = restore(list(target.replicas), target.path, **options)
        write(f"{target.name}: {_outcome(result)}")


def _outcome(result: RestoreResult) -> str:
    match result.reason:
        case "restored":
            time = f"{result.timestamp:%Y-%m-%d %H:%M:%S} UTC"
            return f"restored from {result.source}, as it was at {time}"
        case "exists":
            return f"{result.path} is there already"
        case "missing":
            return "there is no backup yet"
        case reason:
            return reason


def show_status(
    targets: Iterable[Target], write: Write, *, as_json: bool = False
) -> bool:
    """Tell what each replica can restore; True if each has something.

    Raises:
        StoreError: one of them cannot be asked.
    """
    found = {
        target.name: {
            replica.display_name: restore_points(replica, accurate=False)
            for replica in target.replicas
        }
        for target in targets
    }
    if as_json:
        write(json.dumps(found, default=_summary, indent=2))
    else:
        for name, replicas in found.items():
            for replica, points in replicas.items():
                write(f"{name}: {replica}: {_sentence(points)}")
    return all(
        points.latest for replicas in found.values() for points in replicas.values()
    )


def _summary(points: RestorePoints) -> dict[str, Any]:
    earliest, latest = points.earliest, points.latest
    return {
        "txid": latest.txid if latest else None,
        "earliest": earliest.time.isoformat() if earliest else None,
        "latest": latest.time.isoformat() if latest else None,
        "points": len(points),
        "gaps": [list(gap) for gap in points.gaps],
        "files": points.total_files,
        "bytes": points.total_bytes,
    }


def _sentence(points: RestorePoints) -> str:
    if points.earliest is None or points.latest is None:
        return "no backup"
    gaps = f", {len(points.gaps)} gaps" if points.gaps else ""
    return (
        f"transaction {points.latest.txid} of {points.latest.time:%Y-%m-%d %H:%M:%S} UTC,"
        f" {len(points)} restore points from {points.earliest.time:%Y-%m-%d %H:%M:%S} on"
        f"{gaps}, {size_text(points.total_bytes)} in {points.total_files} files"
    )


def verify_targets(
    targets: Iterable[Target],
    write: Write,
    *,
    level: Level,
    scope: Scope,
    as_json: bool = False,
) -> bool:
    """Verify each replica of each; True if nothing is wrong.

    Raises:
        StoreError: one of them cannot be asked.
    """
    reports = {
        target.name: [
            verify(replica, level=level, scope=scope) for replica in target.replicas
        ]
        for target in targets
    }
    if as_json:
        values = {n: [json.loads(r.to_json()) for r in rs] for n, rs in reports.items()}
        write(json.dumps(values, indent=2))
    else:
        for name, of_replicas in reports.items():
            for report in of_replicas:
                write(f"{name}: {report}")
    return all(report.ok for of_replicas in reports.values() for report in of_replicas)
