"""One reader's view of a replica: the state that it sees, and how it moves on.

Theory of operation. A view has a ``PageMap``, the state that its reader sees. It only
changes between transactions of the reader: ``begin`` is called when one starts, and looks
at the replica if that was last done ``refresh`` seconds ago. If there is a newer state the
reader sees that from then on, and another ``moves``.

Compaction and retention delete files while they are read. A state does not depend on the
files that make it, so when one is gone the replica is listed anew, and the same
transaction is put together from the files that there are. If nothing leads to that
transaction any more the reader gets an error that says so, and the next transaction begins
at the newest state.

A damaged file is avoided in the same way if others lead to the same state.

Invariants. Every page that a transaction reads is of the state that it began with. A
position never goes back, but by ``travel``. A name in a replica that has other bytes than
it had is another history: nothing that was known of it is used any more.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    SQLiteReplicaError,
    StoreError,
)
from sqlitereplica.reading.atonce import AtOnce
from sqlitereplica.reading.cache import PageCache
from sqlitereplica.reading.hydrate import Hydration, LocalCopy
from sqlitereplica.reading.pagemap import PageMap, Part
from sqlitereplica.reading.pages import FAR, NEAR, Get, Pages, Reach
from sqlitereplica.reading.parts import DamagedFileError
from sqlitereplica.reading.planner import GONE, Planner
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.plan import to_datetime
from sqlitereplica.store import LTXStore

__all__ = ["View"]

logger = logging.getLogger(__name__)

_THREADS = 8
_LONG = 1.0
_PATIENCE = 10
"""What is cached can be read while the replica cannot be: most of the time, not between two
looks that take long to fail."""
_MOST_RETRIES = 4

_FAILED = (StoreError, NotRestorableError, InvalidFileError, PosMismatchError)


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
        get: Get | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the state that is wanted. ``get`` fetches ranges, as the store does.

        Raises:
            NotRestorableError: There is no such state.
            InvalidFileError: A file that it needs is damaged.
            StoreError: The replica cannot be read.
        """
        self.store = store
        self.moves = 0
        self._wanted, self._refresh, self._clock = wanted, refresh, clock
        self._pool = AtOnce() if store.is_local else _threads()
        self._cache = PageCache(cache_size)
        self._in_transaction = False
        near = NEAR if store.is_local else FAR
        reach = Reach(near.first, min(near.most, cache_size // 16), near.ahead)
        get = get or store.get
        self._pages = Pages(get, self._pool, self._cache, reach)
        self._planner = Planner(store, get, self._pool, self._pages)
        self.hydration: Hydration | None = None
        self._is_adopted = self._is_lost = False
        self._again = 0.0
        try:
            self.map = self._planner.settle(wanted)
        except BaseException:
            self.close()
            raise
        self.seen = clock()

    def close(self) -> None:
        """End the threads and let go of the memory."""
        if self.hydration is not None:
            self.hydration.close()
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
        self._adopt()
        self._in_transaction = True

    def end(self) -> None:
        """End the transaction."""
        self._in_transaction = False

    def look(self) -> None:
        """Move on to the newest state if it is time to look, and none is being read.

        If the replica cannot be read the state stays; ``seen`` tells for how long. After a
        look that took long to fail there is no other for ten times as long.
        """
        if self._in_transaction or self.is_fixed or not self._is_due():
            return
        begun = self._clock()
        try:
            self._move(self._newest())
        except (*_FAILED, DamagedFileError) as error:
            self._warn("stale", f"reading stays at transaction {self.map.txid}", error)
            took = self._clock() - begun
            if took > _LONG:
                self._again = self._clock() + _PATIENCE * took
        else:
            self.seen = self._clock()

    def _is_due(self) -> bool:
        now, refresh = self._clock(), self._refresh or 0.0
        return self._is_lost or (now - self.seen >= refresh and now >= self._again)

    def _newest(self) -> PageMap:
        if self._is_lost:
            return self._planner.settle(Wanted())
        return self._planner.newest(self.map)

    def hydrate(self, path: str | os.PathLike[str] | None) -> None:
        """Begin to make a local copy of the state, to read from that later on."""
        self.hydration = Hydration(self.store, self.map.txid, path)

    def _adopt(self) -> None:
        """Read from the local copy from now on, once it is there."""
        copy = None if self.hydration is None else self.hydration.copy
        if self._is_adopted or copy is None or copy.header.max_txid > self.map.txid:
            return
        self._is_adopted = True
        self._planner.copy = copy
        try:
            self.map = self._remade()
        except (*_FAILED, DamagedFileError) as error:
            self._warn("hydrate", "the local copy is not used yet", error)

    def travel(self, wanted: Wanted) -> None:
        """Go to another state, and follow from there if it is the newest.

        Raises as the constructor, and ValueError within a transaction.
        """
        if self._in_transaction:
            raise ValueError("the time cannot change within a transaction")
        found = self._planner.settle(wanted)
        self._wanted = wanted
        self._move(found)
        self.seen = self._clock()

    def share(self, other: View) -> None:
        """Let the later one of two views of a replica go on from the map of the other.

        Then pages that are the same in both come from the same files, as far as can be.
        """
        earlier, later = sorted((self, other), key=lambda view: view.map.txid)
        found = earlier._planner.lead(earlier.map, later.map.txid)
        if found is not None:
            later.map = found

    def _warn(self, action: str, what: str, why: Exception) -> None:
        name = self.store.name
        extra = {"action": f"read-{action}", "replica": name}
        logger.warning("%s: %s: %s", name, what, why, extra=extra)

    def _move(self, found: PageMap) -> None:
        self._is_lost = False
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
                if error.kind not in GONE or not left:
                    raise
                self._replace(error)
            except InvalidFileError as error:
                if not left:
                    raise
                self._avoid(part, error)
        raise AssertionError("the last try returns or raises")

    def _read(self, part: object, pgno: int) -> bytes:
        if isinstance(part, LocalCopy):
            return part.read(pgno)
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
            self.map = self._remade()
        except NotRestorableError as gone:
            raise NotRestorableError(
                f"transaction {txid}, which is being read, went away with its files:"
                " compaction or retention deleted them. Begin again at a newer state,"
                " or pin a state that is read for long.",
                kind="txid",
                before=gone.before,
                after=gone.after,
            ) from error

    def _remade(self) -> PageMap:
        """The same state, made of the files that there are now; raises as ``settle``."""
        found = self._planner.settle(Wanted(txid=self.map.txid))
        if not self.map.is_same_state(found):
            self._is_lost = True  # and what is newest now does not lead on from it
            raise NotRestorableError(
                f"transaction {found.txid} is one of another history by now",
                kind="txid",
            )
        return found

    def _avoid(self, part: object, error: InvalidFileError) -> None:
        """Put the same state together without a damaged file, or raise the error."""
        if not isinstance(part, Part):
            raise error
        info = part.info
        error.add_note(f"in level {info.level}, {info.name}, {self.store.name}")
        self._planner.avoid(info)
        try:
            self._replace(error)
        except NotRestorableError:
            raise error from None
        where = f"level {info.level}, {info.name}"
        self._warn("avoid", f"a damaged file is avoided, {where}", error)

    @property
    def time(self) -> datetime:
        """The time of the state."""
        return to_datetime(self.map.header.timestamp)

    @property
    def lag(self) -> float:
        """Seconds since the replica was last looked at."""
        return self._clock() - self.seen


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="replica-read")
