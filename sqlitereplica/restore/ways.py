"""Ways from an old copy of a database to a state that a replica has.

Theory. Each page of the result must come from a place that proves it. A database checksum
proves nothing here (see ``ltx.sums``): two pages that changed alike do not show in it, and
an old copy may well differ from the state in just that. What proves:

* the note of an earlier restore on the file (``mark``): it has still exactly the pages of
  transaction n of this very replica. The files after n then lead on, whole, as in any
  restore: the *forward* way.
* the page checksums of the full image that the plan begins with (``sums``): a page of the
  copy that has the checksum of the image's page is that page, and stays; the others are
  fetched alone, and judged by the same checksums. The increments come whole, and first,
  as what they replace need not be fetched: the *compared* way.

Of those that can be gone the cheaper one is taken, if it is cheaper than the plan itself.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from sqlitereplica.capture import PageTable
from sqlitereplica.errors import InvalidFileError, StoreError
from sqlitereplica.ltx import (
    HEADER_SIZE,
    FileInfo,
    Header,
    snapshot_page_count,
    sums_size,
)
from sqlitereplica.restore.frames import ENTRY_SIZE
from sqlitereplica.restore.image import State
from sqlitereplica.restore.mark import marked_txid
from sqlitereplica.restore.oldcopy import OldCopy, UnfitCopyError
from sqlitereplica.restore.plan import continue_plan, decisive
from sqlitereplica.restore.sums import read_sums
from sqlitereplica.store import LTXStore

__all__ = ["Way", "WayFinder"]

logger = logging.getLogger(__name__)

REQUEST_COST = 32 << 10
"""Bytes that could come in the time of one of several requests that run at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to get from the old copy to the state that ``goal`` heads.

    ``start`` heads the state that the copy is taken for, whose page checksums are
    ``sums``; it lacks the pages ``lacking`` of it, which are in the file ``base``.
    ``steps`` are the files to apply. ``size`` estimates the bytes to fetch, ``cost`` what
    they and the requests cost.
    """

    goal: Header
    start: Header
    sums: array[int]
    lacking: array[int]
    base: FileInfo | None
    steps: Sequence[FileInfo]
    size: int
    cost: int

    def lacking_size(self, count: int) -> int:
        """Estimate the bytes to fetch for ``count`` of the pages that it lacks."""
        return 0 if self.base is None else _brought_size(self.base, self.start, count)

    def state(self) -> State:
        """Return the state of a copy that has it already."""
        header = self.goal
        reused = snapshot_page_count(header.page_size, header.commit)
        return State(header, 0, header.post_checksum, self.sums, reused)

    @property
    def is_there(self) -> bool:
        """Whether the copy has this state already."""
        return self.start == self.goal and not self.lacking


class WayFinder:
    """Looks for the cheapest way. ``on_plan`` and ``on_bytes`` are told of what it reads."""

    def __init__(
        self,
        store: LTXStore,
        old: OldCopy,
        *,
        on_plan: Callable[[int], object],
        on_bytes: Callable[[int], object],
    ) -> None:
        self._store = store
        self._old = old
        self._on_plan = on_plan
        self._on_bytes = on_bytes

    def find(self, files: Sequence[FileInfo], plan: Sequence[FileInfo]) -> Way:
        """Find the cheapest way to the state of ``plan``, made of the listing ``files``.

        Raises:
            UnfitCopyError: There is none that is cheaper than the plan.
            InvalidFileError: The header of the last file is no good.
            StoreError: Something cannot be fetched.
        """
        plan = decisive(plan)
        goal = self._header(plan[-1])
        if not goal.post_checksum:
            raise UnfitCopyError("the replica has no database checksums")
        if self._old.page_size() not in (None, goal.page_size):
            raise UnfitCopyError("its pages have another size")
        copy = PageTable(goal.page_size, self._old.sums(goal.page_size))
        forward = self._forward(files, goal, copy)
        best = min(_cost(plan), _cost(plan) if forward is None else forward.cost)
        way = self._compared(plan, goal, copy, best) or forward
        if way is None or way.cost >= _cost(plan):
            raise UnfitCopyError("too little is known of it, or it differs too much")
        return way

    def _forward(
        self, files: Sequence[FileInfo], goal: Header, copy: PageTable
    ) -> Way | None:
        """Return the way from a noted transaction, None if there is none."""
        txid = marked_txid(self._old.mark, self._store.name, copy.page_size, copy.sums)
        steps = None if txid is None else continue_plan(files, txid, goal.max_txid)
        if txid is None or steps is None:
            return None
        start = replace(
            goal,
            min_txid=1,
            max_txid=txid,
            commit=copy.commit,
            pre_checksum=0,
            post_checksum=copy.checksum,
        )
        if not steps:
            if (start.commit, start.post_checksum) != (goal.commit, goal.post_checksum):
                return None
            start = goal
        return Way(
            goal=goal,
            start=start,
            sums=copy.sums,
            lacking=array("I"),
            base=None,
            steps=steps,
            size=sum(file.size for file in steps),
            cost=_cost(steps),
        )

    def _compared(
        self, plan: Sequence[FileInfo], goal: Header, copy: PageTable, best: int
    ) -> Way | None:
        """Return the way by page checksums if it costs less than ``best``."""
        base, steps = plan[0], plan[1:]
        if _cost(steps) + 3 * REQUEST_COST >= best:
            return None
        start = self._header(base) if steps else goal
        if not start.post_checksum or _cost(steps) + sums_size(start.commit) >= best:
            return None
        sums = self._sums(base, start)
        if sums is None:
            return None
        lacking = PageTable(start.page_size, sums).differs_from(copy)
        runs = sum(b != a + 1 for a, b in pairwise(chain([0], lacking)))
        brought = _brought_size(base, start, len(lacking))
        way = Way(
            goal=goal,
            start=start,
            sums=sums,
            lacking=lacking,
            base=base,
            steps=steps,
            size=sum(file.size for file in steps) + brought,
            cost=_cost(steps) + brought + (runs + 1) * REQUEST_COST,
        )
        return way if way.cost < best else None

    def _sums(self, base: FileInfo, start: Header) -> array[int] | None:
        """Return the page checksums of an image, None if there are none that fit."""
        self._on_plan(sums_size(start.commit))
        try:
            sums = read_sums(self._store, start)
        except (InvalidFileError, StoreError) as error:
            logger.warning(
                "page checksums of %s cannot be used: %s",
                base.name,
                error,
                extra={"action": "restore-sums", "replica": self._store.label},
            )
            return None
        if sums is not None:
            self._on_bytes(sums_size(start.commit))
        return sums

    def _header(self, file: FileInfo) -> Header:
        """Read the header of a file, which only proves to be right in the end."""
        self._on_plan(HEADER_SIZE)
        data = self._store.get(file, 0, HEADER_SIZE)
        self._on_bytes(len(data))
        header = Header.unpack(data)
        if (header.min_txid, header.max_txid) != (file.min_txid, file.max_txid):
            raise InvalidFileError(f"{file.name} is another file", kind="name")
        return header


def _cost(files: Sequence[FileInfo]) -> int:
    return sum(file.size + REQUEST_COST for file in files)


def _brought_size(base: FileInfo, start: Header, count: int) -> int:
    """Estimate the bytes of some frames of an image and of its index."""
    if not count:
        return 0
    return ENTRY_SIZE * start.commit + base.size * count // start.commit
