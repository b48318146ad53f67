"""Capture: from a live database to increments, and to views where increments are missing.

Three things are kept in step, all owned by the capture thread:

* the *tail*: which frames of the WAL have been read (``tail.py``);
* ``pending``: the newest page of each number among frames read since the last flush;
* the *table*: checksums of all pages at the last flush (``table.py``).

    Invariant: table + pending = the database at the tail's position, a commit boundary.

A flush turns pending into an increment whose header carries the database checksum before
and after. Pages past the commit size are dropped, and every page by which the database
grew must be there: SQLite does not promise to write a page that was allocated and freed at
once, so missing ones are read like SQLite would. When continuity is unknown (first start, a
restart, a replaced file) ``attach`` reads the database once and begins a new table; what a
replica then lacks is found by comparing tables, not by sending everything.

Memory: pending is bounded by ``buffer_size``. A transaction larger than that is never held
as pages: its increment is encoded straight from the WAL to a file.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlitereplica.capture.increment import Increment, State, write_ltx
from sqlitereplica.capture.limits import CheckpointLimits
from sqlitereplica.capture.table import Changes, PageTable, sums_of
from sqlitereplica.capture.tail import ContinuityLostError, WalTail
from sqlitereplica.capture.tally import Checkpoints
from sqlitereplica.capture.view import View, wal_map
from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.ltx import lock_pgno, page_checksum, page_checksums
from sqlitereplica.sqlite import (
    Connect,
    SourceDatabase,
    WalIndex,
    last_frames,
    split,
)

__all__ = ["Capture", "Emit"]

Emit = Callable[[Increment, Changes], None]
"""Takes an increment and the page checksums that it changes."""

_READ_BYTES = 4 << 20
_CHECK_EVERY = 1.0


def milliseconds_after(nanoseconds: int) -> int:
    """A time of day in milliseconds, rounded up.

    What was committed by then is then never given by a restore before an earlier time.
    """
    return -(-nanoseconds // 1_000_000)


class Capture:
    """Captures one database. Belongs to one thread, which attaches, steps and detaches."""

    def __init__(
        self,
        path: str,
        connect: Connect,
        *,
        copy: str,
        emit: Emit,
        spool: Path,
        set_wal: bool = True,
        buffer_size: int = 8 << 20,
        node_id: int = 0,
        limits: CheckpointLimits | None = None,
        now_ms: Callable[[], int] = lambda: milliseconds_after(time.time_ns()),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._connect, self._copy, self._set_wal = connect, copy, set_wal
        self._emit = emit
        self._spool = spool
        self._buffer_size = buffer_size
        self.node_id = node_id
        self._limits = limits
        self._now_ms, self._clock, self._sleep = now_ms, clock, sleep
        self.checkpoints = Checkpoints(clock)
        self._source: SourceDatabase | None = None
        self._tail: WalTail | None = None
        self._scan: _Scan | None = None
        self._checked_at = 0.0
        self.seq = 0
        self.last_timestamp = 0
        self.pending: dict[int, bytes] = {}
        self.pending_since: float | None = None
        self.commit = 0
        self.table = PageTable(512)

    # -- attach and detach -----------------------------------------------------------

    @property
    def attached(self) -> bool:
        """True from the end of an attach to ``detach``."""
        return self._tail is not None and self._scan is None

    @property
    def attaching(self) -> bool:
        """True between ``begin`` and the end of the attach."""
        return self._scan is not None

    def attach(self) -> None:
        """Open the database, pin its WAL and read it once for the page table.

        Raises:
            DatabaseStateError: see ``SourceDatabase``; nothing is left open.
        """
        self.begin()
        while not self.read_on():
            pass

    def begin(self) -> None:
        """Begin an attach that ``read_on`` carries on, a bit at a time.

        Raises:
            DatabaseStateError: as ``attach``.
        """
        source = SourceDatabase(
            self.path, self._connect, copy=self._copy, set_wal=self._set_wal
        )
        try:
            tail = WalTail(
                source,
                self._take_frames,
                limits=self._limits,
                checkpoints=self.checkpoints,
                clock=self._clock,
                sleep=self._sleep,
            )
            index = tail.begin_index
            scan = _Scan(View(source, index, index.n_page or source.db_pages()))
        except BaseException:
            source.close()
            raise
        self._source, self._tail, self._scan = source, tail, scan

    def read_on(self) -> bool:
        """Read some more pages for the table of an attach; True when it is complete.

        Raises:
            DatabaseStateError: as ``attach``.
        """
        assert self._scan is not None, "begin comes first"
        try:
            table = self._scan.advance()
        except BaseException:
            self.detach()
            raise
        if table is None:
            return False
        self._end_scan()
        self.table, self.commit = table, table.commit
        self._forget_pending()
        # The scan begins a line of states of its own: no increment leads to it.
        self.seq += 1
        self._checked_at = self._clock()
        return True

    def detach(self) -> None:
        """Let go of the database."""
        if self._tail is not None:
            self._tail.abandon()
        self._end_scan()
        source, self._source, self._tail = self._source, None, None
        self._forget_pending()
        if source is not None:
            source.close()

    def _end_scan(self) -> None:
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.view.release()

    def _forget_pending(self) -> None:
        self.pending = {}
        self.pending_since = None

    # -- the WAL ---------------------------------------------------------------------

    def step(self) -> int:
        """Look once at the WAL and do what is due; returns the number of new frames.

        Raises:
            DatabaseStateError: continuity is lost; ``detach`` and ``attach`` again.
        """
        source, tail = self._parts()
        # Before the WAL: what is in it may be another file's from the move on.
        source.check_place()
        before = tail.captured
        tail.step()
        due = self._clock() - self._checked_at >= _CHECK_EVERY
        if due or self._parts()[0].tripped:
            self._checked_at = self._clock()
            self.check()
        return tail.captured - before

    def check(self) -> None:
        """Look whether the database is still the one attached, and ours alone.

        Raises:
            DatabaseStateError: replaced, its WAL lost, or another copy of SQLite on it.
        """
        source = self._parts()[0]
        source.check()
        source.check_copies(max_age=_CHECK_EVERY / 2)

    def catch_up(self) -> None:
        """Capture everything that is committed at this moment."""
        self._parts()[1].step()

    @property
    def viewing(self) -> bool:
        """True while a view holds the WAL."""
        return self._tail is not None and self._tail.viewing

    def _take_frames(self, index: WalIndex, first: int) -> None:
        source = self._parts()[0]
        page_size = source.page_size
        if index.page_size != page_size:
            raise DatabaseStateError(
                f"{self.path} changed its page size", path=self.path, kind="replaced"
            )
        need = (index.mx_frame - first + 1) * page_size
        if self.pending and need + len(self.pending) * page_size > self._buffer_size:
            self.flush()
        if need > self._buffer_size:
            self._take_large(index, first)
            return
        taken: dict[int, bytes] = {}
        at_once = max(1, _READ_BYTES // page_size)
        for start, count in split(first, index.mx_frame, at_once):
            buffer = source.read_wal(start, count)
            newest = last_frames(buffer, page_size, index, start)
            # Copies, not views: a view would keep the whole read alive.
            taken.update((p, buffer[at : at + page_size]) for p, at in newest.items())
        self.pending.update(taken)
        self.commit = index.n_page
        if self.pending_since is None:
            self.pending_since = self._clock()

    def _take_large(self, index: WalIndex, first: int) -> None:
        """Encode frames too many for memory from the WAL; they are one increment."""
        source = self._parts()[0]
        frames = wal_map(source, index, first)
        commit = self.commit = index.n_page
        pgnos = sorted(p for p in frames if p <= commit)
        missing = self._missing(commit, frames)
        extra = dict(self._read_like_sqlite(missing, index, index.mx_frame))
        pgnos = sorted([*pgnos, *extra])

        def page(pgno: int) -> bytes:
            found = extra.get(pgno)
            return source.read_wal_page(frames[pgno]) if found is None else found

        changes = [(p, page_checksum(p, page(p))) for p in pgnos]
        increment = self._advance(commit, changes, pgnos)
        path = self._spool / f"{increment.state.seq:016x}.ltx"
        header = increment.header(increment.state.seq)

        def pages() -> Iterator[tuple[int, bytes]]:
            for pgno, known in changes:
                data = page(pgno)
                if page_checksum(pgno, data) != known:
                    raise ContinuityLostError(self.path, "frames changed while read")
                yield pgno, data

        try:
            write_ltx(path, header, pages())
        except OSError:
            # No room for it: the increment goes on without a body, and each replica
            # is brought up by a delta instead. Nothing is lost.
            path.unlink(missing_ok=True)
        else:
            increment.adopt(path)
        self._emit(increment, changes)

    # -- increments ------------------------------------------------------------------

    def flush(self) -> None:
        """Emit what is pending as one increment; nothing happens when nothing is."""
        if not self.pending:
            return
        commit, pages = self.commit, self.pending
        lock = lock_pgno(self.table.page_size)
        pages = {p: b for p, b in pages.items() if p <= commit and p != lock}
        missing = self._missing(commit, pages)
        if missing:
            tail = self._parts()[1]
            index = self._parts()[0].header()
            pages.update(self._read_like_sqlite(missing, index, tail.frame))
        self._forget_pending()  # not before: reading may fail and be tried again
        changes = sums_of(pages.items(), lock)
        increment = self._advance(commit, changes, sorted(pages))
        increment.body = pages
        self._emit(increment, changes)

    def _advance(self, commit: int, changes: Changes, pgnos: list[int]) -> Increment:
        """Move the table on and describe the step, without a body yet."""
        pre_checksum = self.table.checksum
        self.table.apply(commit, changes)
        self.seq += 1
        return Increment(self.state(), pre_checksum, tuple(pgnos), None)

    def state(self) -> State:
        """The state at the last flush, stamped now."""
        self.last_timestamp = max(self.last_timestamp, self._now_ms())
        return State(
            seq=self.seq,
            timestamp=self.last_timestamp,
            page_size=self.table.page_size,
            commit=self.table.commit,
            checksum=self.table.checksum,
            node_id=self.node_id,
        )

    def _missing(
        self, commit: int, have: dict[int, bytes] | dict[int, int]
    ) -> list[int]:
        lock = lock_pgno(self.table.page_size)
        grown = range(self.table.commit + 1, commit + 1)
        return [p for p in grown if p not in have and p != lock]

    def _read_like_sqlite(
        self, pgnos: list[int], index: WalIndex, last: int
    ) -> list[tuple[int, bytes]]:
        """Pages as a reader finds them: the newest frame not backfilled, else the file."""
        if not pgnos:
            return []
        source, tail = self._parts()
        frames: dict[int, int] = {}
        if index.salts == tail.salts and last > index.n_backfill:
            upto = index._replace(mx_frame=last)
            if last != index.mx_frame:
                upto = upto._replace(frame_checksum=source.frame_checksum(last))
            frames = wal_map(source, upto, index.n_backfill + 1)
        return [
            (
                p,
                source.read_wal_page(frames[p])
                if p in frames
                else source.read_db(p, 1),
            )
            for p in pgnos
        ]

    # -- views -----------------------------------------------------------------------

    def view(self, *, flush: bool = True) -> View:
        """Flush, and pin the state that the table then describes.

        Without ``flush`` the table may be behind the state that is pinned.

        Raises:
            SourceBusyError: try again later.
            DatabaseStateError: continuity is lost.
        """
        view = self._parts()[1].view(lambda: self.commit)
        try:
            if flush:
                self.flush()
        except BaseException:
            view.release()
            raise
        return view

    @property
    def checkpoint_error(self) -> DatabaseStateError | None:
        """Why checkpoints of ours fail at present; None when they do not."""
        return self._tail.checkpoint_error if self._tail else None

    @property
    def frame(self) -> int:
        """The last frame of the WAL that was captured; 0 at its beginning."""
        return self._tail.frame if self._tail else 0

    def metrics(self) -> tuple[int, int, int]:
        """(WAL resets, forced checkpoints, most frames seen in the WAL)."""
        tail = self._tail
        return (tail.resets, tail.forced, tail.peak_frames) if tail else (0, 0, 0)

    def _parts(self) -> tuple[SourceDatabase, WalTail]:
        if self._source is None or self._tail is None:
            raise RuntimeError("capture is not attached")
        return self._source, self._tail


class _Scan:
    """Reads every page once and makes the table, some pages at a time."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._sums = array("Q", bytes(8 * view.commit))
        self._runs = view.runs(range(1, view.commit + 1))

    def advance(self) -> PageTable | None:
        """Read a few hundred KiB; the table when there is nothing left to read."""
        for first, run in self._runs:
            self._sums[first - 1 : first - 1 + len(run)] = page_checksums(first, run)
            return None
        return PageTable(self.view.page_size, self._sums)
