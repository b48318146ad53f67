"""``ReplicatedDatabase``: a database with a Replicator at work, for one test."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

from sqlitereplica.errors import StoreError, SyncTimeoutError
from sqlitereplica.replicate import Replicator
from sqlitereplica.restore import restore
from sqlitereplica.testing.stores import MemoryStore

__all__ = ["ReplicatedDatabase"]


class ReplicatedDatabase:
    """An empty WAL database in ``folder`` that is replicated to ``store``.

    The application under test opens ``path`` as it always does. ``connect`` and
    ``execute`` are for the test itself: their connections are closed at the end.

    Example:
        >>> with ReplicatedDatabase(tmp_path) as db:  # doctest: +SKIP
        ...     db.execute("create table t(x)")
        ...     db.sync()
        ...     copy = db.restored()
    """

    def __init__(
        self, folder: Path, store: MemoryStore | None = None, **options: Any
    ) -> None:
        """Describe it; ``with`` makes it. ``options`` are those of ``Replicator``."""
        self.folder = folder
        self.path = folder / "replicated.db"
        self.store = store or MemoryStore()
        self._options = {"sync_interval": 0.05, **options}
        self._connections: list[sqlite3.Connection] = []
        self._copies = count(1)
        self.replicator = self._replicator()

    def _replicator(self) -> Replicator:
        return Replicator(self.path, self.store.replica, **self._options)

    def __enter__(self) -> Self:
        self.execute("pragma journal_mode=wal")
        self.replicator.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, without a last flush: a test that wants one says ``sync``."""
        self._stop()

    def connect(self) -> sqlite3.Connection:
        """A new connection, which is closed at the end."""
        connection = sqlite3.connect(self.path, timeout=30)
        self._connections.append(connection)
        return connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement in a transaction of its own; returns its rows."""
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def sync(self, timeout: float | None = 60.0) -> None:
        """Return when all that was committed is in the replica, as ``Replicator.sync``."""
        self.replicator.sync(timeout)

    def restored(self, **options: Any) -> Path:
        """A new database made of the replica as it is; ``options`` are those of ``restore``.

        It is checked in full. Call ``sync`` before, if all is to be in it.
        """
        path = self.folder / f"restored-{next(self._copies)}.db"
        restore(self.store.replica, path, **{"verify": "full", **options})
        return path

    def lose(self) -> None:
        """Lose the machine: the database, and whatever was not in the replica yet.

        The application's own connections have to be closed before.
        """
        self._stop()
        for path in self.folder.glob(f"*{self.path.name}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def recover(self) -> None:
        """Start on a new machine: restore if there is a backup, and replicate.

        Raises as ``restore`` and as ``Replicator.start``.
        """
        restore(self.store.replica, self.path, if_exists="skip", missing="skip")
        self.replicator = self._replicator()
        self.__enter__()

    def _stop(self) -> None:
        try:
            self.replicator.stop(timeout=0)
        except (SyncTimeoutError, StoreError):
            pass  # what was not synchronised is nobody's claim, and a store may be faulty
        for connection in self._connections:
            connection.close()
        self._connections.clear()
