"""Bringing databases back: the latest state of a replica or an earlier one."""

from __future__ import annotations

from sqlitereplica.restore.assemble import Checksums, read_checksums
from sqlitereplica.restore.at import parse_at
from sqlitereplica.restore.plan import decisive, plan_restore, reachable_txids
from sqlitereplica.restore.points import RestorePoint, RestorePoints, restore_points
from sqlitereplica.restore.preview import RestorePreview, preview_restore
from sqlitereplica.restore.report import Finding, VerifyReport, findings
from sqlitereplica.restore.restore import RestoreResult, restore
from sqlitereplica.restore.verify import verify

__all__ = [
    "Checksums",
    "Finding",
    "RestorePoint",
    "RestorePoints",
    "RestorePreview",
    "RestoreResult",
    "VerifyReport",
    "decisive",
    "findings",
    "parse_at",
    "plan_restore",
    "preview_restore",
    "reachable_txids",
    "read_checksums",
    "restore",
    "restore_points",
    "verify",
]
