"""The history of one replica: compacted, given snapshots, thinned out, repaired, proved.

A worker (``worker.py``) only adds files to level 0. What becomes of them is the business of
tasks, one for each kind of work and level. They decide from the catalog of files that is
kept in memory, so an idle database costs no request; the decisions are pure functions
(``schedule.py``, ``retention.py``). Here is when each task is asked, and what becomes of its
failures; the threads are in ``housekeeper.py``.

Tasks are independent of each other and of the worker. What they rely on:

* The worker alone writes level 0, and a task is the only one of its kind and level and runs
  in one thread at a time. So no two threads put under the same name.
* Files are deleted by retention alone, after a fresh listing that shows every file that the
  catalog knows, or by repair, when their bytes are wrong.
* A task that fails leaves the replica as restorable as before: puts are whole files, and
  deletions come in an order in which every kept state stays restorable. The failure is said
  in status and events, and the task runs again after a pause that doubles: also when there
  is nothing to do any more by what is known, since what failed may have been done. So a
  failure that is over does not show for ever, and what a deletion left is found.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sqlitereplica.capture import ViewEndedError
from sqlitereplica.replicate.anyworker import Phase
from sqlitereplica.replicate.health import Health
from sqlitereplica.replicate.merging import BrokenFileError
from sqlitereplica.replicate.workshop import StoppedError, Workshop
from sqlitereplica.sqlite import SourceBusyError

__all__ = ["History", "Job", "Task"]

_LOOK_AGAIN = 60.0
_BUSY_PAUSE = 0.1


class Job(NamedTuple):
    """A kind of work; ``level`` is that of a compaction, else 0."""

    kind: str
    level: int = 0

    @property
    def heavy(self) -> bool:
        """Whether it may read or write as much as the database is large."""
        return self.kind in ("snapshot", "verify", "repair")


class Task(Protocol):
    """One kind of work on one replica."""

    job: Job

    def look(self) -> float:
        """0.0 when there is something to do, else seconds until it is worth a look.

        Makes no request.
        """

    def run(self) -> None:
        """Do it, in a thread of its own."""


@dataclass(slots=True)
class _Entry:
    task: Task
    health: Health = field(default_factory=Health)
    look_at: float = 0.0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held while it runs."""


class History:
    """The tasks of one replica. Thread-safe."""

    def __init__(
        self,
        shop: Workshop,
        tasks: Sequence[Task],
        *,
        on_broken: Callable[[BrokenFileError], object] = lambda error: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """``on_broken`` is told of files that a task found damaged or gone."""
        self.shop = shop
        self._entries = {task.job: _Entry(task) for task in tasks}
        self._on_broken = on_broken
        self._clock, self._now, self._rng = clock, now, rng
        self._bug: Exception | None = None

    def due(self) -> list[Job]:
        """What there is to do now and does not run yet."""
        if self.shop.stopped() or self.shop.worker.phase is not Phase.STREAM:
            return []
        now = self._clock()
        due = []
        for job, entry in self._entries.items():
            if job.kind == "compact" and not self.shop.store.is_readable:
                continue  # it can only be made where there are keys to read with
            busy = entry.turn.locked() or entry.health.pause(now) > 0
            if busy or now < entry.look_at:
                continue
            try:
                wait = entry.task.look()
            except Exception as error:  # noqa: BLE001
                self._failed(entry, error)  # a bug, and one that must be seen
                continue
            if wait <= 0 or entry.health.error is not None:
                due.append(job)
            else:
                entry.look_at = now + wait
        self._bug = None
        return due

    @property
    def pause(self) -> float:
        """Seconds until something that is not due now may be."""
        now = self._clock()
        looks = [e.look_at - now for e in self._entries.values() if e.look_at > now]
        return min(looks, default=_LOOK_AGAIN)

    def look_soon(self) -> None:
        """Ask every task at the next opportunity: something changed."""
        for entry in self._entries.values():
            entry.look_at = 0.0

    def run(self, job: Job) -> None:
        """Do a job; what goes wrong is kept and reported."""
        entry = self._entries[job]
        if not entry.turn.acquire(blocking=False):
            return
        try:
            entry.task.run()
        except StoppedError:
            return
        except (SourceBusyError, ViewEndedError):
            # No failure of the task's: the database was busy, or let go and attached anew.
            entry.look_at = self._clock() + _BUSY_PAUSE
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it shows in status and events, and is tried again.
            self._failed(entry, error)
        else:
            if entry.health.succeeded(self._now()):
                self.shop.report("history-ok", level=20, job=job.kind)
        finally:
            entry.turn.release()

    def perform(self, job: Job, work: Callable[[], object]) -> None:
        """Do the work of a job in this thread, since somebody waits for it.

        It begins when a run that is on its way has ended, and raises what goes wrong.
        """
        entry = self._entries[job]
        with entry.turn:
            work()
            entry.health.succeeded(self._now())

    @property
    def jobs(self) -> list[Job]:
        """What there is a task for."""
        return list(self._entries)

    def fail(self, error: Exception) -> None:
        """Note what went wrong outside of any task."""
        self._bug = error
        self.shop.report("history-error", level=40, error=error)

    def _failed(self, entry: _Entry, error: Exception) -> None:
        entry.health.failed(error, self._clock(), self._rng())
        job = entry.task.job
        self.shop.report(
            "history-error", level=30, error=error, job=job.kind, ltx_level=job.level
        )
        if isinstance(error, BrokenFileError):
            self._on_broken(error)
            self.look_soon()

    @property
    def error(self) -> Exception | None:
        """What fails at present; None when nothing does."""
        errors = [entry.health.error for entry in self._entries.values()]
        return next((e for e in (self._bug, *errors) if e is not None), None)

    def last_success(self, kind: str) -> float | None:
        """When a job of this kind last succeeded, in seconds since the epoch."""
        times = [
            e.health.last_success
            for e in self._entries.values()
            if e.task.job.kind == kind and e.health.last_success is not None
        ]
        return max(times, default=None)

    def stop(self) -> None:
        """Let running jobs end at their next piece of work, and begin no other."""
        self.shop.stop()
