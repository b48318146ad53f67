"""One database: capture on one side, its replicas on the other, tickets between them.

``step`` belongs to the driver's thread and never waits for a store. It attaches when there
is a database, looks at the WAL, makes an increment when one is due (``sync_interval`` after
its first page; for a ``sync()`` as soon as the uploads of the last one are done; earlier for
a full buffer), answers the workers' requests for deltas, and says when it wants to be called
again. When capture loses the database (replaced, WAL gone, locks dropped) it lets go and
attaches anew; every replica then compares, and nothing is assumed.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from sqlitereplica.capture import (
    Capture,
    Changes,
    ContinuityLostError,
    Increment,
    TableFile,
)
from sqlitereplica.errors import (
    DatabaseStateError,
    MixedSQLiteCopiesError,
    ReplicatorClosedError,
)
from sqlitereplica.events import Observer, Reporter
from sqlitereplica.replicate.anyworker import AnyWorker, Phase
from sqlitereplica.replicate.bookmark import Looks
from sqlitereplica.replicate.bookmark import Position as CommitPosition
from sqlitereplica.replicate.delta import Delta, DeltaRequest
from sqlitereplica.replicate.position import Position
from sqlitereplica.replicate.spool import Spool
from sqlitereplica.replicate.tickets import ALL, Ticket, Tickets
from sqlitereplica.sqlite import SourceBusyError, is_ready

__all__ = ["Engine", "Pace"]

_ATTACH_PAUSE = (0.05, 5.0)
_BUSY_FOR = 3.0
_TABLE_PAUSE = 10.0
_MOST_BEHIND = 4
_SCAN_SLICE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the WAL is looked at, in seconds."""

    active: float = 0.002
    """While many frames come: ``many`` in one look."""
    brisk: float = 0.02
    """While there are some; an application may wait that long for a checkpoint."""
    idle: float = 0.05
    """Once nothing happened for ``calm`` seconds."""
    rest: float = 0.2
    """Once nothing happened for ``long`` seconds."""
    absent: float = 0.1
    """While there is no database."""
    many: int = 20
    calm: float = 0.2
    long: float = 2.0


def _pace_for(sync_interval: float) -> Pace:
    """A quarter of the interval at most, so that noticing adds little to it."""
    most = sync_interval / 4
    return Pace(
        brisk=min(Pace().brisk, most),
        idle=min(Pace().idle, most),
        rest=min(Pace().rest, most),
    )


class Engine:
    """Steps one database. ``workers`` are filled in by who makes them."""

    def __init__(
        self,
        capture: Capture,
        spool: Spool,
        tables: TableFile,
        *,
        sync_interval: float,
        observer: Observer,
        wake: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        self.capture, self.spool, self.tables = capture, spool, tables
        self.workers: Sequence[AnyWorker] = ()
        self.wake_workers: Callable[[], None] = lambda: None
        self.tickets = Tickets()
        self.looks = Looks(capture.node_id)
        self.error: Exception | None = None
        self.state = "attaching"
        self._sync_interval = sync_interval
        self._report = Reporter(observer, capture.path)
        self._wake, self._clock = wake, clock
        self._is_detailed = bool(getattr(observer, "detailed", False))
        self._pace = pace or _pace_for(sync_interval)
        self._requests: deque[DeltaRequest] = deque()
        self._active_at = clock()
        self._attach_at, self._attach_delay, self._attached_at = 0.0, 0.0, 0.0
        self._doubt: ContinuityLostError | None = None
        self._busy_since: float | None = None
        self._tables_at = 0.0
        self._began = 0.0

    # -- called by other threads -----------------------------------------------------

    def request(self, request: DeltaRequest) -> None:
        """Queue a worker's request."""
        self._requests.append(request)
        self._wake()

    def doubt(self, error: ContinuityLostError) -> None:
        """A worker read what cannot be: our locks did not hold, so compare anew."""
        self._doubt = error
        self._wake()

    def progressed(self) -> None:
        """A replica confirmed something or failed: settle who waits for it."""
        self.tickets.check(self.workers, self._clock())
        if self.tickets.waiting or self.tables.wants_rewrite:
            self._wake()

    def wait_for(
        self, position: CommitPosition | None, timeout: float | None, need: int = ALL
    ) -> Ticket:
        """Wait for what was committed before a position, or before now without one."""
        now = self._clock()
        seq = None if position is None else self.looks.state_of(position)
        if seq is None:  # a capture from now on covers every position there is
            return self.tickets.take(now, timeout, need)
        ticket = self.tickets.take_captured(seq, now, timeout, need)
        self.tickets.check(self.workers, now)
        return ticket

    def urgent(self) -> bool:
        """Somebody waits in ``sync()``: failed stores are tried again soon."""
        return self.tickets.urgent

    def connected(self, position: Position) -> None:
        """A replica tells where it stands; time stamps go on from its newest."""
        capture = self.capture
        capture.last_timestamp = max(capture.last_timestamp, position.timestamp)

    # -- one step --------------------------------------------------------------------

    def step(self) -> float:
        """Do what is due; returns seconds until the next call is wanted.

        Any error is kept in ``error``, reported, and ends in a new attach.
        """
        try:
            if not self.capture.attached:
                return self._try_attach()
            return self._step()
        except SourceBusyError:
            return self._pace.active  # a lock was taken just then; nothing was lost
        except MixedSQLiteCopiesError as error:
            self.fail(error)
            self.state = "failed"
            return self._pace.calm
        except Exception as error:  # noqa: BLE001
            self.fail(error)
            return 0.0

    def _step(self) -> float:
        if self._doubt is not None:
            raise self._doubt
        ticket = self.tickets.close() if self._is_due() or self._is_free() else None
        self.looks.begin()
        self._began = self._clock()
        try:
            frames = self.capture.step()
            if ticket is not None:
                # What was committed before may be in another file by that name.
                self.capture.check()
            if ticket is not None or self._is_due():
                self.capture.flush()
        except BaseException:
            if ticket is not None:
                self.tickets.reopen(ticket)
            raise
        if not self.capture.pending:
            self.looks.captured(self.capture.seq)
        if ticket is not None:
            self.tickets.captured(ticket, self.capture.seq)
            self.progressed()
            self.wake_workers()
        self._answer_requests()
        self._tend_tables()
        self._report_checkpoints()
        return self._next(frames, ticket is not None)

    def _is_free(self) -> bool:
        """False while replicas that keep up still upload what was flushed last.

        Whoever waits meanwhile shares the next flush: uploads go one after the other, so
        each carries all commits that came during the one before, and waits do not queue.
        Who needs fewer replicas need not wait for the slowest, as long as that one is only
        a few increments behind: it has to upload each of them, too.
        """
        seq = self.capture.seq
        going = [
            w.acked
            for w in self.workers
            if w.phase is Phase.STREAM and w.health.error is None
        ]
        behind = [acked for acked in going if acked < seq]
        if not behind:
            return True
        enough = len(going) - len(behind) >= self.tickets.need
        return enough and seq - min(behind) < _MOST_BEHIND

    def _is_due(self) -> bool:
        since = self.capture.pending_since
        return since is not None and self._clock() - since >= self._sync_interval

    def _next(self, frames: int, asked: bool) -> float:
        pace, now = self._pace, self._clock()
        if frames or asked:
            self._active_at = now
        if self.tickets.waiting:
            return 0.0 if self._is_free() else pace.active
        if frames >= pace.many or self._requests:
            return pace.active
        quiet = now - self._active_at
        delay = pace.brisk
        if quiet >= pace.calm and not self.capture.viewing:
            delay = pace.idle if quiet < pace.long else pace.rest
        since = self.capture.pending_since
        if since is not None:
            delay = min(delay, max(0.0, since + self._sync_interval - now))
        return delay

    # -- attach and detach -----------------------------------------------------------

    def _try_attach(self) -> float:
        now = self._clock()
        try:
            if not self.capture.attaching:
                delay = self._begin_attach(now)
                if delay is not None:
                    return delay
            # Other databases have their turn in between: a large one is long to read.
            while not self.capture.read_on():
                if self._clock() - now >= _SCAN_SLICE:
                    return 0.0
        except SourceBusyError as error:
            return self._attach_was_busy(error)
        self.looks.captured(self.capture.seq)
        self._busy_since, self._attached_at, self._doubt = None, self._clock(), None
        self.tables.begin(self.capture.table)
        self.state, self.error = "running", None
        self._report("attach", 20, pages=self.capture.table.commit)
        return 0.0

    def _begin_attach(self, now: float) -> float | None:
        """Open the database; seconds to wait instead if it is not the time for it."""
        if self.state == "failed":
            error = self.error or RuntimeError("failed")
            self.tickets.fail(error)
            for worker in self.workers:
                worker.give_up(error)
            return self._pace.calm
        if not self._is_there():
            self.state, self._busy_since = "waiting", None
            return self._pace.absent
        if now < self._attach_at:
            return self._attach_at - now
        self.state = "attaching"
        self.looks.begin()
        self.capture.begin()
        return None

    def _is_there(self) -> bool:
        """Whether there is a database; if not, callers of ``sync()`` are served.

        Only those who came before the look: others may have made it since.
        """
        ticket = self.tickets.close()
        ready = is_ready(self.capture.path)
        if ticket is not None:
            if ready:
                self.tickets.reopen(ticket)
            else:
                self.tickets.settle(ticket)
        return ready

    def _attach_was_busy(self, error: SourceBusyError) -> float:
        now = self._clock()
        if self._busy_since is None:
            self._busy_since = now
        if now - self._busy_since < _BUSY_FOR:
            return self._pace.idle
        self._busy_since = None
        raise DatabaseStateError(
            f"{self.capture.path} has been locked for {_BUSY_FOR:g} s by another"
            " connection: one with locking_mode=EXCLUSIVE, which excludes replication"
            " (set 'PRAGMA locking_mode=NORMAL'), or one long transaction",
            path=self.capture.path,
            kind="exclusive",
        ) from error

    def fail(self, error: Exception) -> None:
        """Detach; nothing is known of the database any more. The next step attaches."""
        self.error = error
        self.state = "attaching"
        self.looks.restart()
        self._report("capture-error", 40, error=error)
        least, most = _ATTACH_PAUSE
        now = self._clock()
        if self.capture.attached and now - self._attached_at > most:
            self._attach_delay = 0.0  # all was well for a while
        self._attach_delay = min(most, max(least, 2 * self._attach_delay))
        self._attach_at = now + self._attach_delay
        try:
            self.detach()
        finally:
            self.tickets.fail(error)

    def detach(self) -> None:
        """Let the database go and take every replica out of the line."""
        try:
            self.capture.detach()
        finally:
            for worker in self.workers:  # first: who is not told would wait for ever
                worker.fall_behind(None)
            self.spool.clear()
            self.tables.close()
            self.wake_workers()

    def close(self) -> None:
        """Detach for good; in the driver's thread."""
        ended = ReplicatorClosedError(
            f"the Replicator of {self.capture.path} was stopped"
        )
        self.state = "stopped"
        try:
            if self.capture.attached:
                self._tend_tables()  # the next start is to find what every replica holds
            self.capture.detach()
        finally:
            self.tables.close()
            self.tickets.end(ended)
            for worker in self.workers:
                worker.give_up(ended)

    # -- increments and deltas -------------------------------------------------------

    def emit(self, increment: Increment, changes: Changes) -> None:
        """Take an increment from capture and pass it on."""
        state = increment.state
        self.tables.append(state.commit, state.checksum, changes)
        if self._is_detailed:
            size = len(increment.pgnos) * state.page_size
            seconds = self._clock() - self._began
            self._report("increment", seconds=seconds, bytes=size)
        for name, pgnos in self.spool.add(increment).items():
            base = self.capture.table.copy()
            base.forget(pgnos)
            self._report.of(name)("behind", 30)
            for worker in self.workers:
                if worker.name == name:
                    worker.fall_behind(base)
        self.wake_workers()

    def _answer_requests(self) -> None:
        for _ in range(len(self._requests)):
            request = self._requests[0]
            answered = request.cancelled or self._answer(request)
            # Only now: answering may raise, and the question must not get lost.
            self._requests.popleft()
            if not answered:
                self._requests.append(request)

    def _answer(self, request: DeltaRequest) -> bool:
        """Answer one request; False when it has to wait."""
        capture = self.capture
        if self.capture.viewing:
            return False
        if not request.compare:
            return self._answer_view(request)
        capture.catch_up()
        capture.flush()
        base = request.base
        was_in_step = base is not None and capture.table.is_state_of(base)
        if request.subscribe and was_in_step and not request.always:
            nothing = Delta(
                state=capture.state(), view=None, pgnos=array("I"), sums=array("Q")
            )
            return self._resolve(request, nothing)
        try:
            view = capture.view()
        except SourceBusyError:
            return False
        table = capture.table
        # Only now: with the view came what was committed meanwhile.
        pgnos = table.differs_from(base) or array("I", [1])
        delta = Delta(
            state=capture.state(),
            view=view,
            pgnos=pgnos,
            sums=table.sums_at(pgnos),
            was_in_step=was_in_step,
        )
        return self._resolve(request, delta)

    def _answer_view(self, request: DeltaRequest) -> bool:
        try:
            view = self.capture.view(flush=False)
        except SourceBusyError:
            return False
        state = self.capture.state()
        delta = Delta(state=state, view=view, pgnos=array("I"), sums=array("Q"))
        return self._resolve(request, delta)

    def _resolve(self, request: DeltaRequest, delta: Delta) -> bool:
        if request.subscribe:
            self.spool.subscribe(request.replica, delta.state.seq)
        if not request.resolve(delta):
            if request.subscribe:
                self.spool.unsubscribe(request.replica)
            if delta.view is not None:
                delta.view.release()
        self.wake_workers()
        return True

    def _report_checkpoints(self) -> None:
        """Say when checkpoints begin to fail, and in detail how many there were."""
        error = self.capture.checkpoint_error
        if (error is None) != (self.error is None):
            self.error = error
            if error is not None:
                self._report("checkpoint-error", 30, error=error)
        if self._is_detailed:
            for mode, tally in self.capture.checkpoints.take().items():
                self._report("checkpoint", mode=mode, **asdict(tally))

    def _tend_tables(self) -> None:
        """Fold the table's log into its base when every replica is past it.

        Never before: who finds no state of that checksum must be sure that there was none.
        """
        tables = self.tables
        if not tables.wants_rewrite or self._clock() < self._tables_at:
            return
        seq = self.capture.seq
        if all(w.acked == seq for w in self.workers):
            tables.rewrite(self.capture.table)
            if tables.error is not None:
                self._tables_at = self._clock() + _TABLE_PAUSE
                self._report("table-error", 30, error=tables.error)
        elif tables.must_rewrite:
            tables.forget()
