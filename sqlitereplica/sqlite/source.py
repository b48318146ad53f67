"""The source database while it is attached: five connections and three descriptors.

Who may touch what:

* SQLite calls (connections) belong to the thread that attached: ``sqlite3`` enforces it.
* ``header``, ``read_wal`` and ``read_db`` only ``pread``; any thread may call them.
* The database and ``-shm`` descriptors come from ``descriptors.py`` and are never closed
  here; ``-wal`` is opened and closed freely, SQLite takes no lock on it.
* Whoever reads in another thread is a user of the descriptors, from ``share`` to ``let_go``.
  They outlive ``close`` until the last user is gone: a number that was closed may be another
  file's at once.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack

from sqlitereplica.errors import DatabaseStateError, InvalidFileError
from sqlitereplica.sqlite import descriptors, hazards
from sqlitereplica.sqlite.connection import Connect, SourceBusyError, SourceConnection
from sqlitereplica.sqlite.leftover import Leftover
from sqlitereplica.sqlite.wal import FRAME_HEADER_SIZE, frame_offset
from sqlitereplica.sqlite.walindex import WalIndex, read_wal_index

__all__ = ["SourceDatabase", "branch_map", "is_ready"]


def branch_map(path: str) -> str:
    """Where the page map of a branch is, see ``reading/branchmap.py``."""
    return path + "-branch"


def is_ready(path: str) -> bool:
    """True when there is a database to attach: a file that is not empty.

    An empty file is a database whose page size the application has yet to choose; opening
    it in WAL mode would choose for it.
    """
    try:
        return os.stat(path).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False


class SourceDatabase:
    """An attached database. Made and used by one thread, see the module's text."""

    def __init__(
        self, path: str, connect: Connect, *, copy: str, set_wal: bool = True
    ) -> None:
        """Attach to the database at ``path``.

        Raises:
            MixedSQLiteCopiesError: another copy of SQLite has the file open here.
            SourceBusyError: a lock is taken; try again.
            DatabaseStateError: not a database, not one yet (``"branch"``), or not in WAL
                mode and not to be switched.
        """
        self.path = path
        self._connect = connect
        self._connections: list[SourceConnection] = []
        self._keys: list[descriptors.FileId] = []
        self._wal = -1
        self._users, self._users_lock = 1, threading.Lock()
        self._guard: hazards.Guard | None = None
        hazards.check_before_open(path, copy)
        try:
            self._attach(copy, set_wal)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise DatabaseStateError(
                    f"{path} cannot be opened: {error}", path=path, kind="cannot-open"
                ) from error
            _explain_branch(error, path)
            raise

    def _attach(self, copy: str, set_wal: bool) -> None:
        before = descriptors.file_id(self.path)
        self.reader = self._open()
        _ensure_wal_mode(self.reader, set_wal)
        self.page_size: int = self.reader.execute("pragma page_size")[0][0]
        self.other, self.checkpointer = self._open(), self._open()
        self.barrier, self.viewer = self._open(), self._open()
        for connection in self._connections:  # also opens -wal and -shm
            connection.execute("select 1 from sqlite_master limit 1")
        self._db, self._db_key = descriptors.acquire(self.path)
        self._keys.append(self._db_key)
        try:
            self._shm, self._shm_key = descriptors.acquire(self.path + "-shm")
        except FileNotFoundError as error:
            raise _exclusive(self.path) from error
        self._keys.append(self._shm_key)
        self._wal = os.open(self.path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        self._wal_key = _fstat_key(self._wal)
        if before != self._db_key:
            # Some connections may be to the file of before.
            raise SourceBusyError(f"{self.path} is being replaced", path=self.path)
        self._guard = hazards.guard(self.path, self._db_key, copy)
        self._guard.check()

    def _open(self) -> SourceConnection:
        connection = SourceConnection(self._connect, self.path)
        self._connections.append(connection)
        return connection

    def header(self) -> WalIndex:
        """One look at the wal-index.

        Raises:
            SourceBusyError: it does not settle; a read transaction repairs it.
        """
        index = read_wal_index(self._shm)
        if index is None:
            raise SourceBusyError("the wal-index is being rebuilt", path=self.path)
        return index

    def read_wal(self, first: int, count: int) -> bytes:
        """Bytes of ``count`` frames from number ``first``, which the wal-index counts.

        Raises:
            InvalidFileError: ``kind`` ``"wal-short"``: there are fewer.
        """
        size = count * (self.page_size + FRAME_HEADER_SIZE)
        data = self._read(self._wal, size, frame_offset(first, self.page_size))
        if len(data) < size:
            raise InvalidFileError(
                f"{self.path}-wal is shorter than its wal-index says", kind="wal-short"
            )
        return data

    def read_wal_page(self, frame: int) -> bytes:
        """The page of one frame."""
        offset = frame_offset(frame, self.page_size) + FRAME_HEADER_SIZE
        return self._read(self._wal, self.page_size, offset)

    def frame_checksum(self, frame: int) -> bytes:
        """The 8 checksum bytes in the header of a frame."""
        return self._read(self._wal, 8, frame_offset(frame, self.page_size) + 16)

    def db_pages(self) -> int:
        """Whole pages in the database file."""
        return os.fstat(self._db).st_size // self.page_size

    def wal_file_size(self) -> int:
        """Bytes of the ``-wal`` file, of which the newest WAL may use only a part."""
        return os.fstat(self._wal).st_size

    def read_db(self, pgno: int, count: int) -> bytes:
        """``count`` pages of the database file; what lies past its end reads as zeros."""
        size = count * self.page_size
        data = self._read(self._db, size, (pgno - 1) * self.page_size)
        return data if len(data) == size else data.ljust(size, b"\0")

    def _read(self, fd: int, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""
        try:
            data = os.pread(fd, size, offset)
            while 0 < len(data) < size:  # interrupted, or at the end
                more = os.pread(fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data
        except OSError as error:
            raise DatabaseStateError(
                f"{self.path} cannot be read: {error}",
                path=self.path,
                kind="unreadable",
            ) from error

    def check_place(self) -> None:
        """Look whether this is still the file at ``path``: one ``stat``.

        Raises:
            DatabaseStateError: ``kind`` ``"replaced"``; attach anew.
        """
        if descriptors.file_id(self.path) != self._db_key:
            raise DatabaseStateError(
                f"{self.path} was replaced or removed", path=self.path, kind="replaced"
            )

    def check(self) -> None:
        """Look whether this is still the database at ``path``; three ``stat`` calls.

        Raises:
            DatabaseStateError: ``kind`` ``"replaced"`` or ``"wal-lost"``; attach anew.
            MixedSQLiteCopiesError: another copy of SQLite came to the file.
        """
        self.check_place()
        for suffix, key in (("-wal", self._wal_key), ("-shm", self._shm_key)):
            if descriptors.file_id(self.path + suffix) != key:
                raise DatabaseStateError(
                    f"{self.path}{suffix} was removed while the database was open:"
                    " commits made since may be lost; nothing but SQLite may delete it",
                    path=self.path,
                    kind="wal-lost",
                )

    @property
    def tripped(self) -> bool:
        """True once another copy of SQLite was caught on the file; costs nothing."""
        return self._guard is not None and self._guard.tripped is not None

    def check_copies(self, max_age: float = 0.0) -> None:
        """Raise MixedSQLiteCopiesError when another copy of SQLite is on the file."""
        if self._guard is not None:
            self._guard.check(max_age)

    def share(self) -> None:
        """Be one more user of the descriptors; to be called before ``close``."""
        with self._users_lock:
            self._users += 1

    def let_go(self) -> None:
        """Be a user no more; the last one closes what may be closed."""
        with self._users_lock:
            self._users -= 1
            if self._users:
                return
        if self._wal >= 0:
            os.close(self._wal)
        for key in self._keys:
            descriptors.release(key)

    def close(self) -> None:
        """Close the connections; descriptors stay as long as the module's text says.

        If another file has the database's name now, its WAL is taken away.

        Raises:
            DatabaseStateError: ``kind`` ``"mixed-wal"``: that file is in use with it.
        """
        with ExitStack() as stack:
            stack.callback(self.let_go)
            leftover = self._leftover()
            if leftover is not None:
                stack.callback(leftover.remove)
                leftover.empty(self._connections)
            if self._guard is not None:
                mixed = self._guard.tripped is not None
                hazards.unguard(self._guard)
                self._guard = None
                if mixed:
                    self._park()
            for connection in self._connections:
                stack.callback(connection.close)
            self._connections.clear()

    def _leftover(self) -> Leftover | None:
        """What has to be taken away, if the database was replaced by another file."""
        is_whole = len(self._keys) == 2 and self._wal >= 0 and self._connections
        if not is_whole or descriptors.file_id(self.path) in (None, self._db_key):
            return None
        if self._guard is not None and self._guard.tripped is not None:
            return None  # another copy of SQLite is on the files: nothing is certain
        return Leftover(self.path, self._wal_key, self._shm_key)

    def _park(self) -> None:
        """Let go of the connections without closing them, for the process's life.

        Closing one would drop the locks of another copy of SQLite.
        """
        for connection in self._connections:
            connection.park()
        self._connections.clear()


def _explain_branch(error: BaseException, path: str) -> None:
    """Raise a better error if the file is no database since it is a branch."""
    if getattr(error, "kind", "") == "not-a-database" and os.path.exists(
        branch_map(path)
    ):
        raise DatabaseStateError(
            f"{path} is a branch, some of whose pages are in its replica only: call its"
            " finish(), or give the Replicator the branch itself instead of its path",
            path=path,
            kind="branch",
        ) from error


def _ensure_wal_mode(connection: SourceConnection, set_wal: bool) -> None:
    path = connection.path
    mode = connection.execute("pragma journal_mode")[0][0]
    if mode != "wal" and not set_wal:
        raise DatabaseStateError(
            f"{path} is in journal mode {mode!r}, and capture needs WAL: run"
            " 'PRAGMA journal_mode=WAL' once or let the Replicator do it"
            " (set_wal=True)",
            path=path,
            kind="journal-mode",
        )
    if mode != "wal":
        if connection.execute("pragma page_count")[0][0] == 0:
            # What was in the file has just been rolled back: see ``is_ready``.
            raise SourceBusyError(f"{path} is empty", path=path)
        mode = connection.execute("pragma journal_mode=wal")[0][0]
    if mode != "wal":
        raise DatabaseStateError(
            f"{path} cannot be switched to WAL mode; SQLite answered {mode!r}",
            path=path,
            kind="journal-mode",
        )
    if connection.execute("pragma locking_mode")[0][0] != "normal":
        raise _exclusive(path)


def _exclusive(path: str) -> DatabaseStateError:
    return DatabaseStateError(
        f"{path} is used with locking_mode=EXCLUSIVE, which keeps the wal-index in one"
        " connection's memory: set 'PRAGMA locking_mode=NORMAL' to replicate it",
        path=path,
        kind="exclusive",
    )


def _fstat_key(fd: int) -> descriptors.FileId:
    st = os.fstat(fd)
    return st.st_dev, st.st_ino
