"""``SteppedReplicator``: years of replication in a test, without threads or waiting."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from sqlitereplica.durations import Duration
from sqlitereplica.errors import SyncTimeoutError
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.options import HistoryOptions
from sqlitereplica.store import Replica
from sqlitereplica.testing.clock import SteppingClock
from sqlitereplica.testing.machinery import Stepped

__all__ = ["SteppedReplicator"]


class SteppedReplicator:
    """A Replicator to which nothing happens but what the test says.

    It works on a real database and a real replica. Time is that of ``clock``: uploads,
    compaction, snapshots and retention are done by ``sync`` and ``advance``, in the thread
    that calls them, and then at once.

    Example:
        >>> with SteppedReplicator(path, store.replica, retention="30d") as r:
        ...     for day in range(60):  # doctest: +SKIP
        ...         write_something(path)
        ...         r.sync()
        ...         r.advance("1d")
        ...     points = restore_points(store.replica)
    """

    def __init__(
        self,
        db: Path | str,
        replica: Replica,
        *,
        clock: SteppingClock | None = None,
        connect: Callable[[str], Any] = sqlite3.connect,
        levels: Sequence[Duration] = ("30s", "5m", "1h"),
        snapshot_interval: Duration | None = "24h",
        retention: Retention | Duration | None = None,
        verify_interval: Duration | None = None,
    ) -> None:
        """Attach to a database that exists; arguments are those of ``Replicator``."""
        self.clock = clock or SteppingClock()
        history = HistoryOptions.of(
            levels, snapshot_interval, retention, verify_interval
        )
        self._replica = replica
        self._stepped = Stepped(
            Path(db),
            [replica.open],
            clock=self.clock,
            connect=connect,
            history=history.for_replica(replica),
        )

    def sync(self) -> None:
        """Upload what was committed. Does not wait.

        Raises:
            SyncTimeoutError: the store failed, and would be asked again later.
            StoreError, DatabaseStateError: as ``Replicator.sync``.
        """
        ticket = self._stepped.sync()
        if ticket.future.done():
            ticket.future.result()
            return
        [worker] = self._stepped.workers
        cause = worker.health.error
        raise SyncTimeoutError(
            0.0,
            pending=(self._replica.display_name,),
            cause=str(cause) if cause else None,
        ) from cause

    def advance(self, duration: Duration) -> list[str]:
        """Let time pass, and then do what has come due of the replica's history.

        Returns:
            What was done, such as ``"compaction"``, ``"snapshot"``, ``"retention"``.
        """
        self.clock.advance(duration)
        self._stepped.run()
        return [job.kind for job in self._stepped.tend()]

    def snapshot(self) -> None:
        """Store a full copy now.

        Raises as ``sync``, and with what kept the snapshot from being made.
        """
        self.sync()
        error = self._stepped.snapshot()
        if error is not None:
            raise error

    def restart(self) -> None:
        """Be killed, and begin again as the next process would."""
        self._stepped.restart()

    def close(self) -> None:
        """Let go of the database, without a flush."""
        self._stepped.kill()
        for line in self._stepped.lines:
            line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
