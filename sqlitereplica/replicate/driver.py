"""The threads: one for capture of all databases in the process, one for each replica.

Capture needs a few microseconds per look, so one thread serves many databases; SQLite's
connections belong to it. A store may be slow or away, so each replica has a thread of its
own, which sleeps while it has nothing to send. All are daemon threads: a process may end
without asking them (``replicator.py`` flushes at exit).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from sqlitereplica.replicate.anyworker import AnyWorker
from sqlitereplica.replicate.engine import Engine

__all__ = [
    "Driver",
    "WorkerThread",
    "call_guarded",
    "driver",
    "forget_driver",
    "together",
]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_AFTER_BUG = 0.1
_GRIDS = (0.2, 1 / 64)
"""Seconds; engines that have time are stepped together, at multiples of the first that is
not too long: so we wake up seldom, and find the caches warm."""


class Driver:
    """Steps every engine when it is due, in a thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakeup = threading.Event()
        self._due: dict[Engine, float] = {}
        self._woken: set[Engine] = set()
        self._tasks: list[tuple[Callable[[], None], Future[None]]] = []
        self._thread: threading.Thread | None = None

    def add(self, engine: Engine) -> None:
        """Step ``engine`` from now on."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, name="sqlitereplica", daemon=True
                )
                thread.start()  # it does not end before it has this lock
                self._thread = thread
            self._due[engine] = 0.0
        self._wakeup.set()

    def wake(self, engine: Engine) -> None:
        """Step ``engine`` soon, whether due or not."""
        with self._lock:
            if engine in self._due:
                self._woken.add(engine)
        self._wakeup.set()

    def remove(self, engine: Engine) -> Future[None]:
        """Close ``engine`` in the driver's thread and step it no more."""
        done: Future[None] = Future()

        def close() -> None:
            with self._lock:
                self._due.pop(engine, None)
            engine.close()

        with self._lock:
            self._tasks.append((close, done))
        self._wakeup.set()
        return done

    def _run(self) -> None:
        while True:
            with self._lock:
                tasks, self._tasks = self._tasks, []
            for task, done in tasks:
                try:
                    task()
                    done.set_result(None)
                except BaseException as error:  # noqa: BLE001
                    done.set_exception(_kept(error))
            with self._lock:
                if not self._due and not self._tasks:
                    self._thread = None
                    return
            if call_guarded(self._round, self._give_up) is None:
                self._wakeup.wait(_AFTER_BUG)

    def _give_up(self, error: Exception) -> None:
        for engine in list(self._due):
            engine.fail(error)

    def _round(self) -> bool:
        """Step who is due and sleep until the next one is, or until woken."""
        self._wakeup.clear()
        now = time.monotonic()
        with self._lock:
            woken, self._woken = self._woken, set()
            due = [e for e, at in self._due.items() if e in woken or at <= now]
        for engine in due:
            delay = call_guarded(engine.step, engine.fail)
            if delay is None:
                delay = _AFTER_BUG
            at = together(time.monotonic() + delay, delay)
            with self._lock:
                if engine in self._due:
                    self._due[engine] = at
        with self._lock:
            next_at = min(self._due.values(), default=0.0)
        wait = next_at - time.monotonic()
        if wait > 0:
            self._wakeup.wait(wait)
        return True


class WorkerThread:
    """Runs one worker until stopped."""

    def __init__(self, worker: AnyWorker) -> None:
        self.worker = worker
        self._wakeup = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, name=f"sqlitereplica-{worker.name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread, if it is not started yet."""
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        """There may be something to do."""
        self._wakeup.set()

    def stop(self, timeout: float) -> None:
        """End the thread after the unit of work that it is in; wait up to ``timeout``."""
        self._stopping = True
        self._wakeup.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """True while a unit of work is not done."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the end of a stopped thread."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wakeup.clear()
            moved = call_guarded(self.worker.advance, self.worker.fail)
            if moved is None:
                self._wakeup.wait(_AFTER_BUG)
            if not moved and not self._stopping:
                self._wakeup.wait(self.worker.pause or None)
        self.worker.close()


def together(at: float, delay: float) -> float:
    """When to step an engine that has time until ``at``, ``delay`` seconds from now."""
    for grid in _GRIDS:
        if delay >= grid:
            return at - at % grid
    return at


def call_guarded(
    action: Callable[[], _T], give_up: Callable[[Exception], object]
) -> _T | None:
    """Call ``action``; None when it raised, and then ``give_up`` was told.

    Engines, workers and histories keep their own errors, so this is a bug, or one of those
    that end a thread (SystemExit from the application's code): our threads serve others and
    go on.
    """
    try:
        return action()
    except BaseException as error:
        logger.exception("a thread failed", extra={"action": "thread-error"})
        kept = _kept(error)
    try:
        give_up(kept)
    except BaseException:
        logger.exception("giving up failed", extra={"action": "thread-error"})
    return None


def _kept(error: BaseException) -> Exception:
    """The error, or one instead that does not end a caller's thread, too."""
    if isinstance(error, Exception):
        return error
    kept = RuntimeError(f"{type(error).__name__} in a background thread: {error}")
    kept.__cause__ = error
    return kept


_driver: Driver | None = None
_driver_lock = threading.Lock()


def driver() -> Driver:
    """The driver of this process."""
    global _driver
    with _driver_lock:
        if _driver is None:
            _driver = Driver()
        return _driver


def forget_driver() -> None:
    """After ``fork()``: the child has none of the threads."""
    global _driver, _driver_lock
    _driver, _driver_lock = None, threading.Lock()
