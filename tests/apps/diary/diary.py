"""A diary in a SQLite database: a small package that uses the library and its plugin."""

from __future__ import annotations

import os
import sqlite3
from types import TracebackType
from typing import Self

from sqlitereplica import Replica, Replicator, SyncTimeoutError, restore

__all__ = ["Diary", "NotSafeError"]


class NotSafeError(Exception):
    """An entry was written, but is not known to be in the backup."""


class Diary:
    """Entries that are safe in a backup when ``write`` returns."""

    def __init__(self, path: str | os.PathLike[str], backup: Replica) -> None:
        restore(backup, path, if_exists="skip", missing="skip")
        self._connection = sqlite3.connect(path)
        self._connection.execute("pragma journal_mode=wal")
        self._connection.execute("create table if not exists entry(day, text)")
        self._replicator = Replicator(path, backup, sync_interval=0.05)

    def __enter__(self) -> Self:
        self._replicator.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._replicator.__exit__(kind, error, trace)
        self._connection.close()

    def write(self, day: str, text: str, *, patience: float = 60.0) -> None:
        """Add an entry; raises NotSafeError if the backup does not confirm in time."""
        with self._connection:
            self._connection.execute("insert into entry values(?, ?)", (day, text))
        try:
            self._replicator.sync(patience)
        except SyncTimeoutError as error:
            raise NotSafeError(day) from error

    def read(self, day: str) -> list[str]:
        """The entries of a day."""
        found = self._connection.execute("select text from entry where day=?", (day,))
        return [text for (text,) in found]
