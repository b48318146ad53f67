"""Keeping a mirror current: pages from capture, straight into its file.

A mirror is brought up like any replica (``worker.py``, whose phases these are): what its
file holds is compared, page by page, with the database, and the difference is applied as one
change; from then on each increment is. The increments are those of the stores, so nothing is
captured twice. A change is atomic for readers and synced when it is confirmed
(``restore/livefile.py``).

Readers of the file may be in the way. That is no failure until it has lasted for a second;
then it shows like one, so that nobody who waits for other replicas waits for this one first.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from sqlitereplica.capture import (
    Increment,
    PageTable,
    State,
)
from sqlitereplica.errors import DatabaseStateError, StoreError, TargetExistsError
from sqlitereplica.events import Observer
from sqlitereplica.replicate.anyworker import AnyWorker, Coordinator, Phase
from sqlitereplica.replicate.delta import Delta, DeltaRequest, proved, reading
from sqlitereplica.replicate.metafolder import (
    MetaFolder,
    default_folder,
    folder_mode,
)
from sqlitereplica.replicate.mirror import Mirror, dated_files, outdated
from sqlitereplica.replicate.spool import Spool
from sqlitereplica.replicate.status import ReplicaStatus
from sqlitereplica.restore.held import Goal, HeldFile
from sqlitereplica.restore.livefile import LiveFile
from sqlitereplica.restore.newfile import create_live
from sqlitereplica.restore.pages import Gathered
from sqlitereplica.restore.target import Scratch
from sqlitereplica.sqlite import Connect, SourceBusyError, copy_of
from sqlitereplica.sqlite.hazards import plain_factory

__all__ = ["MirrorWorker"]

_BUSY_PAUSE = 0.1
_BLOCKED_FOR = 1.0
_LOOK_EVERY = 10.0
_PATIENCE = 0.04
"""Seconds; capture calls SQLite in this process, too, and waits that long at most."""


class MirrorWorker(AnyWorker):
    """Keeps one mirror current."""

    def __init__(
        self,
        mirror: Mirror,
        connect: Connect,
        *,
        database: str,
        spool: Spool,
        coordinator: Coordinator,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """``connect`` is the Replicator's."""
        super().__init__(
            mirror.display_name,
            database=database,
            spool=spool,
            coordinator=coordinator,
            observer=observer,
            clock=clock,
            now=now,
            rng=rng,
        )
        self._mirror = mirror
        self._connect = mirror.connect or plain_factory(connect)
        self._copy = copy_of(self._connect)
        self._database = database
        self._path = ""
        self._meta: MetaFolder | None = None
        self._file: LiveFile | None = None
        self._ready: tuple[Gathered, State] | None = None
        self._whole = False
        """What is ready makes the file anew, whatever is in it."""
        self._blocked_since: float | None = None

    # -- called by others ------------------------------------------------------------

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        if self._blocked_since is not None:
            return _BUSY_PAUSE
        return super().pause or (_LOOK_EVERY if self._mirror.is_dated else 0.0)

    def close(self) -> None:
        """Let the file go, in the thread that used it; no ``advance`` follows."""
        super().close()
        self._let_go()

    # -- one unit of work ------------------------------------------------------------

    def _is_due(self) -> bool:
        return self._blocked_since is not None or not super().pause

    def _act(self) -> bool:
        try:
            if self._ready is not None:
                return self._apply(*self._ready)
            match self.phase:
                case Phase.CONNECT:
                    return self._open()
                case Phase.COMPARE:
                    return self._compare()
                case _:
                    return self._stream()
        except SourceBusyError as error:
            self._blocked(error)
            return False

    # -- the file --------------------------------------------------------------------

    def _open(self) -> bool:
        """Open the file of the present, if there is one."""
        path = self._mirror.path_at(self._now())
        if path != self._path or (self._file and not self._file.is_there()):
            self._let_go()
        if self._meta is None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._meta, self._path = MetaFolder.locked(default_folder(path), path), path
        if self._file is None and os.path.exists(path) and os.path.getsize(path):
            self._file = self._open_file(path)
        file = self._file
        if file is not None and not file.is_as_held() and not self._mirror.overwrite:
            raise DatabaseStateError(
                f"{path} was written to by somebody else: what they wrote would be lost."
                " Move it away, or pass Mirror(path, overwrite=True)",
                path=path,
                kind="written",
            )
        self.phase = Phase.COMPARE
        return True

    def _open_file(self, path: str) -> LiveFile:
        overwrite, notes = self._mirror.overwrite, self._notes
        if not overwrite and not notes.exists():
            raise TargetExistsError(
                path,
                f"{path} exists and is no mirror: choose another path, or pass"
                " Mirror(path, overwrite=True) to have it replaced",
            )
        return LiveFile(
            path,
            self._connect,
            HeldFile(notes),
            copy=self._copy,
            reclaim=overwrite,
            patience=_PATIENCE,
        )

    @property
    def _notes(self) -> Path:
        assert self._meta is not None
        return self._meta.path / "held"

    def _let_go(self) -> None:
        """Close the file; what is left of it is a plain database."""
        with ExitStack() as stack:
            if self._meta is not None:
                stack.callback(self._meta.close)
            if self._file is not None:
                stack.callback(self._file.close)
            self._file = self._meta = None
            self._path = ""

    # -- comparing -------------------------------------------------------------------

    def _compare(self) -> bool:
        request = self._request
        if request is None:
            table = self._table()
            self._whole = table is None
            self._request = DeltaRequest(replica=self.name, base=table)
            self._coordinator.request(self._request)
            return True
        if not request.answered.is_set():
            return False
        self._request = None
        assert request.answer is not None
        delta = request.answer
        if delta.view is None:
            self._in_step(delta.state)
            return True
        with delta:
            if self._file is not None:
                self._ready = self._difference(delta), delta.state
                self.phase = Phase.CATCH_UP
                return self._apply(*self._ready)
            self._create(delta)
        self._whole = False
        self._in_step(delta.state)
        return True

    def _table(self) -> PageTable | None:
        """What the file holds; None for a file whose state is unknown, or none."""
        file = self._file
        if file is None or file.held is None or not file.is_as_held():
            return None
        return PageTable(file.held.page_size, file.page_sums())

    def _difference(self, delta: Delta) -> Gathered:
        state = delta.state
        self._report("delta", pages=len(delta.pgnos), txid=self._next_txid())
        with ExitStack() as stack:
            pages = stack.enter_context(self._gathered(state))
            with reading(delta):
                kept = ((pgno, bytes(page)) for pgno, page in proved(delta))
                pages.add(kept, state.commit)
            stack.pop_all()
            return pages

    def _create(self, delta: Delta) -> None:
        """Make the file of all pages, beside its name first."""

        def make(scratch: Scratch) -> Goal:
            size = delta.state.page_size
            with reading(delta):
                for pgno, page in proved(delta):
                    scratch.write((pgno - 1) * size, [bytes(page)])
            return self._goal(delta.state)

        self._report("delta", pages=len(delta.pgnos), txid=1)
        # Whoever may not read the database may not read its mirror.
        mode = folder_mode(self._database) & 0o666
        create_live(self._path, HeldFile(self._notes), make, mode=mode)
        self._file = self._open_file(self._path)
        self._expire()

    def _in_step(self, state: State) -> None:
        assert self._file is not None
        assert self._file.held is not None
        self.txid = self._file.held.txid
        self._line = state.seq, self.txid - state.seq
        self.phase = Phase.STREAM
        self._confirm(state.seq)

    # -- streaming -------------------------------------------------------------------

    def _stream(self) -> bool:
        if self._mirror.is_dated and self._roll_over():
            return True
        increment = self._spool.next(self.name)
        if increment is None:
            return False
        pages = self._pages_of(increment)
        if pages is None:
            return False  # it lost its place just now; ``fall_behind`` is under way
        self._ready = pages, increment.state
        return self._apply(*self._ready)

    def _pages_of(self, increment: Increment) -> Gathered | None:
        with ExitStack() as stack:
            pages = stack.enter_context(self._gathered(increment.state))
            with increment.pages() as found:
                if found is None:
                    return None
                pages.add(found, increment.state.commit)
            stack.pop_all()
            return pages

    def _apply(self, pages: Gathered, state: State) -> bool:
        """Bring the file to a state; the pages stay ready while readers are in the way."""
        file = self._file
        assert file is not None
        try:
            if self._whole:
                file.replace(pages, self._goal(state))
            else:
                file.apply(pages, self._goal(state))
        except SourceBusyError:
            raise
        except BaseException:
            self._drop_ready()
            raise
        self._blocked_since, self._whole = None, False
        self._drop_ready()
        if self.phase is Phase.CATCH_UP:
            self._in_step(state)
            return True
        assert file.held is not None
        self.txid = file.held.txid
        self._spool.done(self.name, state.seq)
        self._confirm(state.seq)
        return True

    def _gathered(self, state: State) -> Gathered:
        return Gathered(state.page_size, folder=os.path.dirname(self._path))

    def _goal(self, state: State) -> Goal:
        return Goal(
            txid=self._next_txid(),
            timestamp=state.timestamp,
            page_size=state.page_size,
            commit=state.commit,
            checksum=state.checksum,
        )

    def _next_txid(self) -> int:
        held = None if self._file is None else self._file.held
        return 1 if held is None else held.txid + 1

    def _confirm(self, seq: int) -> None:
        super()._confirm(seq)
        self._report("upload", txid=self.txid)

    # -- a dated path ----------------------------------------------------------------

    def _roll_over(self) -> bool:
        """Leave the file as it is when its time is over; the next one is begun."""
        if self._mirror.path_at(self._now()) == self._path:
            return False
        finished = self._path
        self._begin_again()
        self._let_go()
        shutil.rmtree(default_folder(finished), ignore_errors=True)
        self._report("mirror-finished", level=20, path=finished)
        return True

    def _expire(self) -> None:
        """Delete dated files that nobody wants any more."""
        mirror = self._mirror
        if not mirror.is_dated or mirror.keep is None:
            return
        now = datetime.fromtimestamp(self._now(), UTC)
        files = dated_files(mirror.pattern)
        for path in outdated(files, mirror.keep, current=self._path, now=now):
            for suffix in ("", "-journal"):
                Path(path + suffix).unlink(missing_ok=True)
            shutil.rmtree(default_folder(path), ignore_errors=True)
            self._report("mirror-deleted", level=20, path=path)

    # -- failure ---------------------------------------------------------------------

    def _blocked(self, error: SourceBusyError) -> None:
        now = self._clock()
        if self._blocked_since is None:
            self._blocked_since = now
        if now - self._blocked_since < _BLOCKED_FOR or self.health.error is not None:
            return
        failure = StoreError(
            f"{self._path}: a reader keeps it from being changed: {error}",
            operation="put",
            key=self._path,
            kind="busy",
        )
        failure.__cause__ = error
        self.health.failed(failure, now, self._rng())
        self._report("replica-error", level=30, error=failure)
        self._coordinator.progressed()

    def fail(self, error: Exception) -> None:
        """Note a failure of ``advance``; the next call tries again after a pause."""
        if isinstance(error, OSError) and not isinstance(error, TargetExistsError):
            failure = StoreError(
                f"{self._path or self.name} cannot be written: {error}",
                operation="put",
                key=self._path,
            )
            failure.__cause__ = error
            error = failure
        self.health.failed(error, self._clock(), self._rng())
        self._report("replica-error", level=30, error=error)
        if self.phase is not Phase.STREAM or not isinstance(error, StoreError):
            self._begin_again()
        self._coordinator.progressed()

    def _begin_again(self) -> None:
        super()._begin_again()
        self._drop_ready()
        self._blocked_since = None

    def _drop_ready(self) -> None:
        if self._ready is not None:
            pages, self._ready = self._ready[0], None
            pages.close()

    # -- status ----------------------------------------------------------------------

    def status(self) -> ReplicaStatus:
        """How it fares."""
        waiting, size, oldest = self._spool.backlog(self.name)
        last, lag = self.health.last_success, 0.0
        if waiting and oldest is not None:
            lag = max(0.0, self._now() - oldest / 1000)
        elif self.phase is not Phase.STREAM and last is not None:
            lag = max(0.0, self._now() - last)
        error = self.health.error
        return ReplicaStatus(
            name=self.name,
            state=self.phase.value,
            txid=self.txid,
            lag_seconds=lag,
            last_success=None if last is None else datetime.fromtimestamp(last, UTC),
            error=None if error is None else str(error),
            spool_bytes=size,
        )
