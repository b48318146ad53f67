"""Litestream's choice of files, word by word from litestream.md 5.1.

As slow and as plain as the text: the model looks at every file at every step.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.plan import plan_restore

__all__ = [
    "RefusalError",
    "model_outcome",
    "model_plan",
    "outcome",
]


class RefusalError(Exception):
    """The model makes no plan; the argument says why."""


def model_plan(
    listing: Sequence[FileInfo], txid: int | None = None, before: int | None = None
) -> list[FileInfo]:
    """The plan as litestream.md 5.1 describes it, steps 1 to 4."""
    if not listing:
        raise RefusalError("empty")
    allowed = [
        file
        for file in listing
        if (txid is None or file.max_txid <= txid)
        and (before is None or file.timestamp < before)
    ]
    snapshots = [file for file in allowed if file.level == 9]
    snapshots.sort(key=lambda file: (file.min_txid, file.max_txid))
    plan = snapshots[-1:]
    current = plan[0].max_txid if plan else 0
    while current != txid:
        joining = [
            file
            for file in allowed
            if file.level < 9
            and file.min_txid <= current + 1
            and file.max_txid > current
        ]
        if not joining:
            break
        furthest = max(file.max_txid for file in joining)
        joining = [file for file in joining if file.max_txid == furthest]
        joining.sort(key=lambda file: (file.min_txid, -file.level, file.timestamp))
        plan.append(joining[0])
        current = furthest
    latest = txid is None and before is None
    if latest and any(f.level < 9 and f.min_txid > current + 1 for f in listing):
        raise RefusalError("gap")
    if txid is not None and current < txid:
        raise RefusalError("txid")
    if not plan:
        raise RefusalError("time")
    return plan


def outcome(
    listing: Sequence[FileInfo], txid: int | None = None, before: int | None = None
) -> list[tuple[int, int, int, int]] | str:
    """What ``plan_restore`` says: a plan, or the kind of its error."""
    try:
        return [_key(f) for f in plan_restore(listing, txid=txid, before=before)]
    except NotRestorableError as error:
        return error.kind


def model_outcome(
    listing: Sequence[FileInfo], txid: int | None = None, before: int | None = None
) -> list[tuple[int, int, int, int]] | str:
    """What the model says, in the same form."""
    try:
        return [_key(file) for file in model_plan(listing, txid, before)]
    except RefusalError as refusal:
        return str(refusal)


def _key(file: FileInfo) -> tuple[int, int, int, int]:
    """All that a plan can tell files apart by."""
    return file.level, file.min_txid, file.max_txid, file.timestamp
