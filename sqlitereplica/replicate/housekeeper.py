"""The threads in which histories are tended: one that looks what is due, one for each job.

A job may take long (a snapshot of a large database, a drill), so none waits behind another:
each runs in a thread of its own, made for it and ended with it. Two things bound them. Each
replica runs a job of one kind and level once at a time, and the process runs a few short and
a few heavy ones at once, the replicas taking turns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial

from sqlitereplica.replicate.driver import call_guarded
from sqlitereplica.replicate.history import History, Job

__all__ = ["Housekeeper", "forget_housekeeper", "housekeeper"]

_MOST_SHORT, _MOST_HEAVY = 4, 2
_LONGEST_SLEEP = 1.0


class Housekeeper:
    """Runs what is due of every history, in threads that live while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakeup = threading.Event()
        self._histories: list[History] = []
        self._running: dict[tuple[History, Job], threading.Thread] = {}
        self._thread: threading.Thread | None = None

    def add(self, histories: Iterable[History]) -> None:
        """Tend these from now on."""
        with self._lock:
            added = list(histories)
            if self._thread is None and added:
                thread = threading.Thread(
                    target=self._run, name="sqlitereplica-history", daemon=True
                )
                thread.start()  # it does not end before it has this lock
                self._thread = thread
            self._histories += added
        self._wakeup.set()

    def wake(self) -> None:
        """Look soon: something was asked for."""
        self._wakeup.set()

    def remove(self, histories: Iterable[History]) -> list[threading.Thread]:
        """Tend these no more; returns the threads of jobs that have yet to notice."""
        gone = list(histories)
        for history in gone:
            history.stop()
        with self._lock:
            self._histories = [h for h in self._histories if h not in gone]
            left = [t for (h, _), t in self._running.items() if h in gone]
        self._wakeup.set()
        return left

    def _run(self) -> None:
        while True:
            self._wakeup.clear()
            with self._lock:
                if not self._histories:
                    self._thread = None
                    return
                histories = list(self._histories)
            for history in histories:
                call_guarded(partial(self._look, history), history.fail)
            with self._lock:
                # Whoever had the first choice has the last one next time.
                self._histories = [*self._histories[1:], *self._histories[:1]]
            pauses = [history.pause for history in histories]
            self._wakeup.wait(min([_LONGEST_SLEEP, *pauses]))

    def _look(self, history: History) -> None:
        for job in history.due():
            self._begin(history, job)

    def _begin(self, history: History, job: Job) -> None:
        with self._lock:
            most = _MOST_HEAVY if job.heavy else _MOST_SHORT
            same = sum(1 for _, j in self._running if j.heavy == job.heavy)
            if (history, job) in self._running or same >= most:
                return
            if history not in self._histories:
                return
            thread = threading.Thread(
                target=self._do,
                args=(history, job),
                name=f"sqlitereplica-{job.kind}",
                daemon=True,
            )
            # Under the lock: whoever is given the thread to wait for must find it started.
            try:
                thread.start()
            except RuntimeError:
                return  # the interpreter is ending
            self._running[history, job] = thread

    def _do(self, history: History, job: Job) -> None:
        try:
            call_guarded(partial(history.run, job), history.fail)
        finally:
            with self._lock:
                del self._running[history, job]
            self._wakeup.set()


_housekeeper: Housekeeper | None = None
_housekeeper_lock = threading.Lock()


def housekeeper() -> Housekeeper:
    """The housekeeper of this process."""
    global _housekeeper
    with _housekeeper_lock:
        if _housekeeper is None:
            _housekeeper = Housekeeper()
        return _housekeeper


def forget_housekeeper() -> None:
    """After ``fork()``: the child has none of the threads."""
    global _housekeeper, _housekeeper_lock
    _housekeeper, _housekeeper_lock = None, threading.Lock()
