"""The thread that looks, tends and hands out slots.

Looking at all files costs time for each of them, so it is done the less often the longer it
takes: at most a hundredth of a core goes into it.
"""

from __future__ import annotations

import threading
import time

from sqlitereplica.group.keeper import Keeper
from sqlitereplica.replicate.driver import call_guarded

__all__ = ["Scanner"]

_SHARE = 100
_TICK, _BUSY_TICK = 0.25, 0.1
_AFTER_BUG = 1.0


class Scanner:
    """Drives a keeper until stopped."""

    def __init__(self, keeper: Keeper, *, interval: float, listing: bool) -> None:
        """``interval``: seconds between looks at all files, at least."""
        self._keeper, self._interval, self._listing = keeper, interval, listing
        self._wakeup = threading.Event()
        self._stopping = False
        self._sweep_at = time.monotonic() + interval
        self._thread = threading.Thread(
            target=self._run, name="sqlitereplica-group", daemon=True
        )
        keeper.pool.wake = self._wakeup.set

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End it, after the look that it is at."""
        self._stopping = True
        self._wakeup.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wakeup.clear()
            pause = call_guarded(self._step, self._keeper.failed)
            self._wakeup.wait(_AFTER_BUG if pause is None else pause)

    def _step(self) -> float:
        keeper = self._keeper
        keeper.tend()
        if time.monotonic() >= self._sweep_at:
            began = time.thread_time()
            keeper.sweep(listing=self._listing)
            cost = time.thread_time() - began
            self._sweep_at = time.monotonic() + max(self._interval, _SHARE * cost)
        left = max(0.0, self._sweep_at - time.monotonic())
        if keeper.pool.queue:
            return min(left, _BUSY_TICK)
        return min(left, _TICK) if keeper.pool.table.slotted else left
