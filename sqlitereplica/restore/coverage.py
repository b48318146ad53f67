"""What the files of a replica can give back, and what is lost: pure, on a listing.

Theory. A state is *reached* if some chain of files ends with it (``store/reach.py``).
Reached states follow each other without a break as long as files of the levels below the
snapshots join them: then no transaction in between is missing, only merged with others.
Such a run is a *range*. Where only a snapshot leads on, a new range begins.

Between two ranges there may be nothing, by design: retention keeps a snapshot a day and
drops what led there. But where a file is left between them, or behind the last one, that
leads to no state, those before it were lost. That is a *gap* (``find_gaps``).

A file that is damaged gives nothing, but it was there to be used: what could be restored
if it were sound was *promised*. What was promised and is not there is a gap as well.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, pairwise
from typing import TypeAlias

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.restore.plan import plan_restore
from sqlitereplica.store.reach import Gap, find_gaps, reachable_txids, to_datetime

__all__ = [
    "Coverage",
    "FileKey",
    "Note",
    "RestorableRange",
    "cover",
    "key_of",
]

FileKey: TypeAlias = tuple[int, int, int]
"""(level, min TXID, max TXID): what names a file of a replica."""

_MOST_NAMED = 3


def key_of(file: FileInfo) -> FileKey:
    """Return what names a file."""
    return file.level, file.min_txid, file.max_txid


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorableRange:
    """States that can be restored, with no transaction missing between them.

    Attributes:
        min_txid: The first state.
        max_txid: The last state.
        min_time: The time of the first; aware, UTC.
        max_time: The time of the last.
        states: How many there are: those between may have been merged.
    """

    min_txid: int
    max_txid: int
    min_time: datetime
    max_time: datetime
    states: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that is worth knowing and harms no restore.

    Attributes:
        kind: ``"hole"``: a level lacks transactions that others have; ``"overlap"``: files
            of a level overlap; ``"duplicate"``: the listing names a file twice;
            ``"unstable"``: a file was read wrongly once; ``"unchecked"``: SQLite's full
            check could not run; ``"generations"``: there are files of Litestream 0.3.
        text: What it is.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What a listing gives back.

    ``gaps`` are states that cannot be restored though later files are there, ``lost`` the
    transactions in them that are in no sound file. ``states`` are the TXIDs that can be
    restored; ``promised`` those that could if no file were damaged. ``latest_error`` says
    why the newest cannot.
    """

    ranges: tuple[RestorableRange, ...]
    gaps: tuple[Gap, ...]
    lost: tuple[Gap, ...]
    notes: tuple[Note, ...]
    states: Sequence[int]
    promised: Sequence[int]
    latest_error: str | None

    def has(self, txid: int) -> bool:
        """Tell whether exactly this state can be restored."""
        return _has(self.states, txid)

    def is_needed(self, file: FileInfo) -> bool:
        """Tell whether a state is lost as long as this file is not sound."""
        end = file.max_txid
        return _has(self.promised, end) and not _has(self.states, end)


def cover(
    files: Collection[FileInfo],
    damaged: Collection[FileKey] = frozenset(),
    incomplete: Collection[int] = frozenset(),
) -> Coverage:
    """Judge a listing.

    Args:
        files: All files of the replica, in any order.
        damaged: Those that are not to be used.
        incomplete: States of which pages are missing, though files lead there and on.
    """
    sound = [file for file in files if key_of(file) not in damaged]
    reached = reachable_txids(sound)
    states = [txid for txid in reached if txid not in incomplete]
    promised = reachable_txids(files)
    ranges = tuple(_runs(sound, reached, incomplete))
    gaps = _gaps(files, promised, ranges)
    held = _merged((f.min_txid, f.max_txid) for f in sound if f.level < SNAPSHOT_LEVEL)
    return Coverage(
        ranges=ranges,
        gaps=tuple(gaps),
        lost=tuple(part for gap in gaps for part in _without(gap, held)),
        notes=tuple(_notes(files)),
        states=states,
        promised=promised,
        latest_error=_latest_error(files, sound, states),
    )


# -- ranges and gaps ---------------------------------------------------------------------


def _runs(
    files: Iterable[FileInfo], reached: Sequence[int], incomplete: Collection[int]
) -> Iterator[RestorableRange]:
    """Yield the ranges: runs of reached states that increments lead over.

    A state that only a snapshot gives is in the middle of one, too, if an increment that
    joins before ends behind it.
    """
    ending: dict[int, list[FileInfo]] = defaultdict(list)
    for file in files:
        ending[file.max_txid].append(file)
    increments = sorted(
        (f.min_txid, f.max_txid) for f in files if f.level < SNAPSHOT_LEVEL
    )
    at = furthest = 0
    run: list[tuple[int, int]] = []  # TXIDs and times
    for before, txid in pairwise([0, *reached]):
        while at < len(increments) and increments[at][0] <= before + 1:
            furthest = max(furthest, increments[at][1])
            at += 1
        if run and txid > furthest:
            yield _range(run)
            run = []
        if txid not in incomplete:
            group = (f.timestamp for f in ending[txid] if f.min_txid <= before + 1)
            run.append((txid, min(group)))
    if run:
        yield _range(run)


def _range(run: Sequence[tuple[int, int]]) -> RestorableRange:
    (first, first_time), (last, last_time) = run[0], run[-1]
    return RestorableRange(
        min_txid=first,
        max_txid=last,
        min_time=to_datetime(first_time),
        max_time=to_datetime(last_time),
        states=len(run),
    )


def _gaps(
    files: Collection[FileInfo],
    promised: Sequence[int],
    ranges: Iterable[RestorableRange],
) -> list[Gap]:
    """Return, in order, what was promised and is not there, as one gap where it touches."""
    kept = [Gap(span.min_txid, span.max_txid) for span in ranges]
    broken = (
        part
        for span in _runs(files, promised, ())
        for part in _without(Gap(span.min_txid, span.max_txid), kept)
    )
    return _merged(chain(find_gaps(files, promised), broken))


def _merged(spans: Iterable[tuple[int, int]]) -> list[Gap]:
    """Return what is in any of the spans, as few as possible, in order."""
    found: list[Gap] = []
    start = end = -1
    for first, last in sorted(spans):
        if found and first <= end + 1:
            end = max(end, last)
            found[-1] = Gap(start, end)
        else:
            start, end = first, last
            found.append(Gap(start, end))
    return found


def _without(span: Gap, others: Sequence[Gap]) -> Iterator[Gap]:
    """Yield the parts of a span that are in no other; these are disjoint and ascend."""
    start = span.min_txid
    at = bisect_left(others, start, key=lambda other: other.max_txid)
    while at < len(others) and others[at].min_txid <= span.max_txid:
        if start < others[at].min_txid:
            yield Gap(start, others[at].min_txid - 1)
        start = others[at].max_txid + 1
        at += 1
    if start <= span.max_txid:
        yield Gap(start, span.max_txid)


def _latest_error(
    files: Collection[FileInfo], sound: Sequence[FileInfo], states: Sequence[int]
) -> str | None:
    """Say why a restore of the newest state fails; None if it does not."""
    newest = states[-1] if states else 0
    instead = f" The newest that can be restored is {newest}." if newest else ""
    try:
        wanted = plan_restore(tuple(files))[-1].max_txid
    except NotRestorableError as error:
        return str(error)
    try:
        end = plan_restore(sound)[-1].max_txid
    except NotRestorableError:
        end = 0
    if end == wanted and _has(states, end):
        return None
    return (
        f"transaction {wanted}, the newest, cannot be restored: files that lead to it are"
        f" damaged.{instead}"
    )


# -- notes -------------------------------------------------------------------------------


def _notes(files: Collection[FileInfo]) -> Iterator[Note]:
    """Yield what is odd in a level; one note for each kind, however often."""
    keys = sorted(map(key_of, files))
    twice = [Gap(*key[1:]) for key, other in pairwise(keys) if key == other]
    if twice:
        yield Note(kind="duplicate", text=f"the listing repeats {_listed(twice)}")
    for level in range(SNAPSHOT_LEVEL):
        spans = sorted({Gap(*key[1:]) for key in keys if key[0] == level})
        holes, overlaps = [], []
        covered = spans[0].max_txid if spans else 0
        for span in spans[1:]:
            if span.min_txid > covered + 1:
                holes.append(Gap(covered + 1, span.min_txid - 1))
            elif span.min_txid <= covered:
                overlaps.append(span)
            covered = max(covered, span.max_txid)
        if holes:
            yield Note(kind="hole", text=f"level {level} lacks {_listed(holes)}")
        if overlaps:
            text = f"level {level} holds more than once {_listed(overlaps)}"
            yield Note(kind="overlap", text=text)


def _listed(spans: Sequence[Gap]) -> str:
    """The first few, and how many more there are."""
    named = ", ".join(map(str, spans[:_MOST_NAMED]))
    more = len(spans) - _MOST_NAMED
    return named + (f" and {more} more" if more > 0 else "")


def _has(txids: Sequence[int], txid: int) -> bool:
    index = bisect_left(txids, txid)
    return index < len(txids) and txids[index] == txid
