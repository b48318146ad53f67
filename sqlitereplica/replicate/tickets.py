"""What callers of ``sync()`` wait for.

Callers that come before the same capture share one ticket, so a thousand of them cost one
upload. A ticket is *captured* when everything committed before it was made is in an
increment. Each caller needs that state in a number of replicas, so a ticket has a future for
each number asked for: it is done when as many replicas hold the state, and fails when so
many have failed, since the ticket was made and in ways that trying again will not cure, that
the rest are too few.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Protocol

from sqlitereplica.errors import AnotherWriterError, DivergedError, StoreError
from sqlitereplica.replicate.health import Health

__all__ = ["ALL", "Ticket", "Tickets"]

ALL = sys.maxsize
"""Every replica, however many there are."""


class _Worker(Protocol):
    acked: int
    health: Health


class Ticket:
    """One shared wait, for one or several numbers of replicas."""

    def __init__(self, made_at: float) -> None:
        self.made_at = made_at
        self.deadline = made_at
        self.seq: int | None = None
        self.futures: dict[int, Future[None]] = {}
        """What to wait for, by the number of replicas that must hold it."""

    @property
    def future(self) -> Future[None]:
        """What whoever needs all replicas waits for: None, or the error."""
        return self.futures[ALL]

    def join(self, need: int, deadline: float) -> None:
        """One more caller waits."""
        self.futures.setdefault(need, Future())
        self.deadline = max(self.deadline, deadline)

    @property
    def is_settled(self) -> bool:
        """True when some of those who waited were told how it ended."""
        return any(future.done() for future in self.futures.values())

    def settle(self, error: Exception | None) -> None:
        """Say to all who still wait how it ended."""
        for future in self.futures.values():
            _settle(future, error)


class Tickets:
    """All waits of one engine. Thread-safe."""

    def __init__(self) -> None:
        self._open: Ticket | None = None
        self._captured: list[Ticket] = []
        self._ended: Exception | None = None
        self._lock = threading.Lock()

    def take(self, now: float, timeout: float | None, need: int = ALL) -> Ticket:
        """Join the ticket that is open for the next capture."""
        with self._lock:
            if self._ended is not None:
                return self._take_ended(now, need)
            if self._open is None:
                self._open = Ticket(now)
            self._open.join(need, _deadline(now, timeout))
            return self._open

    def take_captured(
        self, seq: int, now: float, timeout: float | None, need: int = ALL
    ) -> Ticket:
        """Wait for a state that has been captured already; ``check`` is to follow."""
        with self._lock:
            if self._ended is not None:
                return self._take_ended(now, need)
            same = (t for t in self._captured if t.seq == seq and not t.is_settled)
            ticket = next(same, None)
            if ticket is None:
                ticket = Ticket(now)
                ticket.seq = seq
                self._captured.append(ticket)
            ticket.join(need, _deadline(now, timeout))
            return ticket

    def _take_ended(self, now: float, need: int) -> Ticket:
        ticket = Ticket(now)
        ticket.join(need, now)
        ticket.settle(self._ended)
        return ticket

    @property
    def waiting(self) -> bool:
        """True when somebody waits for a capture."""
        return self._open is not None

    @property
    def urgent(self) -> bool:
        """True when somebody waits at all, for a capture or for a replica."""
        return self._open is not None or bool(self._captured)

    @property
    def need(self) -> int:
        """The fewest replicas that somebody who waits for a capture needs."""
        with self._lock:
            return ALL if self._open is None else min(self._open.futures)

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
            for need in ticket.futures:
                other.join(need, ticket.deadline)
        for need, future in ticket.futures.items():
            other.futures[need].add_done_callback(partial(_copy, future))

    def check(self, workers: Sequence[_Worker], now: float) -> None:
        """Settle every wait that can be; forget those that nobody waits for."""
        settled: list[tuple[Future[None], Exception | None]] = []
        with self._lock:
            still: list[Ticket] = []
            for ticket in self._captured:
                ended = _outcomes(workers, ticket)
                settled += ended
                left = len(ended) < sum(not f.done() for f in ticket.futures.values())
                if left and ticket.deadline >= now:
                    still.append(ticket)
            self._captured = still
        for future, error in settled:
            _settle(future, error)

    def fail(self, error: Exception) -> None:
        """Fail every ticket: capture does not run."""
        with self._lock:
            tickets = [*self._captured, *([self._open] if self._open else [])]
            self._captured, self._open = [], None
        for ticket in tickets:
            ticket.settle(error)

    def end(self, error: Exception) -> None:
        """Fail every ticket, also those taken from now on."""
        with self._lock:
            self._ended = error
        self.fail(error)

    def settle(self, ticket: Ticket) -> None:
        """There is nothing that the ticket covers: it is done."""
        ticket.settle(None)


def _deadline(now: float, timeout: float | None) -> float:
    return float("inf") if timeout is None else now + timeout


def _outcomes(
    workers: Sequence[_Worker], ticket: Ticket
) -> list[tuple[Future[None], Exception | None]]:
    """Which of a captured ticket's futures end now, and how."""
    assert ticket.seq is not None
    behind = [w for w in workers if w.acked < ticket.seq]
    failures = [e for e in (_permanent(w, ticket) for w in behind) if e is not None]
    ended: list[tuple[Future[None], Exception | None]] = []
    for need, future in ticket.futures.items():
        wanted = min(need, len(workers))
        if future.done():
            continue
        if len(workers) - len(behind) >= wanted:
            ended.append((future, None))
        elif len(workers) - len(failures) < wanted:
            ended.append((future, failures[0]))
    return ended


def _permanent(worker: _Worker, ticket: Ticket) -> Exception | None:
    """What waiting will not cure; only a transient StoreError is waited out."""
    error = worker.health.error
    if error is None or (isinstance(error, StoreError) and error.transient):
        return None
    since = worker.health.failed_at >= ticket.made_at
    is_over = isinstance(error, AnotherWriterError | DivergedError)
    return error if since or is_over else None


def _settle(future: Future[None], error: Exception | None) -> None:
    try:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
    except InvalidStateError:
        return  # it is known already, perhaps from another replica's thread just now


def _copy(to: Future[None], done: Future[None]) -> None:
    error = done.exception()
    assert error is None or isinstance(error, Exception)
    _settle(to, error)
