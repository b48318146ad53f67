"""The lease of one Replicator: who holds it is found out, kept and told by one thread.

The protocol is in ``store/lease.py``, the fence in ``fencing.py``. Here they meet the store,
the clock and the other threads:

* A thread of its own does one step after another (``step``): read, write, or sleep. Nothing
  else is done in it, so that no upload, however slow, keeps a renewal from being sent.
* The writers of each replica ask a ``Gate``, which knows the answer without a request.
* The clock counts the time in which the machine is suspended, where there is such a clock.

A store that cannot hold a lease is named in an event (``lease-unsupported``); then there is
none, and only the refusal of names that are taken stands between two writers.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime

from sqlitereplica.errors import (
    AnotherWriterError,
    LeaseHeldError,
    LeaseLostError,
    StoreError,
)
from sqlitereplica.events import Observer, Reporter
from sqlitereplica.replicate.driver import call_guarded
from sqlitereplica.replicate.fencing import Predecessor, Tenure
from sqlitereplica.replicate.status import LeaseStatus
from sqlitereplica.store import LeaseObject
from sqlitereplica.store.lease import (
    Identity,
    Look,
    Rest,
    Stage,
    State,
    Write,
    decide,
    on_answered,
    on_no_answer,
    on_read,
    on_refused,
    on_sent,
    publish_until,
    record_for,
    release,
)
from sqlitereplica.store.leaseobject import RefusedError

__all__ = ["LeaseGate", "Leasing", "awake_clock"]

_PAUSE = 0.1
"""Part of the TTL that passes after a failure."""
_AFTER_BUG = 0.1
_REQUEST = (1.0, 10.0)
"""Seconds that a request may take: a quarter of the TTL between these."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def awake_clock() -> float:
    """Monotonic seconds; those in which the machine was suspended count."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Leasing:
    """Contends for the lease, holds it, gives it back. Thread-safe but for ``step``."""

    def __init__(
        self,
        open_object: Callable[[], LeaseObject | None],
        *,
        replica: str,
        database: str,
        node: int,
        ttl: float,
        observer: Observer,
        clock: Callable[[], float] = awake_clock,
        now: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
        host: str | None = None,
    ) -> None:
        """``open_object`` makes the object, None for a store that has none."""
        self.replica = replica
        self._open_object = open_object
        self._object: LeaseObject | None = None
        self._report = Reporter(observer, database, replica)
        self._clock, self._now = clock, now
        self._rng, self._ttl = rng, ttl
        me = Identity(host or socket.gethostname(), os.getpid(), node, ttl)
        self._state = State(me=me)
        self.unsupported: str | None = None
        """Why the store cannot hold a lease, if so."""
        self.error: Exception | None = None
        """What keeps it from being looked at or renewed; None when nothing does."""
        self.held = threading.Event()
        """Set once this host may begin."""
        self.entry: Future[None] = Future()
        """Done when the first replica is fenced; its error if it cannot be."""
        self.wake_workers: Callable[[], None] = lambda: None
        self._doubt = False
        """Somebody saw another's work: the object is to be looked at."""
        self._confirmed_at = self._state.confirmed_at
        self._told: tuple[object, ...] = ()
        self._stopping = self._keeps = False
        self._wakeup = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="sqlitereplica-lease", daemon=True
        )

    # -- one step --------------------------------------------------------------------

    def step(self) -> float:
        """Do what is due; returns seconds until the next call is wanted."""
        try:
            return self._step()
        except StoreError as error:
            first, self.error = self.error is None, error
            pause = self._ttl * _PAUSE * (0.5 + self._rng())
            if self._stopping:
                pause = 0.0  # somebody waits for our end
            self._state = on_no_answer(self._state, self._clock(), pause)
            if first:
                self._report("lease-error", logging.WARNING, error)
            return 0.0
        finally:
            self._tell()

    def _step(self) -> float:
        if self.unsupported is not None:
            return float("inf")
        if self._doubt:
            self._doubt = False
            self._state = on_refused(self._state)
        action = decide(self._state, self._clock())
        if isinstance(action, Rest):
            return max(0.0, action.until - self._clock())
        lease = self._opened()
        if lease is None:
            return float("inf")
        if isinstance(action, Look):
            seen = lease.read()
            self._state = on_read(self._state, seen, self._clock())
        else:
            self._write(lease, action)
        self.error = None
        return 0.0

    def _opened(self) -> LeaseObject | None:
        if self._object is None:
            lease = self._open_object()
            why = "it cannot refuse a name that is taken"
            if lease is not None:
                least, most = _REQUEST
                lease.timeout = min(most, max(least, self._ttl / 4))
                probed = lease.probe()
                if probed is None:
                    self._object = lease
                    return lease
                why = probed
            self.unsupported = why
        return self._object

    def _write(self, lease: LeaseObject, write: Write) -> None:
        wall = datetime.fromtimestamp(self._now(), UTC)
        record = record_for(self._state, write, secrets.token_hex(16), wall)
        self._state = on_sent(self._state, write, record, self._clock())
        try:
            tag = lease.write(record, write.expect)
        except RefusedError:
            self._state = on_refused(self._state)
        else:
            self._state = on_answered(self._state, record, tag, self._clock())

    # -- what others are told --------------------------------------------------------

    def _tell(self) -> None:
        """Events and wakes for what has changed."""
        state = self._state
        if self.is_open():
            self.held.set()
        if state.confirmed_at != self._confirmed_at or state.stage is Stage.LOST:
            # They may have found the gate shut; or are to say that it is for good.
            self._confirmed_at = state.confirmed_at
            self.wake_workers()
        holder = state.holder
        news: tuple[object, ...]
        news = state.stage, state.epoch, holder.owner if holder else ""
        if self.unsupported is not None:
            news = ("unsupported",)
        if news != self._told and (state.seen is not None or self.unsupported):
            self._told = news
            self._report_news()

    def _report_news(self) -> None:
        state = self._state
        if self.unsupported is not None:
            self._report("lease-unsupported", logging.WARNING, why=self.unsupported)
        elif state.stage is Stage.HELD:
            self._report("lease-acquired", logging.INFO, epoch=state.epoch)
        elif state.stage is Stage.LOST:
            self._report("lease-lost", logging.ERROR, self._lost())
        elif state.stage is Stage.RELEASED:
            self._report("lease-released", logging.INFO, epoch=state.epoch)
        elif state.holder is not None:
            holder = state.holder
            self._report(
                "lease-waiting", logging.INFO, holder=holder.owner, epoch=holder.epoch
            )

    def is_waiting(self) -> bool:
        """Whether another host is known to have the lease.

        Not so when it is of an earlier process of this host: that is taken over at once.
        """
        state, holder = self._state, self._state.holder
        if state.stage is not Stage.WAITING or holder is None:
            return False
        return not state.me.was(holder)

    def is_known_to_be_ours(self) -> bool:
        """Whether this host holds it, or its earlier life did and nobody has since."""
        state, holder = self._state, self._state.holder
        return state.stage is Stage.HELD or (
            holder is not None and state.me.was(holder)
        )

    def is_open(self) -> bool:
        """Whether this host may publish now."""
        if self.unsupported is not None:
            return not self._stopping
        return self._clock() < publish_until(self._state)

    def check(self) -> None:
        """As ``Gate.check``."""
        if self.is_open():
            return
        if self._state.stage is Stage.LOST:
            raise self._lost()
        until = (
            "it is not held" if self._state.stage is not Stage.HELD else "it ran out"
        )
        raise StoreError(
            f"the lease of {self.replica} is not confirmed ({until}), so nothing is"
            f" uploaded until it is. Last error: {self.error}",
            operation="put",
            key=self.replica,
            kind="lease-unconfirmed",
        ) from self.error

    def refuse_if_lost(self) -> None:
        """Raise LeaseLostError if another host has taken over."""
        if self._state.stage is Stage.LOST:
            raise self._lost()

    def _lost(self) -> LeaseLostError:
        holder = self._state.holder
        return LeaseLostError(
            self.replica,
            holder=holder.owner if holder else "",
            epoch=holder.epoch if holder else 0,
        )

    def explain(self, error: AnotherWriterError) -> AnotherWriterError:
        """What other bytes under our name mean."""
        if self.unsupported is not None or isinstance(error, LeaseLostError):
            return error
        self._doubt = True
        self._wakeup.set()
        lost = LeaseLostError(error.key)
        lost.__cause__ = error
        return lost

    def tenure(self, *, leads: bool) -> Tenure | None:
        """The present tenure for one replica."""
        state = self._state
        if self.unsupported is not None or not state.epoch:
            return None
        before = state.before
        if before is None:
            return Tenure(state.epoch, Predecessor.NOBODY, leads)
        own = state.me.was(before)
        kind = Predecessor.SELF if own else Predecessor.OTHER
        return Tenure(state.epoch, kind, leads)

    def status(self) -> LeaseStatus:
        """How it stands."""
        state, holder = self._state, self._state.holder
        word = state.stage.value
        if self.unsupported is not None:
            word = "unsupported"
        elif state.stage is Stage.HELD and not self.is_open():
            word = "unconfirmed"
        error = self.unsupported or (None if self.error is None else str(self.error))
        return LeaseStatus(
            replica=self.replica,
            state=word,
            epoch=state.epoch,
            holder=holder.owner if holder else None,
            error=error,
        )

    def held_by_another(self) -> LeaseHeldError:
        """The error for who waits in vain."""
        holder = self._state.holder
        return LeaseHeldError(
            self.replica,
            holder=holder.owner if holder else "",
            epoch=holder.epoch if holder else 0,
            cause=None if self.error is None else str(self.error),
        )

    # -- the thread ------------------------------------------------------------------

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, timeout: float, *, keep: bool = False) -> None:
        """Give the lease back and end; to be called when nothing is put any more.

        Waits up to ``timeout`` seconds: if the store does not take it back, it runs out.
        With ``keep`` it is not given back: the next life of this one goes on with it.
        """
        self._keeps, self._stopping = keep, True
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if not self.entry.done():
            self.entry.set_exception(self.held_by_another())

    def _run(self) -> None:
        left = 3
        while True:
            self._wakeup.clear()
            if self._stopping and self._keeps:
                return
            if self._stopping and not self._state.leaving:
                self._state = release(self._state)
            delay = call_guarded(self.step, self._failed)
            delay = _AFTER_BUG if delay is None else delay
            if self._stopping:
                left -= 1
                if self._state.stage is not Stage.HELD or left <= 0:
                    return
            if delay > 0:
                self._wakeup.wait(min(delay, self._ttl))

    def _failed(self, error: Exception) -> None:
        self.error = error
        self._state = on_no_answer(self._state, self._clock(), self._ttl * _PAUSE)


class LeaseGate:
    """The gate of one replica, behind the lease of the first one."""

    def __init__(self, leasing: Leasing, *, leads: bool) -> None:
        """``leads``: it is the first one."""
        self._leasing, self._leads = leasing, leads

    @property
    def tenure(self) -> Tenure | None:
        """As ``Gate``."""
        return self._leasing.tenure(leads=self._leads)

    def is_open(self) -> bool:
        """As ``Gate``."""
        return self._leasing.is_open()

    def check(self) -> None:
        """As ``Gate``."""
        self._leasing.check()

    def explain(self, error: AnotherWriterError) -> AnotherWriterError:
        """As ``Gate``."""
        return self._leasing.explain(error)

    def entered(self) -> None:
        """As ``Gate``."""
        if self._leads and not self._leasing.entry.done():
            self._leasing.entry.set_result(None)

    def refused(self, error: Exception) -> None:
        """As ``Gate``."""
        if self._leads and not self._leasing.entry.done():
            self._leasing.entry.set_exception(error)
