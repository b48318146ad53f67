"""Many jobs on any ``concurrent.futures.Executor``, and what becomes of each.

Theory. There may be a hundred thousand replicas, and an executor holds whatever it is given
until that is done. So at most ``window`` jobs are given to it at a time; the replicas are
taken from their iterator as places become free, and nothing is kept of those that are
reported. A future says that it is done by putting itself into a queue: looking through all
of them, as ``concurrent.futures.wait`` does, would cost more than the jobs.

A job catches what it raises where it runs, and answers with a value that survives the way
back (``pickled.py``): an exception that cannot be read again where it arrives would end a
whole pool of processes. What an executor itself says (a worker was killed, it is shut down)
becomes a ``JobLostError`` of that replica, and the others go on.

Who stops iterating has the jobs cancelled that did not begin. Those that run cannot be
stopped from here; of our own threads they are waited for.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from sqlitereplica.errors import JobLostError
from sqlitereplica.fleet.outcome import Outcome
from sqlitereplica.pickled import portable
from sqlitereplica.store import Replica
from sqlitereplica.store.sharing import sharing

__all__ = ["Answer", "Job", "perform", "run_jobs"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """One function on one replica, to be done wherever it is carried."""

    function: Callable[..., T]
    """Found by its name where it runs."""
    replica: Replica
    options: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[Any, ...] = ()
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Dask would take the answer of an equal job for that of this one."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a job returned or raised."""

    result: T | None
    error: Exception | None
    seconds: float


def perform(job: Job[T]) -> Answer[T]:
    """Do a job; raises nothing that the job raises."""
    began = time.monotonic()
    result: T | None = None
    error: Exception | None = None
    try:
        result = job.function(sharing(job.replica), *job.arguments, **job.options)
    except Exception as failure:  # noqa: BLE001
        error = portable(failure)
    return Answer(result, error, time.monotonic() - began)


def run_jobs(
    jobs: Iterable[Job[T] | Outcome[T]],
    executor: Executor | None,
    *,
    threads: int,
    window: int,
) -> Iterator[Outcome[T]]:
    """Do all jobs; yields what became of them as they end.

    An ``Outcome`` among the jobs is one that is known without asking anybody.
    """
    if executor is not None:
        yield from _Run[T](executor, window).results(jobs)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="sqlitereplica-fleet")
    with pool:
        yield from _Run[T](pool, window).results(jobs)


class _Run(Generic[T]):
    """Jobs on their way."""

    def __init__(self, executor: Executor, window: int) -> None:
        self._executor, self._window = executor, window
        self._going: dict[Future[Answer[T]], Replica] = {}
        self._done: SimpleQueue[Future[Answer[T]]] = SimpleQueue()

    def results(self, jobs: Iterable[Job[T] | Outcome[T]]) -> Iterator[Outcome[T]]:
        """What became of them; raises what ``jobs`` raises when all is reported."""
        source = _Source(jobs)
        try:
            while self._going or not source.ended:
                # By turns one in and one out: neither a slow listing nor who is slow to
                # take the results keeps the other side waiting for more than that.
                if len(self._going) < self._window:
                    for job in source.take():
                        yield from self._begin(job)
                full = source.ended or len(self._going) >= self._window
                if self._going and (full or not self._done.empty()):
                    yield self._settle(self._done.get())
        finally:
            for future in list(self._going):
                future.cancel()
        if source.error is not None:
            raise source.error

    def _begin(self, job: Job[T] | Outcome[T]) -> Iterator[Outcome[T]]:
        if isinstance(job, Outcome):
            yield job
            return
        try:
            future = self._executor.submit(perform, job)
        except Exception as error:  # noqa: BLE001
            yield _lost(job.replica, "not-started", error)
            return
        self._going[future] = job.replica
        future.add_done_callback(self._done.put)

    def _settle(self, future: Future[Answer[T]]) -> Outcome[T]:
        replica = self._going.pop(future)
        try:
            answer = future.result()
        except Exception as error:  # noqa: BLE001
            return _lost(replica, "lost", error)
        return Outcome(
            replica=replica,
            result=answer.result,
            error=answer.error,
            seconds=answer.seconds,
        )


class _Source(Generic[T]):
    """Where jobs come from, until there are no more or it fails."""

    def __init__(self, jobs: Iterable[Job[T] | Outcome[T]]) -> None:
        self._jobs = iter(jobs)
        self.ended = False
        self.error: Exception | None = None

    def take(self) -> list[Job[T] | Outcome[T]]:
        """The next one, or none."""
        if not self.ended:
            try:
                return [next(self._jobs)]
            except StopIteration:
                self.ended = True
            except Exception as error:  # noqa: BLE001
                self.ended, self.error = True, error
        return []


def _lost(replica: Replica, kind: str, cause: BaseException) -> Outcome[Any]:
    error = JobLostError(replica.display_name, kind=kind, cause=cause)
    error.__cause__ = cause
    return Outcome(replica=replica, result=None, error=error, seconds=0.0)
