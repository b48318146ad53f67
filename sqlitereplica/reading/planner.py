"""Which files make the state that is read, and opening them.

The plan for a state is that of a restore. Then it moves on by the files that join, mostly
those of level 0, where they are small and come soon. Where they do not join, for history
became coarser or files are missing, other levels are looked at, or all is planned anew.
That is also done when a plan has grown by many files: compaction merged them by then.

Files that are known are not opened again, so planning anew costs a listing and the indexes
of files that are new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    StoreError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.reading.hydrate import LocalCopy
from sqlitereplica.reading.pagemap import PageMap, Part
from sqlitereplica.reading.pages import Get, Pages
from sqlitereplica.reading.parts import DamagedFileError, open_parts
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.plan import continue_plan, decisive, extend
from sqlitereplica.store import LTXStore

__all__ = ["GONE", "Planner"]

_MOST_RETRIES = 4
_GROWN_FILES = 64
"""Files by which a plan may grow before one is made anew, of fewer."""

GONE = frozenset({"missing", "short"})
"""Kinds of StoreError: the file is not there any more, or another one is."""

_Key = tuple[int, int, int]


class Planner:
    """Makes the maps of states of one replica; belongs to one thread.

    ``copy`` is a local copy of a state, to which files may be applied.
    """

    def __init__(
        self,
        store: LTXStore,
        get: Get,
        pool: Executor,
        pages: Pages,
    ) -> None:
        """``pages`` is given what comes along with a file."""
        self.copy: LocalCopy | None = None
        self._store, self._get, self._pool, self._pages = store, get, pool, pages
        self._parts: dict[_Key, Part] = {}
        self._broken: set[_Key] = set()
        self._plan_size = 0

    def avoid(self, info: FileInfo) -> None:
        """Plan without a file, which is damaged."""
        self._broken.add(_key(info))

    def settle(self, wanted: Wanted) -> PageMap:
        """Return the map of a state; files may go away while it is made.

        Raises:
            NotRestorableError: There is no such state.
            InvalidFileError: A file that it needs is damaged.
            StoreError: The replica cannot be read.
        """
        wanted = wanted.on(self._store)
        end, damaged = 0, None
        for left in reversed(range(_MOST_RETRIES)):
            try:
                base, plan = self._plan(wanted)
            except NotRestorableError:
                if damaged is None:
                    raise
                raise damaged from None
            found_end = plan[-1].max_txid if plan or base is None else base.txid
            if damaged is not None and found_end < end:
                raise damaged
            end = found_end
            try:
                found = self._make(base, plan)
            except StoreError as error:
                if error.kind not in GONE or not left:
                    raise
            except DamagedFileError as error:
                if not left:
                    raise error.error from None
                damaged = error.error
                self._broken.add(_key(error.info))
            else:
                self._plan_size = len(found.parts)
                self._drop_others(plan)
                return found
        raise AssertionError("the last try returns or raises")

    def _plan(self, wanted: Wanted) -> tuple[PageMap | None, Sequence[FileInfo]]:
        """List the replica; choose the files of a state, or those that lead to it.

        These are fewer if the local copy can be what they are applied to.
        """
        files = self._known(wanted.list(self._store))
        if not files and not self._broken:
            self._refuse_old_layout()
        plan = decisive(wanted.plan(files))
        copy = self.copy
        if copy is not None:
            end = plan[-1].max_txid
            steps = continue_plan(files, copy.header.max_txid, end)
            if steps is not None and copy.header.max_txid <= end:
                return PageMap.begin(copy), steps
        return None, plan

    def newest(self, current: PageMap) -> PageMap:
        """Return the map of the newest state; the present one if nothing is newer.

        Raises as ``settle``, and DamagedFileError.
        """
        try:
            return self._further(current)
        except (PosMismatchError, InvalidFileError) as error:
            if isinstance(error, InvalidFileError) and error.kind != "page-size":
                raise
            # The files do not lead on from what we have: it is another history by now, or
            # the database was made anew with other pages, which begins with a snapshot.
            self._parts.clear()
            self.copy = None
            return self.settle(Wanted())

    def _further(self, current: PageMap) -> PageMap:
        """As ``newest``, by level 0."""
        txid = current.txid
        newest = self._store.list_level(0, min_txid=txid)
        end = max((file.max_txid for file in newest), default=0)
        if end == txid:  # the newest file of a level is never deleted
            return current
        steps = extend(self._known(newest), txid)
        is_whole = steps and steps[-1].max_txid == end
        grown = len(current.parts) + len(steps) - self._plan_size
        if is_whole and grown <= _GROWN_FILES:
            return self._make(current, steps)
        return self._by_all_levels(current)

    def _by_all_levels(self, current: PageMap) -> PageMap:
        """As ``newest``: history may be coarser, or files missing."""
        files = self._known(self._store.list_all())
        end = max((file.max_txid for file in files), default=0)
        if end < current.txid:
            raise NotRestorableError(
                f"the replica ends with transaction {end}, before the present one",
                kind="gap",
            )
        grown = len(current.parts) - self._plan_size
        steps = continue_plan(files, current.txid, end)
        if steps is not None and grown + len(steps) <= _GROWN_FILES:
            return self._make(current, steps) if steps else current
        return self.settle(Wanted())

    def lead(self, current: PageMap, txid: int) -> PageMap | None:
        """Return the map of a later state that begins with this one, None if none does.

        Raises as ``settle``.
        """
        steps = continue_plan(self._known(self._store.list_all()), current.txid, txid)
        if steps is None:
            return None
        try:
            return self._make(current, steps)
        except DamagedFileError as error:
            raise error.error from None

    def _make(self, found: PageMap | None, plan: Sequence[FileInfo]) -> PageMap:
        """Open the files that are not known yet, and apply all."""
        missing = [info for info in plan if _key(info) not in self._parts]
        head = self._pages.reach.first
        for part, pages, begin in open_parts(
            self._store, self._get, missing, self._pool, head
        ):
            self._parts[_key(part.info)] = part
            for pgno, page in pages.items():
                self._pages.keep(part, pgno, page)
            if begin:
                self._pages.offer(part, begin)
        for info in plan:
            part = self._parts[_key(info)]
            found = PageMap.begin(part) if found is None else found.advance(part)
        assert found is not None, "a plan is never empty"
        return found

    def _known(self, files: Iterable[FileInfo]) -> list[FileInfo]:
        """Leave out what is damaged; forget what has the name of another file now."""
        kept = []
        for info in files:
            known = self._parts.get(_key(info))
            if known is not None and known.info.size != info.size:
                del self._parts[_key(info)]
            if _key(info) not in self._broken:
                kept.append(info)
        return kept

    def _drop_others(self, plan: Iterable[FileInfo]) -> None:
        """Forget the indexes of files that the plan has no use for."""
        keys = {_key(info) for info in plan}
        for key in list(self._parts):
            if key not in keys:
                del self._parts[key]

    def _refuse_old_layout(self) -> None:
        """Say so if Litestream 0.3 wrote the replica: it has no pages to fetch."""
        if self._store.list_generations():
            raise NotRestorableError(
                "Litestream 0.3 wrote this replica: it can be restored, but not read in"
                " place",
                kind="empty",
            )


def _key(info: FileInfo) -> _Key:
    return info.level, info.min_txid, info.max_txid
