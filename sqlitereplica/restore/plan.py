"""Which files of a replica make a state: pure decisions on listings.

Theory. The state after transaction n is a full image (a file that begins with TXID 1)
overlaid by files that join: each begins no later than one past what is covered and ends
later. Files may overlap, within a level and across levels, for applying transactions
anew that are in the state already changes nothing but brings their latest pages. So a
plan is an interval cover, and taking the file that reaches furthest never misses an end
that another choice would reach.

``plan_restore`` chooses as Litestream does (litestream.md 5.1), with one difference: a
file of the snapshot level that is no full image is left out, where Litestream would
choose it and fail. Which states there are, and why one is not, says ``store/reach.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.store.chains import rank
from sqlitereplica.store.reach import (
    no_such_txid,
    reachable_txids,
    refuse_gap,
    to_datetime,
    too_early,
)

__all__ = [
    "continue_plan",
    "decisive",
    "extend",
    "plan_restore",
    "reachable_txids",
    "to_datetime",
]


def plan_restore(
    files: Sequence[FileInfo], *, txid: int | None = None, before: int | None = None
) -> tuple[FileInfo, ...]:
    """Choose the files to apply, in order, to get the latest state or an earlier one.

    Args:
        files: All files of the replica, in any order.
        txid: The transaction to end with, that one included.
        before: Use only files whose time, in milliseconds since the epoch, is less.

    Raises:
        NotRestorableError: ``kind`` is ``"empty"`` without files; ``"txid"`` if no file
            ends with that transaction, and ``"time"`` if there is no state that old,
            with the bounds of what there is; ``"gap"`` if the latest state was asked
            for and files that should lead to it are missing.
    """
    if txid is not None and before is not None:
        raise ValueError("a state is chosen by transaction or by time, not by both")
    if not files:
        raise NotRestorableError("there is no backup: no LTX files", kind="empty")
    eligible = [
        file
        for file in files
        if (txid is None or file.max_txid <= txid)
        and (before is None or file.timestamp < before)
    ]
    plan = _cover(eligible)
    end = plan[-1].max_txid if plan else 0
    if txid is not None and end != txid:
        raise no_such_txid(files, txid)
    if before is not None and not plan:
        raise too_early(files, before)
    if txid is None and before is None:
        refuse_gap(files, end)
    return tuple(plan)


def continue_plan(
    files: Iterable[FileInfo], current: int, end: int
) -> tuple[FileInfo, ...] | None:
    """Choose increments that lead from the state ``current`` to ``end``, or None.

    For a restore whose next file was compacted away meanwhile: what it has stays good.
    """
    joining = [file for file in files if file.min_txid > 1 and file.max_txid <= end]
    steps = extend(joining, current)
    reached = steps[-1].max_txid if steps else current
    return tuple(steps) if reached == end else None


def decisive(plan: Sequence[FileInfo]) -> Sequence[FileInfo]:
    """Leave out what the last full image of a plan replaces completely.

    A young replica has them: a snapshot of TXID 1, then a compacted file from TXID 1 on.
    """
    last = max(
        (index for index, file in enumerate(plan) if file.min_txid == 1), default=0
    )
    return plan[last:]


def _cover(files: Sequence[FileInfo]) -> list[FileInfo]:
    """Return the newest snapshot, if there is one, and what extends it furthest."""
    snapshots = (f for f in files if f.level == SNAPSHOT_LEVEL and f.min_txid == 1)
    base = max(snapshots, key=lambda file: file.max_txid, default=None)
    if base is None:
        return extend(files, 0)
    return [base, *extend(files, base.max_txid)]


def extend(files: Iterable[FileInfo], current: int) -> list[FileInfo]:
    """Return the increments that lead from ``current`` as far as possible.

    Of the files that join, the one with the greatest rank is next.
    """
    increments = sorted(
        (file for file in files if file.level < SNAPSHOT_LEVEL),
        key=lambda file: file.min_txid,
        reverse=True,
    )
    steps: list[FileInfo] = []
    best: FileInfo | None = None
    while True:
        while increments and increments[-1].min_txid <= current + 1:
            joining = increments.pop()
            if best is None or rank(joining) > rank(best):
                best = joining
        # The best one so far ends last: if it brings nothing new, none does.
        if best is None or best.max_txid <= current:
            return steps
        steps.append(best)
        current = best.max_txid
