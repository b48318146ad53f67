"""What exists between ``start`` and ``stop``: engine, workers, histories and their threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError

from sqlitereplica.errors import (
    PosMismatchError,
    SyncTimeoutError,
)
from sqlitereplica.events import Event
from sqlitereplica.replicate.assembly import assemble
from sqlitereplica.replicate.bookmark import Position
from sqlitereplica.replicate.calls import Call, Pending
from sqlitereplica.replicate.desk import desk
from sqlitereplica.replicate.driver import WorkerThread, driver
from sqlitereplica.replicate.housekeeper import housekeeper
from sqlitereplica.replicate.metafolder import MetaFolder
from sqlitereplica.replicate.options import Options
from sqlitereplica.replicate.pinning import pin_everywhere
from sqlitereplica.replicate.pulse import Pulse
from sqlitereplica.replicate.status import Status
from sqlitereplica.replicate.tickets import ALL, Ticket
from sqlitereplica.replicate.turn import Turn
from sqlitereplica.sqlite import is_ready
from sqlitereplica.sqlite.hazards import Guard, guard_path, unguard
from sqlitereplica.store import Pin

__all__ = ["Running"]

_COMPACT_TIMEOUT = 30.0


class Running:
    """A Replicator that was elected: it replicates, for its peers as well.

    ``meta`` is locked; ``end``, to be called once, unlocks it.
    """

    def __init__(self, options: Options, copy: str, meta: MetaFolder) -> None:
        """Make everything; ``begin`` sets it going. ``copy`` names the copy of SQLite."""
        self.options, self.meta = options, meta
        self._phase = threading.Lock()
        self._going = threading.Event()
        """Set when it replicates, and when it never will."""
        self._is_going = self._is_ended = False
        self._deadline = 0.0
        self._turn = Turn.of(options, copy, meta, self._go)
        self.leasing = None if self._turn is None else self._turn.leasing
        if self.leasing is not None:
            self.leasing.wake_workers = self._wake_workers
        made = assemble(options, copy, meta, self.leasing)
        self.engine, self.lines, self.mirrors = made
        self._threads = [WorkerThread(worker) for worker in self.engine.workers]
        self.engine.wake_workers = self._wake_workers
        gauges = getattr(options.observer, "gauges", False)
        self._pulse = Pulse(self._tell_status) if gauges else None
        self._guard: Guard | None = guard_path(options.path, copy)

    def _wake_workers(self) -> None:
        for thread in self._threads:
            thread.wake()

    # -- begin and end ---------------------------------------------------------------

    def begin(self) -> None:
        """Start the threads; with a lease those that replicate once it is held."""
        if self._turn is None:
            self._go()
        else:
            self._turn.begin()
        desk().add(self)

    def _go(self) -> None:
        """Begin to replicate, unless it is over."""
        with self._phase:
            if self._is_ended:
                return
            for thread in self._threads:
                thread.start()
            housekeeper().add(line.history for line in self.lines)
            driver().add(self.engine)
            self._is_going = True
            self._going.set()
            if self._pulse is not None:
                self._pulse.start()

    def end(self, timeout: float) -> None:
        """Stop the threads and let the database go; waits up to ``timeout`` seconds.

        A thread that a store keeps longer ends later; so does the lock of the metadata
        folder, for what was being put may still arrive.
        """
        self._deadline = deadline = time.monotonic() + timeout
        if self._pulse is not None:
            self._pulse.stop()
        desk().remove(self)  # first: no peer is to be told that we stop
        with self._phase:
            self._is_ended = True
            self._going.set()
        if self._turn is not None:
            self._turn.end(max(0.1, timeout))
        jobs = housekeeper().remove([line.history for line in self.lines])
        try:
            if self._is_going:
                driver().remove(self.engine).result()
            else:
                self.engine.close()
        finally:
            self._end(jobs, deadline)

    def _end(self, jobs: Sequence[threading.Thread], deadline: float) -> None:
        if self._guard is not None:
            unguard(self._guard)
        for thread in self._threads:
            thread.stop(max(0.1, deadline - time.monotonic()))
        for job in jobs:
            job.join(max(0.1, deadline - time.monotonic()))
        threads: list[WorkerThread | threading.Thread] = [*self._threads, *jobs]
        threads += [] if self._turn is None else [self._turn.thread]
        waiting = [thread.join for thread in threads if thread.is_alive()]
        if waiting:
            threading.Thread(
                target=self._close_after,
                args=(waiting,),
                name="sqlitereplica-stop",
                daemon=True,
            ).start()
        else:
            self._close()

    def _close_after(self, waiting: Sequence[Callable[[], None]]) -> None:
        for wait in waiting:
            wait()
        self._close()

    def _close(self) -> None:
        for line in self.lines:
            line.close()
        if self.leasing is not None:
            # Only now: nothing of ours is on its way any more.
            self.leasing.end(max(1.0, self._deadline - time.monotonic()))
        self.meta.close()

    # -- calls, see ``Replicator`` ---------------------------------------------------

    def submit(self, call: Call) -> Pending:
        """Begin a call."""
        return call.begin(self)

    def sync(
        self,
        timeout: float | None,
        need: int | None = None,
        position: Position | None = None,
    ) -> Pending:
        """Begin to wait for a position, or for what is committed now.

        Raises:
            PosMismatchError: the position is not of this database.
            LeaseHeldError: another host replicates.
        """
        leasing = self.leasing
        if not self._is_going and leasing is not None and leasing.is_waiting():
            raise leasing.held_by_another()
        # Otherwise it may be ours in a moment, as after a takeover on this host.
        if position is not None and position.node != self.engine.looks.node:
            raise PosMismatchError(
                f"the position {position} is not of {self.options.path}, or its metadata"
                " folder was deleted since: whether it is durable is not known",
                kind="position",
            )
        need = ALL if need is None or need >= len(self.engine.workers) else need
        ticket = self.engine.wait_for(position, timeout, need)
        driver().wake(self.engine)
        future = ticket.futures[need]
        return Pending(future, timeout, lambda: self._expire(ticket, timeout))

    @property
    def has_nothing_to_flush(self) -> bool:
        """Whether nothing was committed here that another host does not have."""
        if self._is_going or self.leasing is None or not self.options.standby:
            return False
        return not self.leasing.is_known_to_be_ours()

    def wait_turn(self, timeout: float | None) -> None:
        """Return when this host replicates; at once without a lease.

        Where there is no database yet that is when it may be made.
        """
        turn, leasing = self._turn, self.leasing
        if turn is None or leasing is None:
            return
        end = None if timeout is None else time.monotonic() + timeout
        self._going.wait(timeout)
        if not self._is_going:
            raise turn.not_yet(timeout, None)
        if not is_ready(self.options.path):
            return
        left = None if end is None else max(0.0, end - time.monotonic())
        try:
            leasing.entry.result(left)
        except FutureTimeoutError as late:
            if not leasing.entry.done():
                error = self.lines[0].worker.health.error
                raise turn.not_yet(timeout, error) from late
            leasing.entry.result()

    def position(self) -> Position:
        """Everything that is committed now."""
        return self.engine.looks.position()

    def _expire(self, ticket: Ticket, timeout: float | None) -> None:
        engine = self.engine
        seq = engine.capture.seq if ticket.seq is None else ticket.seq
        behind = [w for w in engine.workers if w.acked < seq] or engine.workers
        cause = next((w.health.error for w in behind if w.health.error), engine.error)
        raise SyncTimeoutError(
            timeout or 0.0,
            pending=tuple(w.name for w in behind),
            cause=str(cause) if cause else None,
        ) from cause

    def snapshot(self, timeout: float | None) -> None:
        """Make a snapshot of what is committed now in every replica."""
        end = None if timeout is None else time.monotonic() + timeout
        self.sync(timeout).wait()
        asked = [(line, line.request_snapshot()) for line in self.lines]
        housekeeper().wake()
        for line, future in asked:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                future.result(left)
            except FutureTimeoutError:
                cause = line.history.error or line.worker.health.error
                raise SyncTimeoutError(
                    timeout or 0.0,
                    pending=(line.worker.name,),
                    cause=str(cause) if cause else None,
                ) from cause

    def compact(self) -> None:
        """Merge what waits at every level."""
        self.sync(_COMPACT_TIMEOUT).wait()
        for line in self.lines:
            line.compact()

    def pin(self, name: str, timeout: float | None) -> tuple[Pin, ...]:
        """Pin what is committed now in every replica, or in none."""
        self.sync(timeout).wait()
        workers = [line.worker for line in self.lines]
        return pin_everywhere(name, self.options.replicas, workers)

    def next_tending(self) -> int | None:
        """When history has something to do if nothing is committed any more; see ``Line``."""
        times = [line.next_tending() for line in self.lines]
        return min((time for time in times if time is not None), default=None)

    # -- status ----------------------------------------------------------------------

    def _tell_status(self) -> None:
        """Report how it is, for gauges."""
        table, frame = self.engine.capture.table, self.engine.capture.frame
        wal = 32 + frame * (24 + table.page_size) if frame else 0
        data = {
            "status": self.status(),
            "database_bytes": table.commit * table.page_size,
            "wal_bytes": wal,
            "level0": [f for line in self.lines if (f := line.retention.level0())],
        }
        path, observe = self.options.path, self.options.observer
        observe(Event(action="status", database=path, data=data))

    def status(self) -> Status:
        """What is going on."""
        engine, turn = self.engine, self._turn
        replicas = (
            *(line.status() for line in self.lines),
            *(mirror.status() for mirror in self.mirrors),
        )
        state, error = engine.state, engine.error
        txid = max(r.txid for r in replicas)
        if turn is not None and not self._is_going:
            state, error, txid = "standby", turn.follow_error, turn.txid
        return Status(
            database=self.options.path,
            state=state,
            txid=txid,
            error=None if error is None else str(error),
            pending_pages=len(engine.capture.pending),
            replicas=replicas,
            pid=os.getpid(),
            lease=None if self.leasing is None else self.leasing.status(),
        )
