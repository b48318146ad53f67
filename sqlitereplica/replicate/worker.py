"""One replica: from wherever it stands to the newest state, and then along with it.

A worker goes through four phases, and falls back to the first whenever something makes it
doubt where its store stands::

    CONNECT   list the store, read the newest header         -> position
    COMPARE   find what it holds as a page table (log, or the replica itself)
              and ask capture for what differs               -> uploads
    CATCH_UP  put the files of the delta                     -> in step
    STREAM    put increments in order, one TXID each

Invariants: ``acked`` is a seq whose state the store holds for certain (a put returned);
TXID = seq + offset while streaming; nothing is put after ``AnotherWriterError``. Every
failure is kept in ``health`` and tried again after a pause that doubles (``anyworker.py``).
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlitereplica.capture import (
    PageTable,
    TableFile,
)
from sqlitereplica.errors import (
    AnotherWriterError,
    DivergedError,
    InvalidFileError,
    LeaseLostError,
    PosMismatchError,
    StoreError,
)
from sqlitereplica.events import Observer
from sqlitereplica.ltx import HEADER_SIZE, Header
from sqlitereplica.replicate.anyworker import AnyWorker, Coordinator, Phase
from sqlitereplica.replicate.catalog import Catalog
from sqlitereplica.replicate.delta import (
    Delta,
    DeltaRequest,
    Upload,
    made_locally,
    uploads_for,
)
from sqlitereplica.replicate.fencing import Entrance, entrance, forgives
from sqlitereplica.replicate.gate import OPEN, Gate
from sqlitereplica.replicate.position import Position, read_position
from sqlitereplica.replicate.promoted import find_promoted
from sqlitereplica.replicate.recent import Recent
from sqlitereplica.replicate.spool import Spool
from sqlitereplica.restore import read_checksums
from sqlitereplica.store import LTXStore

__all__ = ["ReplicaWorker"]


class ReplicaWorker(AnyWorker):
    """Keeps one replica in a store up to date."""

    def __init__(
        self,
        name: str,
        open_store: Callable[[], LTXStore],
        *,
        database: str,
        spool: Spool,
        tables: TableFile,
        folder: Path,
        node_id: int = 0,
        coordinator: Coordinator,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
        recent: Recent | None = None,
        on_hopeless: Callable[[Exception], object] = lambda error: None,
        gate: Gate = OPEN,
    ) -> None:
        super().__init__(
            name,
            database=database,
            spool=spool,
            coordinator=coordinator,
            observer=observer,
            clock=clock,
            now=now,
            rng=rng,
        )
        self.gate = gate
        self.catalog = Catalog()
        self._recent, self._on_hopeless = recent, on_hopeless
        self._open_store = open_store
        self._database = database
        self._tables, self._folder = tables, folder
        self._node_id = node_id
        self._puts, self._forgiven = 0, False
        self._entrance, self._settled = Entrance.CONTINUE, 0
        self._is_derived = False
        """Whether the database is known to have been in the state that the store holds."""
        self._store: LTXStore | None = None
        self._position = Position()
        self._uploads: list[Upload] = []
        self._target: Delta | None = None
        self._whole = False
        self._behind: PageTable | None = None

    # -- called by others ------------------------------------------------------------

    def fall_behind(self, base: PageTable | None) -> None:
        """Lose the place in the spool; ``base`` is what a store there holds at least.

        The place is the store's once this worker streams. Before, the delta that leads to
        it is still on its way, and may not arrive.
        """
        self._behind = base if self.phase is Phase.STREAM else None
        super().fall_behind(base)

    @property
    def store(self) -> LTXStore | None:
        """The store, once it was opened; its history is tended beside the worker."""
        return self._store

    def give_up(self, error: Exception) -> None:
        """Say so to who waits for its history, too."""
        self._on_hopeless(error)

    # -- one unit of work ------------------------------------------------------------

    def _is_due(self) -> bool:
        return self.phase is not Phase.FAILED and (self.pause <= 0 or self._is_let_in())

    def _is_let_in(self) -> bool:
        """Whether all that it waits for is over: the gate was shut."""
        error = self.health.error
        shut = isinstance(error, StoreError) and error.kind == "lease-unconfirmed"
        return shut and self.gate.is_open()

    def _act(self) -> bool:
        # Also when there is nothing to send: who waits is to be told that it is lost.
        self.gate.check()
        match self.phase:
            case Phase.CONNECT:
                return self._connect()
            case Phase.COMPARE:
                return self._compare()
            case Phase.CATCH_UP:
                return self._catch_up()
            case _:
                return self._stream()

    def _connect(self) -> bool:
        if self._store is None:
            self._store = self._open_store()
        version = self.catalog.version
        position = read_position(self._store)
        if not self._store.is_readable:
            self._report("write-only", level=20, txid=position.txid)
        self.catalog.replace(position.files, version)
        is_as_left = position.txid in (self.txid, self.txid + 1)
        if not is_as_left or position.node_id != self._node_id:
            self._behind = None  # not the store that we left: look at what it holds
        self._position, self.txid = position, position.txid
        self._coordinator.connected(position)
        self._whole, self._is_derived = position.broken, False
        self._entrance = entrance(
            self.gate.tenure,
            settled=self._is_settled,
            txid=position.txid,
            writer=position.node_id,
            node=self._node_id,
        )
        self._puts = 0
        self.phase = Phase.COMPARE
        return True

    def _compare(self) -> bool:
        if self._request is None:
            return self._ask()
        if not self._request.answered.is_set():
            return False
        request, self._request = self._request, None
        assert request.answer is not None
        delta, self._behind = request.answer, None
        if delta.view is None:
            assert self._store is not None
            # The file that ends in that state was put by whoever was here before.
            for file in self._position.plan[-1:]:
                self._store.settle(file)
            self._in_step(delta)
            return True
        proven = delta.was_in_step or self._is_derived
        if self._entrance is Entrance.COMPARE and not proven:
            delta.view.release()
            raise DivergedError(
                self._database, replica=self.name, txid=self._position.txid
            )
        changed_size = self._position.page_size not in (0, delta.state.page_size)
        with delta:
            self._uploads = uploads_for(
                delta,
                txid=self.txid + 1,
                whole=self._whole or changed_size,
                pre_checksum=self._position.checksum,
                path=self._temporary("delta"),
            )
        self._target = delta
        self.phase = Phase.CATCH_UP
        self._report("delta", pages=len(delta.pgnos), txid=self.txid + 1)
        return True

    def _ask(self) -> bool:
        """Ask capture for the difference to what the store holds."""
        base = None if self._whole else self._behind
        checksum, ours = (
            self._position.checksum,
            self._position.node_id == self._node_id,
        )
        if base is None and checksum and ours and not self._whole:
            # Only of what we wrote: states of others are not recorded here, and one of
            # them may have the checksum of one that is.
            base = self._tables.find(checksum)
        if base is None and checksum and not self._whole:
            base = find_promoted(self._folder.parent, self._position)
            self._is_derived = base is not None
        if base is None and self.txid > 0 and not self._whole:
            # Nothing is recorded of it, or Litestream wrote it.
            self._behind = self._base_from_replica()
            return True
        fence = self._entrance is not Entrance.CONTINUE
        self._request = DeltaRequest(replica=self.name, base=base, always=fence)
        self._coordinator.request(self._request)
        return True

    def _base_from_replica(self) -> PageTable | None:
        """Read what the replica holds; a replica that cannot be read is written anew."""
        assert self._store is not None
        try:
            found = read_checksums(self._store, self._position.plan)
        except (InvalidFileError, PosMismatchError) as error:
            self._report("replica-damaged", level=30, error=error)
            self._whole = True
            return None
        return PageTable(found.page_size, found.pages)

    def _catch_up(self) -> bool:
        assert self._store is not None
        assert self._target is not None
        while self._uploads:
            level, low, high, data = self._uploads[0]
            self._put(level, low, high, data, self._target.state.timestamp)
            self._uploads.pop(0)
            _discard(data)
        self.txid += 1
        self._in_step(self._target)
        return True

    def _in_step(self, delta: Delta) -> None:
        self._target = None
        self._whole = False
        seq = delta.state.seq
        self._line = seq, self.txid - seq
        self.phase = Phase.STREAM
        self._confirm(seq)
        self.gate.entered()

    def _stream(self) -> bool:
        increment = self._spool.next(self.name)
        if increment is None:
            return False
        txid = self.txid + 1
        with made_locally(self._folder):
            data = increment.content(txid)
        if data is None:
            return False  # it lost its place just now; ``fall_behind`` is under way
        state = increment.state
        try:
            self._put(0, txid, txid, data, state.timestamp)
        except AnotherWriterError:
            raise
        except StoreError:
            if self._spool.next(self.name) is increment:
                raise
            return False  # its file went away with its place
        self.txid = txid
        self._spool.done(self.name, state.seq)
        self._confirm(state.seq)
        return True

    def _put(
        self, level: int, low: int, high: int, data: bytes | Path, timestamp: int
    ) -> None:
        assert self._store is not None
        self.gate.check()
        info = self._store.put(level, low, high, data, timestamp=timestamp)
        self._puts += 1
        tenure = self.gate.tenure
        if level == 0 and tenure is not None:
            self._settled = tenure.epoch
        # Once more: what is put when the time has run out is not confirmed to anybody.
        self.gate.check()
        self.catalog.add(info)
        if self._recent is not None and not self._store.is_local:
            self._recent.add(info, data)
        self._report("upload", txid=high, ltx_level=level)

    def _confirm(self, seq: int) -> None:
        self._forgiven = False
        super()._confirm(seq)

    # -- failure ---------------------------------------------------------------------

    def _begin_again(self) -> None:
        """Back to the first phase, leaving nothing half-done behind."""
        super()._begin_again()
        for upload in self._uploads:
            _discard(upload[3])
        self._uploads, self._target = [], None

    def _temporary(self, what: str) -> Path:
        return self._folder / f"{what}-{zlib.crc32(self.name.encode()):08x}.ltx"

    def fail(self, error: Exception) -> None:
        """Note a failure of ``advance``; the next call tries again after a pause."""
        if isinstance(error, AnotherWriterError):
            error = self._explained(error)
        self.health.failed(error, self._clock(), self._rng())
        if isinstance(error, AnotherWriterError | DivergedError):
            self.phase = Phase.FAILED
            self._spool.unsubscribe(self.name)
            self.give_up(error)
            self.gate.refused(error)
            self._report("fenced", level=40, error=error)
        else:
            # One line when it begins, then only as often as the pauses grow.
            self._report("replica-error", level=30, error=error)
            ours = not isinstance(error, StoreError) or error.kind == "source"
            if self.phase is Phase.COMPARE or ours:
                # What was to be put is not there, or in doubt: make it anew.
                self._behind = None
                self._begin_again()
        self._coordinator.progressed()

    def _explained(self, error: AnotherWriterError) -> StoreError:
        """What it means that our name has other bytes, or that the lease is lost."""
        if isinstance(error, LeaseLostError):
            return error
        if forgives(self.gate.tenure, settled=self._is_settled):
            self._begin_again()
            why = f"{error.key} is a late put of whoever had the lease before"
        elif self._was_our_own():
            why = f"{error.key} is from an earlier start"
        else:
            return self.gate.explain(error)
        own = StoreError(why, operation="put")
        own.__cause__ = error
        return own

    @property
    def _is_settled(self) -> bool:
        """Whether a put of the present tenure has succeeded: then it is fenced here."""
        tenure = self.gate.tenure
        return tenure is not None and tenure.epoch == self._settled

    def _was_our_own(self) -> bool:
        """Whether the bytes under our name were put by ourselves, in an earlier life.

        A process that is killed, or gives up on a store that hangs, may leave a put on its
        way, and it may arrive after the next life has listed the store. That can only meet
        the first put after a listing. A second time in a row, or later, it is a copy of
        this metadata folder at work somewhere else: another writer.
        """
        if self._puts or self._forgiven or not self._node_id:
            return False
        assert self._store is not None
        try:
            there = self._store.list_level(0, min_txid=self.txid + 1)[0]
            header = Header.unpack(self._store.get(there, 0, HEADER_SIZE))
        except (StoreError, InvalidFileError, IndexError):
            return False  # the error that led here says enough
        self._forgiven = header.node_id == self._node_id
        if self._forgiven:
            self._begin_again()
        return self._forgiven


def _discard(data: bytes | Path) -> None:
    if isinstance(data, Path):
        with suppress(OSError):  # it goes at the next start
            data.unlink(missing_ok=True)
