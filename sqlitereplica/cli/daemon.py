"""The daemon: Replicators for a configuration, a child process, signals.

A thin edge. What it adds to the library: it restores what is missing before it starts,
it hands signals on to the child and ends with it, and when the date in the path of a
replica changes it starts that database's Replicator anew with the new one.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from types import FrameType

from sqlitereplica.cli.exits import FAILED, INTERRUPTED
from sqlitereplica.config import Config, DatabasePlan, DatedReplica
from sqlitereplica.errors import ConfigError, SQLiteReplicaError
from sqlitereplica.replicate import Mirror, Replicator
from sqlitereplica.restore import restore
from sqlitereplica.store import Replica
from sqlitereplica.store.dated import delete_expired

__all__ = ["Daemon", "Unit"]

logger = logging.getLogger("sqlitereplica.cli")

_LOOK_EVERY = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Unit:
    """One database and its Replicator at present. Belongs to one thread."""

    def __init__(self, plan: DatabasePlan, now: Callable[[], datetime]) -> None:
        self.plan = plan
        self._now = now
        self._replicas: tuple[Replica | Mirror, ...] = ()
        self.replicator: Replicator | None = None

    def restore(self) -> None:
        """Bring the database back if it is not there; an empty backup is a fresh start."""
        replicas = self.plan.stores_at(self._now())
        result = restore(replicas, self.plan.path, if_exists="skip", missing="skip")
        logger.info("%s: %s", self.plan.path, result.reason)

    def start(self) -> Replicator:
        """Start replicating to the replicas of this time; raises as ``Replicator.start``."""
        self._replicas = self.plan.replicas_at(self._now())
        self.replicator = Replicator(
            self.plan.path, self._replicas, **self.plan.arguments
        )
        self.replicator.start()
        return self.replicator

    def roll(self) -> None:
        """If the date in a replica's path has changed, go on with the new one.

        What is durable in the old one stays there; it is deleted when its time has come.
        """
        replicas = self.plan.replicas_at(self._now())
        if [r.display_name for r in replicas] == [
            r.display_name for r in self._replicas
        ]:
            return
        logger.info("%s: the date changed, a new replica begins", self.plan.path)
        self.stop()
        self.start()
        self.expire()

    def expire(self) -> None:
        """Delete dated replicas of days that need not stay; a failure is logged."""
        now = self._now()
        for replica in self.plan.replicas:
            if not isinstance(replica, DatedReplica):
                continue
            try:
                for gone in delete_expired(
                    replica.earlier(now), replica.retention, now
                ):
                    logger.info("%s: deleted, nothing in it needs to stay", gone)
            except SQLiteReplicaError as error:
                logger.error("%s: old replicas stay: %s", self.plan.path, error)

    def stop(self, timeout: float | None = None) -> None:
        """Flush and stop; raises as ``Replicator.stop``."""
        replicator, self.replicator = self.replicator, None
        if replicator is not None:
            replicator.stop(timeout)


class Daemon:
    """Runs the databases of a configuration until it is told to stop."""

    def __init__(
        self,
        config: Config,
        plans: Sequence[DatabasePlan],
        *,
        restore_all: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """Raises ConfigError if there is nothing to do."""
        if not plans:
            raise ConfigError("no databases are configured")
        self._config, self._restore_all = config, restore_all
        self._units = [Unit(plan, now) for plan in plans]
        self._stopping = threading.Event()
        self._signals = 0
        self._child: subprocess.Popen[bytes] | None = None

    # -- one pass --------------------------------------------------------------------

    def run_once(self, *, snapshot: bool, retention: bool) -> int:
        """Make everything durable, and end; the exit code."""
        code = 0
        for unit in self._units:
            try:
                self._prepare(unit)
                replicator = unit.start()
                try:
                    replicator.sync(timeout=None)
                    if snapshot:
                        replicator.snapshot()
                    if retention:
                        replicator.enforce_retention()
                finally:
                    unit.stop()
            except SQLiteReplicaError as error:
                logger.error("%s: %s", unit.plan.path, error)
                code = FAILED
        return code

    # -- until stopped ---------------------------------------------------------------

    def run(self, command: str | None) -> int:
        """Replicate, and run the command, until it or a signal ends it; the exit code."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            for unit in self._units:
                self._prepare(unit)
                unit.start()
                logger.info(
                    "replicating %s to %s",
                    unit.plan.path,
                    ", ".join(r.display_name for r in unit._replicas),
                )
            if command:
                self._child = subprocess.Popen(shlex.split(command))
            code = self._wait()
        finally:
            code = self._stop_all(FAILED if self._child is None else 0) or code
        return code

    def _prepare(self, unit: Unit) -> None:
        if self._restore_all or unit.plan.config.restore_if_db_not_exists:
            unit.restore()
        unit.expire()

    def _wait(self) -> int:
        """Until a signal comes or the child ends; the exit code."""
        while not self._stopping.wait(_LOOK_EVERY):
            if self._child is not None and self._child.poll() is not None:
                return _code_of(self._child.returncode)
            for unit in self._units:
                try:
                    unit.roll()
                except SQLiteReplicaError as error:
                    logger.error("%s: %s", unit.plan.path, error)
        if self._child is None:
            return 0
        return _code_of(self._child.wait())

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signals += 1
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)
        if self._signals > 1:
            os._exit(INTERRUPTED)  # somebody insists: nothing is waited for
        self._stopping.set()

    def _stop_all(self, failed: int) -> int:
        """Flush all at once: one that is slow must not take the time of the others."""
        del failed
        codes: list[int] = []

        def stop(unit: Unit) -> None:
            try:
                unit.stop()
            except SQLiteReplicaError as error:
                logger.error("%s: %s", unit.plan.path, error)
                codes.append(FAILED)

        threads = [threading.Thread(target=stop, args=(unit,)) for unit in self._units]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(codes, default=0)


def _code_of(returncode: int) -> int:
    """A shell's exit code for a process that a signal ended."""
    return returncode if returncode >= 0 else 128 - returncode
