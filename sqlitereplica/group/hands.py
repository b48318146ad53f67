"""A few threads for what may take long: one for each job, made and ended with it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from sqlitereplica.replicate.driver import call_guarded

__all__ = ["Hands"]


class Hands:
    """Does jobs, so many at once, in the order given. Thread-safe."""

    def __init__(self, most: int, fail: Callable[[Exception], object]) -> None:
        """``fail`` is told of an error that a job lets out: a bug."""
        self._most, self._fail = most, fail
        self._lock = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = 0

    def do(self, job: Callable[[], None]) -> None:
        """Do it soon."""
        with self._lock:
            self._waiting.append(job)
            if self._busy >= self._most:
                return
            self._busy += 1
        self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(
            target=self._work, name="sqlitereplica-hand", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or out of threads
            self._work()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy -= 1
                    self._lock.notify_all()
                    return
                job = self._waiting.popleft()
            call_guarded(job, self._fail)

    def wait(self, timeout: float | None) -> bool:
        """Whether all is done; waits for it."""
        with self._lock:
            return self._lock.wait_for(lambda: self._busy == 0, timeout)
