"""The thread that looks, tends and hands out slots.

Looking at all files costs time for each of them, so it is done the less often the longer it
takes: at most a hundredth of a core goes into it. Where the system tells of changes
(``notices.py``) only what it told of is looked at, at once, and all files seldom.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlitereplica.group.keeper import Keeper
from sqlitereplica.group.notices import Notices
from sqlitereplica.replicate.driver import call_guarded

__all__ = ["Scanner"]

logger = logging.getLogger(__name__)

_SHARE = 100
_TICK, _BUSY_TICK = 0.25, 0.1
_AFTER_BUG = 1.0
_SELDOM = 30.0


class Scanner:
    """Drives a keeper until stopped."""

    def __init__(
        self,
        keeper: Keeper,
        path: str,
        *,
        interval: float,
        watch: Callable[[str, Callable[[], None]], Notices] = Notices,
    ) -> None:
        """``interval``: seconds between looks at all files, at least."""
        self._keeper, self._path, self._interval = keeper, path, interval
        self._wakeup = threading.Event()
        self._stopping = False
        self._watch = watch
        self._notices: Notices | None = None
        self._followed: list[str] | None = None
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
        self._attend(lambda: self._watch(self._path, self._wakeup.set))
        while not self._stopping:
            self._wakeup.clear()
            pause = call_guarded(self._step, self._keeper.failed)
            self._wakeup.wait(_AFTER_BUG if pause is None else pause)
        self._disregard()

    # -- notices ---------------------------------------------------------------------

    def _attend(self, make: Callable[[], Notices]) -> None:
        """Let the system tell; where it does not, all files are looked at more often."""
        try:
            self._notices = make()
        except OSError as error:
            logger.info("%s: changes are looked for: %s", self._path, error)
            return
        self._follow(self._notices)
        self._sweep_at = 0.0  # for what happened before it was told of

    def _follow(self, notices: Notices) -> None:
        folders = self._keeper.folders
        if folders is self._followed:
            return
        try:
            notices.follow(folders)
            self._followed = folders
        except OSError as error:
            logger.info("%s: changes are looked for: %s", self._path, error)
            self._disregard()

    def _disregard(self) -> None:
        notices, self._notices = self._notices, None
        if notices is not None:
            notices.close()

    def _notice(self) -> None:
        notices = self._notices
        if notices is None:
            return
        found = notices.take()
        if found.names or found.is_listed:
            self._keeper.look_at(found.names, listing=found.is_listed)
        self._follow(notices)

    # -- looks -----------------------------------------------------------------------

    def _step(self) -> float:
        keeper = self._keeper
        self._notice()
        keeper.tend()
        if time.monotonic() >= self._sweep_at:
            began = time.thread_time()
            keeper.sweep()
            cost = time.thread_time() - began
            least = self._interval
            if self._notices is not None:
                least = max(least, min(_SELDOM, 30 * least))
            self._sweep_at = time.monotonic() + max(least, _SHARE * cost)
        left = max(0.0, self._sweep_at - time.monotonic())
        if keeper.pool.queue:
            return min(left, _BUSY_TICK)
        return min(left, _TICK) if keeper.pool.table.slotted else left
