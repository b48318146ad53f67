"""One reader's view of a replica: the state that it sees, and how it moves on.

Theory of operation. A view has a ``PageMap``, the state that its reader sees. It only
changes between transactions of the reader: ``begin`` is called when one starts, and looks
at the replica if that was last done ``refresh`` seconds ago. Newer files lead on from the
present state; where they do not join, for the history is only coarser than that, other
levels or a new plan do. The reader then sees another ``moves``.

Compaction and retention delete files while they are read. A state does not depend on the
files that make it, so when one is gone the replica is listed anew, and the same
transaction is put together from the files that there are. Files that are known are not
opened again. If nothing leads to that transaction any more the reader gets an error that
says so, and the next transaction begins at the newest state.

A damaged file is avoided in the same way if others lead to the same state.

Invariants. Every page that a transaction reads is of the state that it began with. A
position never goes back, but by ``travel``. A name in a replica that has other bytes than
it had is another history: nothing that was known of it is used any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    SQLiteReplicaError,
    StoreError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.reading.cache import PageCache
from sqlitereplica.reading.pagemap import PageMap, Part
from sqlitereplica.reading.pages import FAR, NEAR, Pages, Reach
from sqlitereplica.reading.parts import DamagedFileError, open_parts
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.plan import continue_plan, decisive, extend
from sqlitereplica.store import LTXStore

__all__ = ["View"]

logger = logging.getLogger(__name__)

_THREADS = 8
_MOST_RETRIES = 4
_GROWN_FILES = 64
"""Files by which a plan may grow before one is made anew, of fewer."""

_FAILED = (StoreError, NotRestorableError, InvalidFileError, PosMismatchError)
_GONE = frozenset({"missing", "short"})
"""Kinds of StoreError: the file is not there any more, or another one is."""

_Key = tuple[int, int, int]


class View:
    """What one reader sees. Belongs to one thread, but for ``close``.

    ``moves`` counts changes of the state; ``seen`` is when the replica was last looked
    at, by ``clock``.
    """

    def __init__(
        self,
        store: LTXStore,
        wanted: Wanted,
        *,
        refresh: float | None = 1.0,
        cache_size: int = 32 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the state that is wanted.

        Raises:
            NotRestorableError: There is no such state.
            InvalidFileError: A file that it needs is damaged.
            StoreError: The replica cannot be read.
        """
        self.store = store
        self.moves = 0
        self._wanted, self._refresh, self._clock = wanted, refresh, clock
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="replica-read")
        self._cache = PageCache(cache_size)
        self._parts: dict[_Key, Part] = {}
        self._broken: set[_Key] = set()
        self._in_transaction = False
        self._plan_size = 0
        near = NEAR if store.is_local else FAR
        reach = Reach(near.first, min(near.most, cache_size // 16), near.ahead)
        self._pages = Pages(store.get, self._pool, self._cache, reach)
        try:
            self.map = self._settle(wanted)
        except BaseException:
            self.close()
            raise
        self.seen = clock()

    def close(self) -> None:
        """End the threads and let go of the memory."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._cache.clear()

    # -- transactions ----------------------------------------------------------------

    @property
    def is_fixed(self) -> bool:
        """Whether it stays at one state."""
        return self._refresh is None or self._wanted != Wanted()

    def begin(self) -> None:
        """Begin a transaction: from now on, the state stays until ``end``."""
        self.look()
        self._in_transaction = True

    def end(self) -> None:
        """End the transaction."""
        self._in_transaction = False

    def look(self) -> None:
        """Move on to the newest state if it is time to look, and none is being read.

        If the replica cannot be read the state stays; ``seen`` tells for how long.
        """
        due = self._refresh is not None and self._clock() - self.seen >= self._refresh
        if self._in_transaction or self.is_fixed or not due:
            return
        try:
            self._move(self._newest())
        except (*_FAILED, DamagedFileError) as error:
            self._warn("stale", f"reading stays at transaction {self.map.txid}", error)
        else:
            self.seen = self._clock()

    def travel(self, wanted: Wanted) -> None:
        """Go to another state, and follow from there if it is the newest.

        Raises as the constructor, and ValueError within a transaction.
        """
        if self._in_transaction:
            raise ValueError("the time cannot change within a transaction")
        found = self._settle(wanted)
        self._wanted = wanted
        self._move(found)
        self.seen = self._clock()

    def _warn(self, action: str, what: str, why: Exception) -> None:
        name = self.store.name
        extra = {"action": f"read-{action}", "replica": name}
        logger.warning("%s: %s: %s", name, what, why, extra=extra)

    def _move(self, found: PageMap) -> None:
        if found is not self.map:
            self.map = found
            self.moves += 1

    # -- pages -----------------------------------------------------------------------

    def read(self, pgno: int) -> bytes:
        """Return a page of the state.

        Raises:
            NotRestorableError: Files are gone, and the state with them.
            InvalidFileError: It is damaged, and nothing else has it.
            StoreError: It cannot be fetched.
        """
        if self.map.is_lock_page(pgno):
            return bytes(self.map.page_size)
        for left in reversed(range(_MOST_RETRIES)):
            part = self.map.owner(pgno)
            try:
                return self._read(part, pgno)
            except StoreError as error:
                if error.kind not in _GONE or not left:
                    raise
                self._replace(error)
            except InvalidFileError as error:
                if not left:
                    raise
                self._avoid(part, error)
        raise AssertionError("the last try returns or raises")

    def _read(self, part: object, pgno: int) -> bytes:
        assert isinstance(part, Part)
        return self._pages.read(self.map, part, pgno)

    def _replace(self, error: SQLiteReplicaError) -> None:
        """Put the same state together from the files that there are now."""
        txid = self.map.txid
        logger.info(
            "%s: files of transaction %d are gone, it is planned anew",
            self.store.name,
            txid,
            extra={"action": "read-replan", "replica": self.store.name},
        )
        self._pages.forget()
        try:
            self.map = self._settle(Wanted(txid=txid))
        except NotRestorableError as gone:
            raise NotRestorableError(
                f"transaction {txid}, which is being read, went away with its files:"
                " compaction or retention deleted them. Begin again at a newer state,"
                " or pin a state that is read for long.",
                kind="txid",
                before=gone.before,
                after=gone.after,
            ) from error

    def _avoid(self, part: object, error: InvalidFileError) -> None:
        """Put the same state together without a damaged file, or raise the error."""
        if not isinstance(part, Part):
            raise error
        info = part.info
        error.add_note(f"in level {info.level}, {info.name}, {self.store.name}")
        self._broken.add(_key(info))
        try:
            self._replace(error)
        except NotRestorableError:
            raise error from None
        where = f"level {info.level}, {info.name}"
        self._warn("avoid", f"a damaged file is avoided, {where}", error)

    # -- planning --------------------------------------------------------------------

    def _settle(self, wanted: Wanted) -> PageMap:
        """Return the map of a state; files may go away while it is made."""
        wanted = wanted.on(self.store)
        end, damaged = 0, None
        for left in reversed(range(_MOST_RETRIES)):
            try:
                plan = self._plan(wanted)
            except NotRestorableError:
                if damaged is None:
                    raise
                raise damaged from None
            if damaged is not None and plan[-1].max_txid < end:
                raise damaged
            end = plan[-1].max_txid
            try:
                found = self._make(None, plan)
            except StoreError as error:
                if error.kind not in _GONE or not left:
                    raise
            except DamagedFileError as error:
                if not left:
                    raise error.error from None
                damaged = error.error
                self._broken.add(_key(error.info))
            else:
                self._plan_size = len(plan)
                self._drop_others(plan)
                return found
        raise AssertionError("the last try returns or raises")

    def _plan(self, wanted: Wanted) -> Sequence[FileInfo]:
        """List the replica and choose the files of a state."""
        files = self._known(wanted.list(self.store))
        if not files and not self._broken:
            self._refuse_old_layout()
        return decisive(wanted.plan(files))

    def _newest(self) -> PageMap:
        """Return the map of the newest state; the present one if nothing is newer."""
        try:
            return self._further()
        except PosMismatchError:
            # The files do not lead on from what we have: it is another history by now.
            self._parts.clear()
            return self._settle(Wanted())

    def _further(self) -> PageMap:
        """As ``_newest``, by level 0, where files are small and come soon."""
        current = self.map.txid
        newest = self.store.list_level(0)
        end = max((file.max_txid for file in newest), default=0)
        if end == current:  # the newest file of a level is never deleted
            return self.map
        steps = extend(self._known(newest), current)
        is_whole = steps and steps[-1].max_txid == end
        grown = len(self.map.parts) + len(steps) - self._plan_size
        if is_whole and grown <= _GROWN_FILES:
            return self._make(self.map, steps)
        return self._newest_of_all()

    def _newest_of_all(self) -> PageMap:
        """As ``_newest``, by all levels: history may be coarser, or files missing."""
        files = self._known(self.store.list_all())
        end = max((file.max_txid for file in files), default=0)
        if end < self.map.txid:
            raise NotRestorableError(
                f"the replica ends with transaction {end}, before the present one",
                kind="gap",
            )
        grown = len(self.map.parts) - self._plan_size
        steps = continue_plan(files, self.map.txid, end)
        if steps is not None and grown + len(steps) <= _GROWN_FILES:
            return self._make(self.map, steps) if steps else self.map
        return self._settle(Wanted())

    def _make(self, found: PageMap | None, plan: Sequence[FileInfo]) -> PageMap:
        """Open the files that are not known yet, and apply all."""
        missing = [info for info in plan if _key(info) not in self._parts]
        for opened in open_parts(self.store, missing, self._pool):
            self._parts[_key(opened.part.info)] = opened.part
            for pgno, page in opened.pages.items():
                self._pages.keep(opened.part, pgno, page)
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
        if self.store.list_generations():
            raise NotRestorableError(
                "Litestream 0.3 wrote this replica: it can be restored, but not read in"
                " place",
                kind="empty",
            )

    @property
    def time(self) -> datetime:
        """The time of the state."""
        return datetime.fromtimestamp(self.map.header.timestamp / 1000, UTC)

    @property
    def lag(self) -> float:
        """Seconds since the replica was last looked at."""
        return self._clock() - self.seen


def _key(info: FileInfo) -> _Key:
    return info.level, info.min_txid, info.max_txid
