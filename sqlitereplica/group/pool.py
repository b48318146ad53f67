"""The slots: who has a Replicator at work, who waits for one, who is parked.

Databases come here by ``enqueue``; they leave by being parked, failing or vanishing. The
*hands* (threads) start and stop Replicators, which may take long. *Callers* ask and wait
(``in_use``). All state is under ``cond``, which is never held during a call into SQLite, a
store or a Replicator.

Invariants. A member is in ``table.slotted`` exactly while it is STARTING, RUNNING or PARKING,
and there are at most ``most`` of them; it is in the queue exactly while it is WAITING; it has
a Replicator only while it has a slot. It becomes PARKED only with a signature that holds in
the sense of ``signature.py``.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlitereplica.errors import (
    DatabaseStateError,
    ReplicatorClosedError,
    SQLiteReplicaError,
    SyncTimeoutError,
)
from sqlitereplica.group.decide import Rules, State, pause_after
from sqlitereplica.group.member import Member, Table
from sqlitereplica.group.signature import Signature, holds, look
from sqlitereplica.replicate import Replicator
from sqlitereplica.replicate.inside import next_tending

__all__ = ["Pool", "Report", "Work", "anew"]

_REFUSED = frozenset({"not-a-database", "twice", "name"})

_OVERDUE = 60.0
_TEND_AGAIN = 600.0

Report = Callable[[str, str, int, Exception | None], None]
"""Takes an action, the name of a database, a level and an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a pool needs of the world; tests give their own."""

    path: Callable[[str], str]
    make: Callable[[str], Replicator]
    """A Replicator for the database of that name, not started."""
    seal: Callable[[str], Signature | None]
    """``sealed`` for a path."""
    note: Callable[[str, Signature, float | None], None]
    """Keep that a database is parked, for the next process."""
    hands: Callable[[Callable[[], None]], object]
    report: Report
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time


class Pool:
    """See the module's text. Thread-safe."""

    def __init__(
        self, work: Work, *, most: int, rules: Rules, stop_timeout: float
    ) -> None:
        self.cond = threading.Condition(threading.RLock())
        self.table = Table()
        self.queue: deque[Member] = deque()
        self.wake: Callable[[], None] = lambda: None
        """Called when there may be something to do: ``dispatch``."""
        self.accepts = True
        """Whether anything is started; False from the stop on."""
        self._work, self._most, self._rules = work, most, rules
        self._stop_timeout = stop_timeout
        self._lost: list[Exception] = []
        """What went wrong while it was stopped."""

    # -- states ----------------------------------------------------------------------

    def become(self, member: Member, state: State) -> None:
        """Change its state; with ``cond``."""
        if member.state is State.WAITING and state is not State.WAITING:
            self.queue.remove(member)
        if state is not State.PARKING and member.state is not State.PARKING:
            member.since = self._work.clock()  # what did not come about does not count
        member.state = state
        self.cond.notify_all()

    def enqueue(self, member: Member, *, first: bool = False) -> None:
        """It waits for a slot, behind the others or before them; with ``cond``."""
        if member.is_gone or member.state is State.WAITING:
            return
        self.become(member, State.WAITING)
        if first:
            self.queue.appendleft(member)
        else:
            self.queue.append(member)
        self.wake()

    def fail(
        self,
        member: Member,
        error: Exception,
        *,
        until_not: Signature | None = None,
        pause: float | None = None,
    ) -> None:
        """It cannot be replicated; with ``cond``.

        It is tried again when its files are not as ``until_not`` any more, or else after
        ``pause`` seconds: by default longer each time.
        """
        self._free(member)
        if member.is_gone:
            return
        first = member.state is not State.FAILED and member.failures == 0
        member.failures += 1
        wait = pause_after(member.failures, self._rules) if pause is None else pause
        member.known, member.error = until_not, error
        member.due_at = None if until_not else self._work.now() + wait
        if first:
            self._work.report("group-error", member.rel, logging.WARNING, error)
        self.become(member, State.FAILED)

    def remove(self, member: Member) -> None:
        """Its file has gone: it is stopped, and its replica stays; with ``cond``."""
        self.table.remove(member)
        if member.state is State.WAITING:
            self.queue.remove(member)
        self._work.report("removed", member.rel, logging.INFO, None)
        if member.state is State.RUNNING:
            self.become(member, State.PARKING)
            self._work.hands(lambda: self._let_go(member))
        self.cond.notify_all()

    def _free(self, member: Member) -> None:
        """Give its slot back."""
        self.table.slotted.pop(member, None)
        member.replicator = None
        self.wake()

    def _seen(self, member: Member) -> Signature | None:
        try:
            return look(self._work.path(member.rel))
        except OSError:
            return None

    # -- start -----------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give free slots to those that wait, in their order."""
        while True:
            with self.cond:
                room = len(self.table.slotted) < self._most
                if not (self.accepts and self.queue and room):
                    return
                member = self.queue[0]
                self.become(member, State.STARTING)
                self.table.slotted[member] = None
            self._hand(self._start, member)

    def _hand(self, job: Callable[[Member], None], member: Member) -> None:
        self._work.hands(lambda: job(member))

    def _start(self, member: Member) -> None:
        """In a hand."""
        try:
            replicator = self._work.make(member.rel)
            replicator.start()
        except (SQLiteReplicaError, OSError, ValueError) as error:
            with self.cond:
                self.fail(member, error)
            return
        seen = self._seen(member)
        with self.cond:
            member.replicator, member.known = replicator, seen
            member.quiet_since = self._work.clock()
            self.become(member, State.RUNNING)
            gone = member.is_gone
        if gone:
            self._let_go(member)

    # -- park ------------------------------------------------------------------------

    def park(self, member: Member, *, anyway: bool = False) -> None:
        """Park one that runs if nothing can be missed.

        With ``anyway`` its Replicator is stopped in any case, and it waits for its next
        turn if it cannot be parked.
        """
        with self.cond:
            if member.state is not State.RUNNING:
                return
            self.become(member, State.PARKING)
        self._work.hands(lambda: self._park(member, anyway=anyway))

    def _park(self, member: Member, *, anyway: bool) -> None:
        """In a hand; the order of the steps is that of ``signature.py``."""
        replicator = member.replicator
        assert replicator is not None
        tend_at, now = self._tended(member, replicator), self._work.now()
        if tend_at is not None and tend_at <= now:
            if not anyway and self._work.clock() - member.quiet_since < _OVERDUE:
                self._go_on(member)  # a snapshot is being made, or files are deleted
                return
            tend_at = now + _TEND_AGAIN
        signature = self._seal(member)
        if signature is None and not anyway and not self._is_empty(member):
            self._go_on(member, active=True)
            return
        try:
            replicator.stop(self._stop_timeout)
        except (SQLiteReplicaError, OSError) as error:
            self._not_flushed(member, error)
            return
        after = self._seen(member)
        if signature is None or after is None or not holds(signature, after):
            self._unparked(member, after)
            return
        self._work.note(member.rel, after, tend_at)
        with self.cond:
            self._free(member)
            member.error, member.failures = None, 0
            member.known, member.due_at = after, tend_at
            self.become(member, State.PARKED)
            self._work.report("parked", member.rel, logging.DEBUG, None)
            if member.users:
                self.enqueue(member, first=True)

    def _tended(self, member: Member, replicator: Replicator) -> float | None:
        """When its history has something to do, once what waits is merged, if it is time."""
        tend_at = next_tending(replicator)
        if tend_at is None or tend_at > self._work.now() or not self.accepts:
            return tend_at
        try:
            replicator.compact()
        except (SQLiteReplicaError, OSError) as error:
            self._work.report("group-error", member.rel, logging.WARNING, error)
        return next_tending(replicator)

    def _unparked(self, member: Member, after: Signature | None) -> None:
        """It was flushed and stopped, but something may have been written since."""
        with self.cond:
            self._free(member)
            member.error, member.failures = None, 0
            if after is not None and after.size == 0:
                self.become(member, State.EMPTY)
            else:  # again, behind the others
                self.enqueue(member)

    def _is_empty(self, member: Member) -> bool:
        """Whether there is no database in the file."""
        seen = self._seen(member)
        return seen is None or seen.size == 0

    def _seal(self, member: Member) -> Signature | None:
        if self._is_empty(member):
            return None
        try:
            return self._work.seal(self._work.path(member.rel))
        except (SQLiteReplicaError, OSError):
            return None  # its Replicator says what is wrong with it

    def _go_on(self, member: Member, *, active: bool = False) -> None:
        """It is not parked after all; ``active``: it was in use."""
        with self.cond:
            if active:
                member.quiet_since = self._work.clock()
            self.become(member, State.RUNNING)
            gone = member.is_gone
        if gone:
            self._let_go(member)

    def _not_flushed(self, member: Member, error: Exception) -> None:
        with self.cond:
            if getattr(error, "kind", "") in _REFUSED:  # there was nothing to flush
                self.fail(member, error, until_not=self._seen(member))
                return
            if not self.accepts:
                self._lost.append(error)
            self.fail(member, error)

    def end(self, member: Member, error: Exception) -> None:
        """Stop one that cannot be replicated until its files change.

        Not while it is in use: whoever waits is to hear why, not that it was stopped.
        """
        with self.cond:
            if member.state is not State.RUNNING or member.users:
                return
            self.become(member, State.PARKING)

        def stop() -> None:
            seen = self._seen(member)
            self._stop_unflushed(member)
            with self.cond:
                self.fail(member, error, until_not=seen)

        self._work.hands(stop)

    def _let_go(self, member: Member) -> None:
        """In a hand: stop one that is not there any more."""
        self._stop_unflushed(member)
        with self.cond:
            self._free(member)
            self.cond.notify_all()

    def _stop_unflushed(self, member: Member) -> None:
        """Stop a Replicator of whose last flush nothing is expected."""
        try:
            if member.replicator is not None:
                member.replicator.stop(0.0)
        except (SQLiteReplicaError, OSError) as error:
            self._work.report("unflushed", member.rel, logging.INFO, error)

    # -- callers ---------------------------------------------------------------------

    @contextmanager
    def in_use(self, member: Member, timeout: float | None) -> Iterator[Replicator]:
        """Its Replicator, at work until the end of the block.

        Raises:
            SyncTimeoutError: it did not get its turn in time.
            DatabaseStateError, StoreError, OSError: it cannot be started.
            ReplicatorClosedError: the group was stopped.
        """
        with self.cond:
            member.users += 1
        try:
            yield self._claimed(member, timeout)
        finally:
            with self.cond:
                member.users -= 1
                member.quiet_since = self._work.clock()

    def _claimed(self, member: Member, timeout: float | None) -> Replicator:
        with self.cond:
            if member.state is State.FAILED and is_refused(member):
                assert member.error is not None
                raise anew(member.error)
            if member.state in (State.PARKED, State.EMPTY, State.FAILED):
                self.enqueue(member, first=True)
            self.cond.wait_for(lambda: self._is_decided(member), timeout)
            self.check(member)
            if member.state is State.FAILED and member.error is not None:
                raise anew(member.error)
            if member.state is not State.RUNNING or member.replicator is None:
                raise SyncTimeoutError(
                    timeout or 0.0, pending=(self._work.path(member.rel),), cause=None
                )
            return member.replicator

    def _is_decided(self, member: Member) -> bool:
        over = member.is_gone or not self.accepts
        return over or member.state in (State.RUNNING, State.FAILED)

    def check(self, member: Member) -> None:
        """Raise if nothing will come of waiting for it."""
        path = self._work.path(member.rel)
        if member.is_gone:
            raise DatabaseStateError(f"{path} was removed", path=path, kind="removed")
        if not self.accepts:
            raise ReplicatorClosedError(f"the group of {path} was stopped")

    def is_durable(self, member: Member, timeout: float | None) -> bool:
        """Whether nothing is to be flushed; waits while it is being parked.

        Raises as ``check``, and OSError.
        """
        with self.cond:
            self.cond.wait_for(lambda: member.state is not State.PARKING, timeout)
            self.check(member)
            state, known = member.state, member.known
        seen = look(self._work.path(member.rel))
        if seen is not None and seen.size == 0:
            return state is State.EMPTY
        parked = state is State.PARKED and known is not None and seen is not None
        return parked and holds(known, seen)  # type: ignore[arg-type]

    def stop(self, timeout: float) -> list[Exception]:
        """Flush and stop all; returns what went wrong.

        What can be parked is, so that the next start need not open it.
        """
        deadline = self._work.clock() + timeout
        with self.cond:
            self.accepts = False
            self.cond.notify_all()
        while True:
            with self.cond:
                slotted = list(self.table.slotted)
            for member in slotted:
                self.park(member, anyway=True)
            left = deadline - self._work.clock()
            with self.cond:
                if not self.table.slotted or left <= 0:
                    pending = [self._work.path(m.rel) for m in self.table.slotted]
                    break
                self.cond.wait(min(left, 0.1))
        if pending:
            self._lost.append(
                SyncTimeoutError(timeout, pending=tuple(pending), cause=None)
            )
        return self._lost


def anew(error: Exception) -> Exception:
    """The error, to be raised: one that is kept would gather tracebacks and notes."""
    found = copy.copy(error)
    found.__cause__ = error.__cause__
    return found


def is_refused(member: Member) -> bool:
    """Whether trying again changes nothing: what is there is not to be replicated."""
    return getattr(member.error, "kind", "") in _REFUSED
