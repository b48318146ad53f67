"""Which files of Litestream 0.3 make a state: pure decisions on listings.

Theory. A generation is an unbroken history. Its WAL from one reset to the next has an
index; the database file when that WAL begins, overlaid by all of the WAL, is the database
file when the next one begins. A snapshot of index n is that file, read at some time while
WAL n grew, so WAL n is applied to it from the beginning, then n+1 and so on. The segments
of a WAL follow each other by byte offset, and each names its own; where it ends is only
known when it is read, so that gaps within a WAL are found then. Here it is seen whether
indexes follow each other and whether each begins at offset 0.

Times are those of the files. What is in a segment was committed before, so the state
"before a time" is that of the segments of which this is certain, up to the first of which
it is not: never one of a later time.

Which snapshot: the newest before the time, of whatever generation, as Litestream 0.5
does (litestream.md 5.5). Between generations there is no other order than time; within
one, an older snapshot would lead to the same state, only slower. There is one difference.
The first snapshot of a generation is stored before any of its WAL, and may have pages of
that already. So it counts only once the beginning of that WAL is there, too.

What no listing and no file tells: that the last segments of a WAL are missing although the
next WAL is there. SQLite's check of the result finds most of such.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.store import GenerationFile
from sqlitereplica.store.reach import to_datetime

__all__ = ["GenerationPlan", "bounds", "gap_at", "plan_generation", "too_early"]


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """A snapshot and the segments to apply, in order.

    ``beyond`` are the later segments of the snapshot's own WAL, if the time asked for
    cuts through that: as the snapshot was read while that WAL grew, it may have pages that
    came only later. They tell. ``overlooked`` is the newest segment of another generation
    if it is newer than the state, though there is no snapshot for it.
    """

    snapshot: GenerationFile
    segments: tuple[GenerationFile, ...]
    beyond: tuple[GenerationFile, ...] = ()
    overlooked: GenerationFile | None = None

    @property
    def files(self) -> tuple[GenerationFile, ...]:
        """All files to fetch, in the order in which they are needed."""
        return (self.snapshot, *self.segments, *self.beyond)

    @property
    def timestamp(self) -> int:
        """When the state was stored, in milliseconds, as the store tells."""
        return max(file.timestamp for file in (self.snapshot, *self.segments))

    @property
    def committed_by(self) -> int:
        """The state had been committed by then."""
        return max(file.committed_by for file in (self.snapshot, *self.segments))


def plan_generation(
    files: Sequence[GenerationFile],
    *,
    before: int | None = None,
    without: Container[GenerationFile] = (),
) -> GenerationPlan:
    """Choose the files for the latest state or an earlier one.

    Args:
        files: All files of all generations, in any order.
        before: Use only files that were there before this time, in milliseconds since
            the epoch.
        without: Snapshots not to use.

    Raises:
        NotRestorableError: ``kind`` is ``"empty"`` without files; ``"time"`` if there is
            no state that old, or the store tells no times; ``"gap"`` if there is no
            snapshot, or segments that should lead to the state are missing.
    """
    if not files:
        raise NotRestorableError("there is no backup", kind="empty")
    snapshots = [f for f in files if f.offset is None and f not in without]
    if not snapshots:
        raise NotRestorableError(
            "there are WAL segments of Litestream 0.3, but no snapshot", kind="gap"
        )
    if before is not None:
        _refuse_without_times(files)
        whole_by = _whole_by(files)
        snapshots = [f for f in snapshots if whole_by[f] < before]
        if not snapshots:
            raise too_early(before, *bounds(files))
    snapshot = max(snapshots, key=_newness)
    chain = sorted(
        (
            f
            for f in files
            if f.generation == snapshot.generation and f.index >= snapshot.index
            if f.offset is not None
        ),
        key=lambda f: (f.index, f.offset),
    )
    end = _first_after(chain, before)
    segments = tuple(chain[:end])
    _refuse_gaps(snapshot, segments)
    beyond = [f for f in chain[end:] if f.index == snapshot.index]
    plan = GenerationPlan(snapshot, segments, tuple(beyond))
    return replace(plan, overlooked=_overlooked(plan, files, before))


def gap_at(
    snapshot: GenerationFile, done: Sequence[GenerationFile], found: GenerationFile
) -> NotRestorableError:
    """Return the error for a segment that does not begin where the last one ended.

    ``done`` are the segments that were applied to the snapshot before.
    """
    used = (snapshot, *done)
    bounds = list(accumulate((file.committed_by for file in used), max))
    if done or found.index == snapshot.index:
        bounds = bounds[1:]  # a snapshot alone does not count without its own WAL
    latest = [bound for bound in bounds if bound < found.committed_by][-1:]
    time = to_datetime(latest[0] + 1) if latest else None
    hint = (
        f" The latest state without a gap is at={time.isoformat()!r}." if time else ""
    )
    return NotRestorableError(
        f"files are missing between {used[-1].name} and {found.name}.{hint}",
        kind="gap",
        latest=time,
    )


def _newness(snapshot: GenerationFile) -> tuple[int, int, str]:
    return snapshot.timestamp, snapshot.index, snapshot.generation


def _overlooked(
    plan: GenerationPlan, files: Sequence[GenerationFile], before: int | None
) -> GenerationFile | None:
    """Return the newest segment of all, unless it is as old as the plan."""
    newer = [
        file
        for file in files
        if file.generation != plan.snapshot.generation
        and file.offset is not None
        and file.timestamp > plan.timestamp
        and (before is None or file.committed_by < before)
    ]
    return max(newer, key=lambda file: file.timestamp, default=None)


def _whole_by(files: Sequence[GenerationFile]) -> dict[GenerationFile, int]:
    """Return by when each snapshot and the beginning of its WAL were there."""
    begun: dict[tuple[str, int], GenerationFile] = {}
    for file in files:
        if file.offset is not None:
            wal = (file.generation, file.index)
            begun[wal] = min(begun.get(wal, file), file, key=lambda f: f.offset or 0)
    snapshots = (file for file in files if file.offset is None)
    return {
        file: max(
            file.committed_by,
            begun.get((file.generation, file.index), file).committed_by,
        )
        for file in snapshots
    }


def _first_after(chain: Sequence[GenerationFile], before: int | None) -> int:
    """Return how many segments were there before a time, and all segments before them."""
    if before is None:
        return len(chain)
    late = (n for n, segment in enumerate(chain) if segment.committed_by >= before)
    return next(late, len(chain))


def _refuse_gaps(snapshot: GenerationFile, segments: Sequence[GenerationFile]) -> None:
    """Raise NotRestorableError where a WAL, or its beginning, is missing."""
    index = snapshot.index - 1
    for number, segment in enumerate(segments):
        if segment.index != index:
            index += 1
            if segment.index != index or segment.offset != 0:
                raise gap_at(snapshot, segments[:number], segment)


def _refuse_without_times(files: Sequence[GenerationFile]) -> None:
    if any(file.timestamp == 0 for file in files):
        raise NotRestorableError(
            "files of Litestream 0.3 carry no time, and this store does not tell when"
            " they were written: only the latest state can be restored",
            kind="time",
        )


def bounds(
    files: Sequence[GenerationFile],
) -> tuple[datetime | None, datetime | None]:
    """Return times to ask for that give the earliest and the latest state there is."""
    first = min(_whole_by(files).values(), default=None)
    try:
        last: object = to_datetime(plan_generation(files).committed_by + 1)
    except NotRestorableError as error:
        last = error.latest
    return (
        None if first is None else to_datetime(first + 1),
        last if isinstance(last, datetime) else None,
    )


def too_early(
    before: int, earliest: datetime | None, latest: datetime | None
) -> NotRestorableError:
    """Return the error for a time before the first state."""
    hints = [
        f"the {name} is at={time.isoformat()!r}"
        for name, time in (("earliest", earliest), ("latest", latest))
        if time is not None
    ]
    return NotRestorableError(
        f"there is no state as old as {to_datetime(before).isoformat()}: "
        + (", ".join(hints) or "there is none at all"),
        kind="time",
        earliest=earliest,
        latest=latest,
    )
