"""The WAL that a replaced database leaves beside the new one.

``mv new.db app.db`` is atomic for the database and says nothing of its WAL. SQLite deletes
a WAL when the last connection to the database is closed; a Replicator is such a connection
all the time. So it is by our fault that beside the new database the WAL of the old one
lies, with pages and a wal-index that whoever opens the database takes for the new one's. That
is a corrupt database. So it falls to us to take both files away, as soon as the move is
noticed: capture looks at the inode each time before it looks at the WAL.

The order makes every moment safe for who opens the new database just then:

1. our read transactions end, and SQLite itself, on the old connections, copies the WAL into
   the old file and truncates it. Then it has no pages for anybody, and the wal-index names
   none; only its size of the database is wrong.
2. ``-shm`` is unlinked: who comes now makes a new one, of an empty WAL.
3. ``-wal`` is unlinked, so that processes that go on with the old file write to the old WAL
   and others to a new one. Not if somebody has the new database open already: the empty WAL
   is theirs then.

Where 1. fails since others read or write the old file, both are unlinked all the same, unless
the new database is open somewhere with this WAL: what that process commits is in there. Then
nothing is touched and it is said.

What remains: who opens the new database between the move and the next look (2 to 50 ms) has
the old wal-index. So whoever moves a database starts its applications after that; and a
database is best replaced while nobody writes to it at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress

from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.sqlite.connection import SourceConnection
from sqlitereplica.sqlite.descriptors import FileId, file_id
from sqlitereplica.sqlite.openfiles import open_files, other_processes

__all__ = ["Leftover"]

_TRIES = 20
_PAUSE = 0.002


class Leftover:
    """The sidecars of a database that was replaced. Made before its connections close."""

    def __init__(self, path: str, wal: FileId, shm: FileId) -> None:
        """``wal`` and ``shm`` are those of the old database."""
        self._path, self._wal, self._shm = path, wal, shm
        self._emptied = False

    def empty(self, connections: Sequence[SourceConnection]) -> None:
        """Let SQLite empty the WAL, by connections to the old database."""
        for connection in connections:
            with suppress(DatabaseStateError):  # most have no transaction
                connection.rollback()
        for _ in range(_TRIES):
            try:
                done = connections[0].checkpoint("truncate")
            except DatabaseStateError:
                return  # the file is damaged, or gone altogether
            if done and self._wal_size() == 0:
                self._emptied = True
                return
            time.sleep(_PAUSE)

    def _wal_size(self) -> int | None:
        """Bytes of the WAL, None if another one has its name."""
        try:
            status = os.stat(f"{self._path}-wal")
        except FileNotFoundError:
            return None
        is_ours = (status.st_dev, status.st_ino) == self._wal
        return status.st_size if is_ours else None

    def remove(self) -> None:
        """Take the files away; to be called after our connections were closed.

        Raises:
            DatabaseStateError: ``kind`` ``"mixed-wal"``: the new database is in use with
                the WAL of the old one.
        """
        mixed = self._has_new_users()
        if mixed and not self._emptied:
            raise DatabaseStateError(
                f"{self._path} was replaced and opened by another process before that was"
                " noticed, which then took the WAL of the old file for its own: check it,"
                " and replace a database only while no application has it open",
                path=self._path,
                kind="mixed-wal",
            )
        self._unlink("-shm", self._shm)
        if not mixed:
            self._unlink("-wal", self._wal)

    def _has_new_users(self) -> bool:
        """Whether a process has both the new database and the old WAL open."""
        new = file_id(self._path)
        for pid in other_processes():
            files = set(open_files(pid))
            if new in files and self._wal in files:
                return True
        return False

    def _unlink(self, suffix: str, key: FileId) -> None:
        path = self._path + suffix
        if file_id(path) == key:
            with suppress(FileNotFoundError):
                os.unlink(path)
