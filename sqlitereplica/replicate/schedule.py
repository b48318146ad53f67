"""With what levels are compacted, when a snapshot is due: pure decisions.

Theory. Level n is made of files of level n - 1, each time from where it ends, at multiples
of its interval since the epoch, as Litestream does: so levels, and several databases, meet
at the same boundaries, and an hour's file ends where the hour does. (Litestream counts from
the year 1, which is the same if a day is a multiple of the interval.) When a level is due
``compaction.py`` tells, which keeps when it ran; here is with what.

A *run* is what one compaction merges. It may begin only where the level ends: its first
file begins there, or before and reaches over it (overlaps are merged, later pages win).
Each further file continues the one before. A run never crosses a gap, for it would pretend
to have what was lost. It ends before one; and the next begins behind it only if its first
file is one that a restore could use, because a snapshot holds all that came before. If none
does, the gap is the answer, so that somebody heals it. Files that begin behind a gap stay
where they are meanwhile, and retention deletes nothing.

A backlog is worked off in runs of bounded size. They end where input files end, so each
leaves the level in a state from which the next goes on, after a crash as well.

Nothing is due for an idle database: all files of a level end where the next one does, and
its newest state is in a snapshot.

A snapshot is due by time, at multiples of an interval, if there are changes from before
the multiple that the newest full image lacks. It is not the image's own time that counts:
that is the time of its state, which may be old when the image is made. Or it is due by
amplification: if a restore would read several times what an image takes. As the image
grows with each such snapshot, they add a bounded part to what is uploaded. Level-0 files
of the last minute do not count, as compaction is about to merge them: without that a small
database that is busy would be snapshotted every few seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Literal

from sqlitereplica.durations import Duration, parse_duration
from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.restore.plan import decisive, extend, plan_restore
from sqlitereplica.store.chains import Chains

__all__ = [
    "DEFAULT_LEVELS",
    "Gap",
    "Run",
    "SnapshotReason",
    "compaction_inputs",
    "parse_levels",
    "snapshot_due",
    "snapshot_source",
]

DEFAULT_LEVELS = (30_000, 300_000, 3_600_000)
"""Intervals of levels 1, 2 and 3, in milliseconds."""

SnapshotReason = Literal["interval", "amplification", "gap"]

_MAX_FILES, _MAX_BYTES = 4096, 1 << 30
_DAY = 86_400_000
_SETTLE = 60_000  # milliseconds that level-0 files are given to be merged
_REMOTE, _HOLDING = 8, 2


@dataclass(frozen=True, slots=True)
class Gap:
    """TXIDs that no file of a level has, from ``first`` to ``last``."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Run:
    """What one compaction merges, in this order; without files there is nothing to do.

    ``gap`` is what is missing before the first file; without files it has to be healed
    first, with files a snapshot bridges it. ``more`` is True if the bounds cut the run
    short: the next can begin at once.
    """

    files: tuple[FileInfo, ...] = ()
    gap: Gap | None = None
    more: bool = False


def parse_levels(levels: Iterable[Duration]) -> tuple[int, ...]:
    """Return the intervals of levels 1, 2, ... in milliseconds.

    Raises:
        ValueError: There are more than eight, or they do not rise.
        TypeError: One is no duration.
    """
    parsed = tuple(
        parse_duration(level, f"levels[{index}]") // timedelta(milliseconds=1)
        for index, level in enumerate(levels)
    )
    if len(parsed) >= SNAPSHOT_LEVEL:
        raise ValueError(f"{len(parsed)} levels: there can be {SNAPSHOT_LEVEL - 1}")
    if any(interval < 1 for interval in parsed):
        raise ValueError("the interval of a level is a millisecond at least")
    if any(shorter >= longer for shorter, longer in pairwise(parsed)):
        raise ValueError(
            "each level is compacted less often than the one below: give rising"
            " intervals, such as ('30s', '5m', '1h')"
        )
    return parsed


def compaction_inputs(
    files: Sequence[FileInfo],
    level: int,
    *,
    max_files: int = _MAX_FILES,
    max_bytes: int = _MAX_BYTES,
) -> Run:
    """Choose what to merge into the next file of a level.

    The file has the TXIDs from the first to the last of the run. One input is taken even
    if it is larger than ``max_bytes``.

    Args:
        files: All files of the replica, in any order.
        level: The level to write, from 1 on.
        max_files: How many files are merged at most.
        max_bytes: How many bytes they have at most.
    """
    end = max((file.max_txid for file in files if file.level == level), default=0)
    inputs = [f for f in files if f.level == level - 1 and f.max_txid > end]
    steps, gap = extend(inputs, end), None
    if inputs and not steps:
        begin, gap = _behind_gap(Chains(files), inputs, end)
        steps = [] if begin is None else extend(inputs, begin - 1)
    count = size = 0
    for file in steps[:max_files]:
        size += file.size
        if count and size > max_bytes:
            break
        count += 1
    return Run(tuple(steps[:count]), gap, count < len(steps))


def _behind_gap(
    chains: Chains, inputs: Sequence[FileInfo], end: int
) -> tuple[int | None, Gap | None]:
    """Return where a run can begin although no input continues the level, and the gap.

    That is at the first input that a restore could use. If there is none, but a snapshot
    has all that the inputs have, then nothing is to be done: the level goes on behind it.
    """
    unreachable = set(chains.unreachable())
    usable = (file.min_txid for file in inputs if file not in unreachable)
    begin = min(usable, default=None)
    if begin is not None:
        return begin, Gap(end + 1, begin - 1) if end else None
    reached = chains.txids[-1] if chains.txids else 0
    if max(file.max_txid for file in inputs) <= reached:
        return None, None
    return None, Gap(end + 1, min(file.min_txid for file in inputs) - 1)


def snapshot_due(
    files: Sequence[FileInfo],
    now: int,
    *,
    interval: int | None = _DAY,
    amplification: float = 2.0,
    floor: int = 1 << 20,
    settle: int = _SETTLE,
) -> SnapshotReason | None:
    """Say why a snapshot of the newest state is due, if it is.

    Args:
        files: All files of the replica.
        now: Milliseconds since the epoch.
        interval: Milliseconds between snapshots; None for none by time.
        amplification: How many times the bytes of the newest full image a restore of the
            newest state may read.
        floor: An image counts as that many bytes at least.
        settle: Milliseconds during which a level-0 file does not count as read.

    Returns:
        ``"interval"`` or ``"amplification"``; ``"gap"`` if the newest state cannot be
        restored: a snapshot bridges the gap, if nothing heals it. None if none is due.

    Raises:
        ValueError: ``interval`` is not positive, or ``amplification`` not above 1.
    """
    if interval is not None and interval < 1:
        raise ValueError("the interval of snapshots is positive, or None for none")
    if not amplification > 1:
        raise ValueError("an amplification up to 1 would ask for snapshots without end")
    if not files:
        return None
    try:
        image, *increments = decisive(plan_restore(files))
    except NotRestorableError:
        return "gap"
    if not increments:
        return None
    if interval is not None:
        lacking = (f.timestamp for f in files if f.max_txid > image.max_txid)
        if min(lacking) < now - now % interval:
            return "interval"
    read = image.size + sum(
        file.size for file in increments if file.level or file.timestamp <= now - settle
    )
    return "amplification" if read > amplification * max(image.size, floor) else None


def snapshot_source(
    *, plan_bytes: int, local_bytes: int, database_bytes: int, is_local: bool
) -> Literal["merge", "read"]:
    """Say what a snapshot is cheaper made of: the replica's files or the database.

    The unit is a byte read from a local disk. One from a store elsewhere counts eight
    times, in time and in money. One of the database counts twice, since the WAL is held
    while it is read.

    Args:
        plan_bytes: What a restore of the newest state reads; 0 if there is no plan.
        local_bytes: How many of these are in local files.
        database_bytes: The size of the database.
        is_local: Whether the replica is on a local disk.
    """
    away = 0 if is_local else max(0, plan_bytes - local_bytes)
    merge = plan_bytes - away + _REMOTE * away
    return "merge" if plan_bytes > 0 and merge <= _HOLDING * database_bytes else "read"
