"""The thread of a follower: when to look, what to do about failures, who waits for what."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Protocol

from sqlitereplica.errors import (
    DatabaseStateError,
    FollowTimeoutError,
    PosMismatchError,
    ReplicatorClosedError,
    StoreError,
    TargetExistsError,
)
from sqlitereplica.ltx import Header
from sqlitereplica.replicate.driver import call_guarded
from sqlitereplica.replicate.fence import Fence
from sqlitereplica.replicate.health import Health
from sqlitereplica.replicate.promoted import find_given_away, leave_promoted
from sqlitereplica.restore.following import Following
from sqlitereplica.restore.held import Held
from sqlitereplica.sqlite import SourceBusyError

__all__ = ["FollowThread", "too_late"]

_BUSY_PAUSE = 0.1
_BLOCKED_FOR = 10.0
_PERMANENT = (PosMismatchError, TargetExistsError)


class _Home(Protocol):
    """The metadata folder; closed when the thread ends."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def close(self) -> None:
        """Let it go."""


class _Promotion:
    """Somebody waits for the file to be given away, by that look or a later one."""

    def __init__(self, look: int, fence: Fence | None) -> None:
        self.look, self.fence = look, fence
        self.future: Future[None] = Future()


class FollowThread:
    """What exists between ``start`` and ``stop``: the thread, and how it fares."""

    def __init__(
        self,
        following: Following,
        meta: _Home,
        interval: float,
        report: Callable[..., None],
    ) -> None:
        self.following, self.health = following, Health()
        self.current_at: float | None = None
        """When the last look began after which the file had all."""
        self.thread = threading.Thread(
            target=self._run, name="sqlitereplica-follower", daemon=True
        )
        self._meta, self._interval, self._report = meta, interval, report
        self._changed = threading.Condition()
        self._wakeup = threading.Event()
        self._looks = self._current = self._waiters = 0
        self._failed_look = 0
        self._stopping = self._ended = self._in_step = False
        self._promotion: _Promotion | None = None
        self._promoted = False
        self._blocked_since: float | None = None
        self._blocked_told = False

    # -- called by others ------------------------------------------------------------

    @property
    def txid(self) -> int:
        """The transaction that the file holds."""
        held = self.following.held
        return 0 if held is None else held.txid

    @property
    def state(self) -> str:
        """The word for it in a status."""
        if self._promoted:
            return "promoted"
        if self.health.error is not None:
            return "failing"
        if not self.txid:
            return "starting"
        return "following" if self._in_step else "catching-up"

    def stop(self, timeout: float | None) -> None:
        """End the thread; wait up to ``timeout`` seconds, or for as long as it takes."""
        self._stopping = True
        self._wakeup.set()
        self.thread.join(timeout)

    def wait(self, txid: int | None, timeout: float | None) -> bool:
        """Wait for a transaction, or for a look from now on after which it has all."""
        with self._changed:
            look = self._looks + 1
            self._waiters += 1
            self._wakeup.set()
            try:
                return self._changed.wait_for(
                    lambda: self._is_done(txid, look), timeout
                )
            finally:
                self._waiters -= 1

    def promote(self, timeout: float | None, fence: Fence | None = None) -> bool:
        """Have the thread give the file away when it has all; False if not in time.

        With a ``fence`` it sees to it first that nobody else adds to the replica.
        """
        with self._changed:
            if self._ended:
                raise ReplicatorClosedError("the Follower was stopped")
            promotion = self._promotion = _Promotion(self._looks + 1, fence)
            self._waiters += 1
            self._wakeup.set()
        try:
            promotion.future.result(timeout)
        except FutureTimeoutError:
            if promotion.future.cancel():
                return False
            promotion.future.result()  # it is just being done
        finally:
            self._waiters -= 1
        self.thread.join()
        return True

    def _is_done(self, txid: int | None, look: int) -> bool:
        if self.txid >= txid if txid is not None else self._current >= look:
            return True
        if self._ended:
            raise ReplicatorClosedError("the Follower was stopped")
        error = self.health.error
        if self._failed_look >= look and _is_permanent(error):
            assert error is not None
            raise error
        return False

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wakeup.clear()
                pause = call_guarded(self._look, self._failed)
                pause = self._interval if pause is None else pause
                if pause and not self._stopping:
                    self._wakeup.wait(pause)
        finally:
            call_guarded(self.following.close, self._failed)
            self._meta.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            if self._promotion is not None:
                ended = ReplicatorClosedError("the Follower was stopped")
                self._call_off(self._promotion, ended)

    def _look(self) -> float:
        """Do one step; returns the seconds until the next."""
        with self._changed:
            self._looks += 1
        begun, before = time.monotonic(), self.txid
        try:
            more = self._step()
        except SourceBusyError as error:
            return self._blocked(error)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it shows in status, log and wait(), and is tried again.
            self._failed(error)
            return self._pause()
        self._succeeded(begun, more)
        if more or before not in (0, self.txid):
            self._report("follow", logging.DEBUG, txid=self.txid)
        promotion = self._due()
        if not more and promotion is not None:
            fence = promotion.fence
            if fence and not fence.is_put and not self.following.is_given_away:
                return self._put(promotion, fence)
            self._promote(promotion)
        # Looks keep their pace: what one takes is no part of the pause.
        rest = begun + self._interval - time.monotonic()
        return 0.0 if more else max(self._interval / 10, rest)

    def _step(self) -> bool:
        try:
            return self.following.step()
        except TargetExistsError:
            promotion = self._due()
            if promotion is None:
                raise
            node = promotion.fence.node if promotion.fence else None
            if not find_given_away(self._meta.path, self.following, node):
                raise
            return False

    def _due(self) -> _Promotion | None:
        """Who waits for the file to be given away now, if anybody still does."""
        promotion = self._promotion
        if promotion is None or promotion.future.cancelled():
            return None
        return promotion if promotion.look <= self._looks else None

    def _put(self, promotion: _Promotion, fence: Fence) -> float:
        """Put the fence; then look once more, for what is there now."""
        try:
            fence.put(*self.following.first_page())
        except Exception as error:  # noqa: BLE001
            self._failed(error)  # as that of a look
            if isinstance(error, StoreError) and not error.transient:
                # Another host has the lease, or this one may not write there.
                self._call_off(promotion, error)
            return self._pause()
        return 0.0

    def _succeeded(self, begun: float, more: bool) -> None:
        self._blocked_since, self._blocked_told = None, False
        if self.health.succeeded(time.time()):
            self._report("follow-ok", logging.INFO, txid=self.txid)
        self._in_step = not more
        with self._changed:
            if not more:
                self._current, self.current_at = self._looks, begun
            self._changed.notify_all()

    def _blocked(self, error: SourceBusyError) -> float:
        """Readers are in the way: that is no failure unless it takes long."""
        now = time.monotonic()
        self._in_step = False
        if self._blocked_since is None:
            self._blocked_since = now
        if now - self._blocked_since >= _BLOCKED_FOR:
            self.health.failed(error, now, 0.0)
            if not self._blocked_told:
                self._blocked_told = True
                self._report("follow-blocked", logging.WARNING, error=error)
        return _BUSY_PAUSE

    def _failed(self, error: Exception) -> None:
        first = self.health.error is None
        self.health.failed(error, time.monotonic(), random.random())
        # One line when it begins, then only as often as the pauses grow.
        if first or self.health.failures & (self.health.failures - 1) == 0:
            self._report("follow-error", logging.WARNING, error=error)
        with self._changed:
            self._failed_look = self._looks
            self._changed.notify_all()
        promotion = self._due()
        if promotion and _is_permanent(error):
            self._call_off(promotion, error)

    def _promote(self, promotion: _Promotion) -> None:
        """Give the file away: a step has just found that it has all."""
        self._promotion = None
        future = promotion.future
        if not future.set_running_or_notify_cancel():
            return
        try:
            in_wal = self.following.is_given_away or self._give_away(promotion.fence)
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)  # for the caller, who waits for it
            return
        self._promoted = self._stopping = True
        self._report("follow-promoted", logging.INFO, txid=self.txid, wal=in_wal)
        future.set_result(None)

    def _give_away(self, fence: Fence | None) -> bool:
        held, sums = self.following.sums()
        if fence is not None:
            fence.check(held)
        leave_promoted(self._meta.path, _header_of(held), sums)
        return self.following.give_away()

    def _call_off(self, promotion: _Promotion, error: Exception) -> None:
        self._promotion = None
        if promotion.future.set_running_or_notify_cancel():
            promotion.future.set_exception(error)

    def _pause(self) -> float:
        """Seconds until the next look after a failure; who waits is not to wait for long."""
        waited = bool(self._waiters)
        pause = self.health.pause(time.monotonic(), urgent=waited)
        return pause if waited else max(self._interval, pause)


def _header_of(held: Held) -> Header:
    return Header(
        page_size=held.page_size,
        commit=held.commit,
        min_txid=1,
        max_txid=held.txid,
        timestamp=held.timestamp,
        post_checksum=held.checksum,
    )


def too_late(
    running: FollowThread, wanted: int | None, timeout: float | None
) -> FollowTimeoutError:
    """The error for who waited too long, with what keeps it back as its cause."""
    error = running.health.error
    failure = FollowTimeoutError(
        timeout or 0.0,
        txid=running.txid,
        wanted=wanted,
        cause=None if error is None else str(error),
    )
    failure.__cause__ = error
    return failure


def _is_permanent(error: Exception | None) -> bool:
    if isinstance(error, DatabaseStateError):
        return not isinstance(error, SourceBusyError)
    return isinstance(error, _PERMANENT)
