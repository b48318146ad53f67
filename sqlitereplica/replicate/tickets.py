"""What callers of ``sync()`` wait for.

Callers that come before the same capture share one ticket, so a thousand of them cost one
upload. A ticket is *captured* when everything committed before it was made is in an
increment, and done when every replica holds that state. It fails when a replica has failed,
since it was made, in a way that trying again will not cure.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from sqlitereplica.errors import AnotherWriterError, StoreError
from sqlitereplica.replicate.health import Health

__all__ = ["Ticket", "Tickets"]


class _Worker(Protocol):
    acked: int
    health: Health


class Ticket:
    """One shared wait. ``future`` is set to None, or to the error."""

    def __init__(self, made_at: float) -> None:
        self.made_at = made_at
        self.deadline = made_at
        self.seq: int | None = None
        self.future: Future[None] = Future()


class Tickets:
    """All waits of one engine. Thread-safe."""

    def __init__(self) -> None:
        self._open: Ticket | None = None
        self._captured: list[Ticket] = []
        self._ended: Exception | None = None
        self._lock = threading.Lock()

    def take(self, now: float, timeout: float | None) -> Ticket:
        """Join the ticket that is open for the next capture."""
        with self._lock:
            if self._ended is not None:
                ticket = Ticket(now)
                ticket.future.set_exception(self._ended)
                return ticket
            if self._open is None:
                self._open = Ticket(now)
            deadline = float("inf") if timeout is None else now + timeout
            self._open.deadline = max(self._open.deadline, deadline)
            return self._open

    @property
    def waiting(self) -> bool:
        """True when somebody waits for a capture."""
        return self._open is not None

    @property
    def urgent(self) -> bool:
        """True when somebody waits at all, for a capture or for a replica."""
        return self._open is not None or bool(self._captured)

    def close(self) -> Ticket | None:
        """Called before a capture: later callers get another ticket."""
        with self._lock:
            ticket, self._open = self._open, None
            return ticket

    def captured(self, ticket: Ticket, seq: int) -> None:
        """Everything the ticket covers is in states up to ``seq``."""
        ticket.seq = seq
        with self._lock:
            self._captured.append(ticket)

    def reopen(self, ticket: Ticket) -> None:
        """The capture did not come about; wait for the next one."""
        with self._lock:
            if self._open is None:
                self._open = ticket
                return
            other = self._open
            other.deadline = max(other.deadline, ticket.deadline)
        other.future.add_done_callback(lambda done: _copy(done, ticket.future))

    def check(self, workers: Sequence[_Worker], now: float) -> None:
        """Settle every ticket that can be; forget those that nobody waits for."""
        settled: list[tuple[Ticket, Exception | None]] = []
        with self._lock:
            still: list[Ticket] = []
            for ticket in self._captured:
                failure = _permanent(workers, ticket)
                assert ticket.seq is not None
                if all(w.acked >= ticket.seq for w in workers):
                    settled.append((ticket, None))
                elif failure is not None:
                    settled.append((ticket, failure))
                elif ticket.deadline >= now:
                    still.append(ticket)
            self._captured = still
        for ticket, error in settled:
            _settle(ticket, error)

    def fail(self, error: Exception) -> None:
        """Fail every ticket: capture does not run."""
        with self._lock:
            tickets = [*self._captured, *([self._open] if self._open else [])]
            self._captured, self._open = [], None
        for ticket in tickets:
            _settle(ticket, error)

    def end(self, error: Exception) -> None:
        """Fail every ticket, also those taken from now on."""
        with self._lock:
            self._ended = error
        self.fail(error)

    def settle(self, ticket: Ticket) -> None:
        """There is nothing that the ticket covers: it is done."""
        _settle(ticket, None)


def _permanent(workers: Sequence[_Worker], ticket: Ticket) -> Exception | None:
    """What waiting will not cure; only a transient StoreError is waited out."""
    for worker in workers:
        error = worker.health.error
        if error is None or (isinstance(error, StoreError) and error.transient):
            continue
        if (
            isinstance(error, AnotherWriterError)
            or worker.health.failed_at >= ticket.made_at
        ):
            return error
    return None


def _settle(ticket: Ticket, error: Exception | None) -> None:
    if ticket.future.done():
        return
    if error is None:
        ticket.future.set_result(None)
    else:
        ticket.future.set_exception(error)


def _copy(done: Future[None], to: Future[None]) -> None:
    error = done.exception()
    if to.done():
        return
    if error is None:
        to.set_result(None)
    else:
        to.set_exception(error)
