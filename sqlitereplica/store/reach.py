"""Which states the files of a replica make, and what each costs: pure, on a listing.

Theory. The state after transaction n is a full image (a file that begins with TXID 1)
overlaid by files that join: each begins no later than one past what is covered and ends
later. A state that some chain ends with is *reached*. ``restore/plan.py`` chooses the
chain, as Litestream does: from the newest snapshot on always the file that reaches
furthest and yet not past n.

All plans at once, and so what each costs, come from ``chains.py``.

The *time* of a state is what a restore "at" a time goes by: files before that time are
used, all others not. As more files are allowed, the state that they lead to only grows.
So each state has one first time, and it never falls from a state to the next: where
clocks were set back it is the highest of the times on the way. At any later time a restore
gives this state or a newer one, at this time or an earlier one it gives an older one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

from sqlitereplica.errors import NearestPoint, NotRestorableError
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.store.chains import Chains, Point, is_usable

__all__ = [
    "Gap",
    "Reached",
    "find_gaps",
    "no_such_txid",
    "reach",
    "reachable_txids",
    "refuse_gap",
    "to_datetime",
    "too_early",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999  # years 1 and 9999


class Reached(NamedTuple):
    """A state that can be restored."""

    txid: int
    time: int
    """Milliseconds since the epoch; files before a later time lead to it, or further."""
    last: FileInfo
    """The file that its plan ends with."""
    size: int
    """Bytes to fetch."""
    files: int
    """Files to fetch."""


class Gap(NamedTuple):
    """Transactions that cannot be restored because files are missing."""

    min_txid: int
    max_txid: int

    def __str__(self) -> str:
        if self.min_txid == self.max_txid:
            return f"transaction {self.min_txid}"
        return f"transactions {self.min_txid} to {self.max_txid}"


def reach(files: Iterable[FileInfo]) -> list[Reached]:
    """List, ascending, every state that can be restored.

    Args:
        files: All files of the replica, in any order.
    """
    points = Chains(files).points
    sizes: list[int] = []
    counts: list[int] = []
    for point in points:
        # Under a full image there may be a base, but none of it is fetched.
        base = point.base if point.file.min_txid > 1 else -1
        sizes.append(point.file.size + (sizes[base] if base >= 0 else 0))
        counts.append(1 + (counts[base] if base >= 0 else 0))
    return [
        Reached(point.txid, time, point.file, size, count)
        for point, time, size, count in zip(
            points, _first_times(points), sizes, counts, strict=True
        )
    ]


def reachable_txids(files: Iterable[FileInfo]) -> list[int]:
    """List, ascending, every transaction that a restore can end with."""
    return Chains(files).txids


def find_gaps(files: Iterable[FileInfo], txids: Sequence[int]) -> list[Gap]:
    """List the ranges in which files are left that lead to no state.

    A transaction that was merged with its neighbours is in no gap, even if some of the
    files that were merged are left (Litestream deletes them one by one), nor one whose
    files were all dropped when a later snapshot had replaced them: history is coarser
    there. But where a file is left that nothing leads to, and none leads over, those
    before it are missing. What is left before the first state of all belongs to a history
    that was dropped.

    Args:
        files: All files of the replica, in any order.
        txids: What ``reachable_txids`` says of them.
    """
    usable = [file for file in files if is_usable(file)]
    found: dict[int, Gap] = {}
    for end in sorted({file.max_txid for file in usable}):
        index = bisect_left(txids, end)
        if index < len(txids) and (index == 0 or txids[index] == end):
            continue
        start = txids[index - 1] + 1 if index else 1
        found[start] = Gap(start, txids[index] - 1 if index < len(txids) else end)
    return _not_led_over(found.values(), usable)


def _not_led_over(gaps: Iterable[Gap], files: Iterable[FileInfo]) -> list[Gap]:
    """Leave out, of ascending gaps, those that an increment from before ends behind."""
    increments = sorted(
        (file.min_txid, file.max_txid) for file in files if file.level < SNAPSHOT_LEVEL
    )
    left = []
    at = furthest = 0
    for gap in gaps:
        while at < len(increments) and increments[at][0] <= gap.min_txid:
            furthest = max(furthest, increments[at][1])
            at += 1
        if furthest <= gap.max_txid:
            left.append(gap)
    return left


def to_datetime(timestamp: int) -> datetime:
    """Return milliseconds since the epoch as an aware datetime in UTC.

    Years that a datetime cannot have become the nearest that it can: the numbers come
    from listings.
    """
    return _EPOCH + timedelta(milliseconds=max(_FIRST, min(timestamp, _LAST)))


# -- why a state is not reached ----------------------------------------------------------


def refuse_gap(files: Iterable[FileInfo], end: int) -> None:
    """Raise NotRestorableError if increments begin beyond what can be reached."""
    beyond = [
        file.min_txid
        for file in files
        if file.level < SNAPSHOT_LEVEL and file.min_txid > end + 1
    ]
    if beyond:
        found = min(beyond)
        raise NotRestorableError(
            f"files are missing: transactions {end + 1} to {found - 1} are in none, but"
            f" later ones begin at {found}."
            + (f" The latest state without a gap is txid={end}." if end else ""),
            kind="gap",
            latest=end or None,
            before=_nearest(reach(files)[-1]) if end else None,
        )
    if not end:
        raise NotRestorableError("no file holds a whole database", kind="gap")


def no_such_txid(files: Iterable[FileInfo], txid: int) -> NotRestorableError:
    """Return the error for a transaction that no chain of files ends with."""
    reached = reach(files)
    index = bisect_right(reached, txid, key=lambda state: state.txid)
    if reached and index == len(reached):
        why = f"the newest is {reached[-1].txid}."
    else:
        why = "no file ends with it, as its files are missing or were compacted."
    return NotRestorableError(
        f"transaction {txid} cannot be restored: {why}"
        + ("" if reached else " Nor can any other."),
        kind="txid",
        earliest=reached[0].txid if reached else None,
        latest=reached[-1].txid if reached else None,
        before=_nearest(reached[index - 1]) if index else None,
        after=_nearest(reached[index]) if index < len(reached) else None,
    )


def too_early(files: Iterable[FileInfo], before: int) -> NotRestorableError:
    """Return the error for a time before the first state.

    A state can be had at any time after its own, which has milliseconds: the bounds are
    one past it, so that each can be asked for.
    """
    reached = reach(files)
    asked = f"there is no state as old as {to_datetime(before).isoformat()}."
    if not reached:
        return NotRestorableError(
            f"{asked} No file holds a whole database.", kind="time"
        )
    earliest, latest = (to_datetime(reached[i].time + 1) for i in (0, -1))
    return NotRestorableError(
        f"{asked} The earliest can be had at {earliest.isoformat()}, the latest at"
        f" {latest.isoformat()}.",
        kind="time",
        earliest=earliest,
        latest=latest,
        after=_nearest(reached[0]),
    )


def _nearest(state: Reached) -> NearestPoint:
    return NearestPoint(state.txid, to_datetime(state.time))


# -- when a state came within reach -----------------------------------------------------


def _first_times(points: Sequence[Point]) -> list[int]:
    """Return for each point when it, or one after it, could first be restored."""
    earliest = (point.earliest for point in reversed(points))
    return list(accumulate(earliest, min))[::-1]
