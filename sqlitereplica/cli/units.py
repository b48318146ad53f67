"""The databases of a daemon: each with its Replicator, started, stopped, taken in and let go.

``Units`` may be used from any thread: the daemon's own, and those that answer requests.
Every ``Unit`` has a lock of its own, so that one that is slow to stop holds up no other.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlitereplica.config import DatabasePlan, DatedReplica, check_places
from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.replicate import Mirror, Replicator
from sqlitereplica.restore import restore
from sqlitereplica.store import Replica
from sqlitereplica.store.dated import delete_expired

__all__ = ["Unit", "Units"]

logger = logging.getLogger("sqlitereplica.cli")

Now = Callable[[], datetime]

_RETRY_AFTER = timedelta(seconds=10)


def stop_together(
    stops: Iterable[tuple[str, Callable[[], object]]],
) -> list[Exception]:
    """Stop what has these paths, so that one that is slow takes no time of the others.

    Returns and logs what went wrong.
    """
    failures: list[Exception] = []

    def run(path: str, stop: Callable[[], object]) -> None:
        try:
            stop()
        except (SQLiteReplicaError, OSError) as error:
            logger.error("%s", told_of(path, error))
            failures.append(error)

    threads = [threading.Thread(target=run, args=each) for each in stops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def told_of(path: str, error: Exception) -> str:
    """What a log says of an error of a database, whose path many errors name themselves."""
    text = str(error)
    return text if path in text else f"{path}: {text}"


class Unit:
    """One database and its Replicator at present. Thread-safe."""

    def __init__(self, plan: DatabasePlan, now: Now, **arguments: Any) -> None:
        """``arguments`` are given to the Replicator beside those of the plan."""
        self.plan = plan
        self.replicator: Replicator | None = None
        self._now, self._arguments = now, {**plan.arguments, **arguments}
        self._replicas: tuple[Replica | Mirror, ...] = ()
        self._lock = threading.RLock()
        self._is_wanted = False
        self._again = datetime.min.replace(
            tzinfo=UTC
        )  # when a failed start is repeated

    @property
    def is_down(self) -> bool:
        """Whether it should be replicated, and is not."""
        return self._is_wanted and self.replicator is None

    @property
    def replica_names(self) -> list[str]:
        """The names of the replicas of this time."""
        return [r.display_name for r in self.plan.replicas_at(self._now())]

    def restore(self) -> None:
        """Bring the database back if it is not there; an empty backup is a fresh start."""
        replicas = self.plan.stores_at(self._now())
        observed = {k: v for k, v in self._arguments.items() if k == "observer"}
        result = restore(
            replicas, self.plan.path, if_exists="skip", missing="skip", **observed
        )
        logger.info("%s: %s", self.plan.path, result.reason)

    def start(self) -> bool:
        """Start replicating to the replicas of this time; False if it is already.

        Raises as ``Replicator.start``.
        """
        with self._lock:
            if self.replicator is not None:
                return False
            self._begin()
            self._is_wanted = True
            return True

    def _begin(self) -> None:
        replicas = self.plan.replicas_at(self._now())
        replicator = Replicator(self.plan.path, replicas, **self._arguments)
        replicator.start()
        self._replicas, self.replicator = replicas, replicator

    def stop(self, timeout: float | None = None) -> bool:
        """Flush and stop; False if it is stopped. Raises as ``Replicator.stop``."""
        with self._lock:
            self._is_wanted = False
            return self._end(timeout)

    def _end(self, timeout: float | None = None) -> bool:
        replicator, self.replicator = self.replicator, None
        if replicator is None:
            return False
        replicator.stop(timeout)
        return True

    def roll(self) -> None:
        """If the date in a replica's path has changed, go on with the new one.

        What is durable in the old one stays there; it is deleted when its time has come.
        A new one that cannot be started is tried again, every ten seconds.
        """
        with self._lock:
            current = [r.display_name for r in self._replicas]
            is_current = self.replicator is not None and self.replica_names == current
            if not self._is_wanted or is_current or self._now() < self._again:
                return
            logger.info("%s: the date changed, a new replica begins", self.plan.path)
            try:
                self._end()
            finally:
                self._again = self._now() + _RETRY_AFTER
                self._begin()
                self._again = self._now()
        self.expire()

    def expire(self) -> None:
        """Delete dated replicas of days that need not stay; a failure is logged."""
        now = self._now()
        for replica in self.plan.replicas:
            if not isinstance(replica, DatedReplica):
                continue
            try:
                earlier, retention = replica.earlier(now), replica.retention
                for gone in delete_expired(earlier, retention, now):
                    logger.info("%s: deleted, nothing in it needs to stay", gone)
            except SQLiteReplicaError as error:
                logger.error("%s: old replicas stay: %s", self.plan.path, error)


class Units:
    """All databases by their paths. Thread-safe."""

    def __init__(
        self, plans: Iterable[DatabasePlan], now: Now, **arguments: Any
    ) -> None:
        self._now, self._arguments = now, arguments
        self._lock = threading.Lock()
        self._units = {plan.path: self._make(plan) for plan in plans}

    def _make(self, plan: DatabasePlan) -> Unit:
        return Unit(plan, self._now, **self._arguments)

    def __iter__(self) -> Iterator[Unit]:
        with self._lock:
            return iter(list(self._units.values()))

    def __len__(self) -> int:
        with self._lock:
            return len(self._units)

    def find(self, path: str) -> Unit | None:
        """The unit of a database."""
        with self._lock:
            return self._units.get(os.path.abspath(os.path.expanduser(path)))

    def add(self, plan: DatabasePlan) -> Unit | None:
        """Take in a database and start it; None if it is there already.

        Raises ConfigError if another has its replica, and as ``Unit.start``.
        """
        with self._lock:
            if plan.path in self._units:
                return None
            check_places([*(unit.plan for unit in self._units.values()), plan])
            unit = self._units[plan.path] = self._make(plan)
        try:
            unit.start()
        except BaseException:
            self.remove(plan.path)
            raise
        return unit

    def remove(self, path: str) -> Unit | None:
        """Let a database go, without stopping it; None if it is not there."""
        with self._lock:
            return self._units.pop(os.path.abspath(os.path.expanduser(path)), None)

    def stop_all(self) -> list[Exception]:
        """Stop all at once; returns and logs what went wrong."""
        return stop_together((unit.plan.path, unit.stop) for unit in self)
