"""Every plan of a listing at once, in near-linear time.

``plan_restore`` answers for one state. What can be restored, and what must be kept for it,
needs the answers for all of them, and exactly those: what readers choose, ours and
Litestream's, is what must not be deleted.

Theory. The plan for state p takes, from the newest full image at or before p on, the file
that reaches furthest but not beyond p, again and again. Let q be the state before its
last step. Up to q this is the plan for q: no step of it could have reached beyond q
without reaching beyond p, or it would have been taken; and the image is the same, for
none ends after q and up to p, or it would be the start. So plan(p) = plan(q) + one file,
and all plans together are a tree that is kept as one link per state.

To find q, let m be the smallest min TXID of the files that end with p. Before one of them
can join, at a state s >= m - 1, the plan for p cannot tell p from the state r that can be
restored just before it, and follows plan(r). So q is the first state of plan(r) that is
not below m - 1. Keeping plan(r) as a stack of ascending states, that is one bisection and
a cut, for each p in ascending order.

Two numbers about time go with a state. ``ready`` is the latest timestamp in its plan.
``earliest`` is the least that the latest timestamp of any chain of files to it can be: a
restore ``before`` T reaches the state exactly if ``earliest`` < T. They differ only where
times do not rise with TXIDs: after a clock was set back, or at snapshots that Litestream
stamped when it made them. The chain that attains ``earliest`` is a tree of links as well.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo

__all__ = ["Chains", "Point", "is_usable", "rank"]

_ALWAYS = -(2**127)
"""A time before all times: that of the state without pages."""

_MIN_TXID, _MAX_TXID = attrgetter("min_txid"), attrgetter("max_txid")


def is_usable(file: FileInfo) -> bool:
    """False for a file of the snapshot level that is no full image."""
    return file.level < SNAPSHOT_LEVEL or file.min_txid == 1


def rank(file: FileInfo) -> tuple[int, int, int, int]:
    """Of the increments that join, the one with the greatest rank is next in a plan.

    It ends last; then it begins first, is of the higher level, is older.
    """
    return file.max_txid, -file.min_txid, file.level, -file.timestamp


class Point(NamedTuple):
    """A state that can be restored.

    ``file`` is the last one of its plan, and ``base`` the index of the point that the
    rest of the plan makes, -1 for nothing. ``early_file`` and ``early_base`` are the same
    of the chain that attains ``earliest``.
    """

    txid: int
    file: FileInfo
    base: int
    ready: int
    earliest: int
    early_file: FileInfo
    early_base: int

    @property
    def timestamp(self) -> int:
        """The time of the state: that of the file its plan ends with."""
        return self.file.timestamp

    @property
    def is_image(self) -> bool:
        """True if a snapshot holds it, so that its plan is that one file."""
        return self.file.level == SNAPSHOT_LEVEL

    @property
    def is_single(self) -> bool:
        """True if only the level-0 file of its upload ends there: no level merged it."""
        return self.file.level == 0 and self.file.min_txid == self.file.max_txid


class Chains:
    """The points of a listing, by ascending TXID, and the plans that lead to them.

    Files of the snapshot level that are no full images are left out, as by
    ``plan_restore``.
    """

    def __init__(self, files: Iterable[FileInfo]) -> None:
        """Read a listing; it may be in any order and name files twice."""
        self.files = sorted(filter(is_usable, files), key=_MAX_TXID)
        self.points: list[Point] = []
        self._grow()
        self.txids = [point.txid for point in self.points]

    def find(self, txid: int) -> int | None:
        """Return the index of the point with a TXID, or None."""
        index = bisect_left(self.txids, txid)
        found = index < len(self.txids) and self.txids[index] == txid
        return index if found else None

    def plan(self, index: int) -> list[FileInfo]:
        """Return the files that ``plan_restore`` chooses for a point."""
        files = []
        while index >= 0:
            point = self.points[index]
            files.append(point.file)
            index = point.base
        return files[::-1]

    @property
    def newest_txid(self) -> int:
        """The last TXID in any file, 0 without files."""
        return self.files[-1].max_txid if self.files else 0

    @property
    def is_whole(self) -> bool:
        """True if the newest state can be restored: no gap before it is left open."""
        return bool(self.points) and self.points[-1].txid == self.newest_txid

    def unreachable(self) -> Iterator[FileInfo]:
        """Yield the files that begin where nothing leads: beyond a gap."""
        txids = self.txids
        for file in self.files:
            if file.min_txid == 1:
                continue
            joins = bisect_left(txids, file.min_txid - 1)
            if joins == len(txids) or txids[joins] >= file.max_txid:
                yield file

    def increments_from(self, index: int) -> Iterator[FileInfo]:
        """Yield increments that lead from a point to the newest, of the furthest reach.

        Where only a snapshot leads on, they begin anew there.
        """
        increments = [file for file in self.files if file.level < SNAPSHOT_LEVEL]
        increments.sort(key=_MIN_TXID, reverse=True)
        current = self.txids[index]
        best: FileInfo | None = None
        while current < self.newest_txid:
            while increments and increments[-1].min_txid <= current + 1:
                joining = increments.pop()
                if best is None or rank(joining) > rank(best):
                    best = joining
            if best is not None and best.max_txid > current:
                yield best
                current = best.max_txid
                continue
            beyond = bisect_right(self.txids, current)
            if beyond == len(self.txids):
                return
            current = self.txids[beyond]

    def _grow(self) -> None:
        """Make the points, from the first to the last."""
        points = self.points
        # The newest plan: its states, and the index of each. State 0 is the empty one.
        path, where = [0], [-1]
        early = _Earliest()
        for txid, group in groupby(self.files, key=_MAX_TXID):
            ending = list(group)
            file = ending[0] if len(ending) == 1 else max(ending, key=_last_step)
            if file.level == SNAPSHOT_LEVEL:
                depth, base, ready = 0, -1, file.timestamp
            else:
                at = bisect_left(path, file.min_txid - 1)
                if at == len(path):
                    continue
                depth, base, ready = at + 1, where[at], file.timestamp
                if base >= 0 and points[base].ready > ready:
                    ready = points[base].ready
            index = len(points)
            earliest = early.add(txid, index, ending)
            points.append(Point(txid, file, base, ready, *earliest))
            del path[depth:], where[depth:]
            path.append(txid)
            where.append(index)


class _Earliest:
    """Finds for each point, in ascending order, the chain that is complete first.

    The states that can be the first of all from some TXID on form a stack in which both
    TXIDs and times rise: a state that is not earlier than a later one never counts.
    """

    def __init__(self) -> None:
        self._txids = [0]
        self._times = [_ALWAYS]
        self._where = [-1]

    def add(
        self, txid: int, index: int, ending: Sequence[FileInfo]
    ) -> tuple[int, FileInfo, int]:
        """Return (time, last file, index of the point before) for one that is reachable."""
        found = [way for file in ending if (way := self._way(file)) is not None]
        best = found[0] if len(found) == 1 else min(found, key=_first_and_best)
        time = best[0]
        while self._times[-1] >= time:
            del self._txids[-1], self._times[-1], self._where[-1]
        self._txids.append(txid)
        self._times.append(time)
        self._where.append(index)
        return best

    def _way(self, file: FileInfo) -> tuple[int, FileInfo, int] | None:
        """Return the earliest chain that ends with a file, or None."""
        if file.level == SNAPSHOT_LEVEL:
            return file.timestamp, file, -1
        at = bisect_left(self._txids, file.min_txid - 1)
        if at == len(self._txids):
            return None
        time = self._times[at]
        return max(time, file.timestamp), file, self._where[at]


def _last_step(file: FileInfo) -> tuple[bool, tuple[int, ...]]:
    """Return what decides between files that end with the same state: a snapshot first."""
    return file.level == SNAPSHOT_LEVEL, rank(file)


def _first_and_best(way: tuple[int, FileInfo, int]) -> tuple[int, tuple[int, ...]]:
    return way[0], tuple(-number for number in rank(way[1]))
