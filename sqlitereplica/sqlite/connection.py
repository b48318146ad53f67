"""A connection of the application's own SQLite, and the border where its errors change.

The factory decides which copy of SQLite is used (stdlib ``sqlite3``, apsw, a cipher build).
Of what it returns only ``execute(sql)`` with ``fetchall()`` on the result, and ``close()``,
are needed. Every pragma set here lives in the connection and ends with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.sqlite import forking
from sqlitereplica.sqlite.forking import calling

__all__ = ["Connect", "SourceBusyError", "SourceConnection"]

Connect = Callable[[str], Any]
"""Opens the database at a path as the application does."""

_BUSY, _LOCKED, _READONLY, _CANTOPEN, _NOTADB, _CORRUPT = 5, 6, 8, 14, 26, 11


class SourceBusyError(DatabaseStateError):
    """Somebody holds a lock that we asked for; asking again later is right."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message, path=path, kind="busy")


class SourceConnection:
    """One connection to the source database. Belongs to the thread that made it."""

    def __init__(self, connect: Connect, path: str) -> None:
        self.path, self.calls = path, 0
        self._writing = False
        self.raw: Any = None
        with self._call():
            self.raw = connect(path)
            forking.watch(self)
        _as_we_need(self.raw)
        # We never wait inside SQLite: its busy handler sleeps too long to win against a
        # busy writer and would delay capture. Nor may our reads start a checkpoint.
        self.execute("pragma busy_timeout=0")
        self.execute("pragma wal_autocheckpoint=0")

    def execute(self, sql: str) -> list[Any]:
        """Run one statement and return its rows.

        Raises:
            SourceBusyError: a lock is taken.
            DatabaseStateError: SQLite refuses for any other reason.
        """
        with self._call():
            return list(self.raw.execute(sql).fetchall())

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Call SQLite: no fork happens meanwhile, and errors become ours."""
        self._enter()
        try:
            yield
        except Exception as error:
            _translate(error, self.path)
            raise
        finally:
            self._leave()

    def _enter(self) -> None:
        calling.enter()
        self.calls += 1

    def _leave(self) -> None:
        self.calls -= 1
        calling.leave()

    def begin_read(self) -> None:
        """Begin a read transaction and take its lock now, not at the first query."""
        self.execute("begin")
        try:
            self.execute("select 1 from sqlite_master limit 1")
        except BaseException:
            self.rollback()
            raise

    def begin_write(self) -> None:
        """Take the write lock (``BEGIN IMMEDIATE``); no fork happens until ``rollback``."""
        self._enter()
        try:
            self.execute("begin immediate")
        except BaseException:
            self._leave()
            raise
        self._writing = True

    def rollback(self) -> None:
        """End the transaction; nothing is ever written in one of ours."""
        try:
            self.execute("rollback")
        finally:
            self._let_fork()

    def _let_fork(self) -> None:
        if self._writing:
            self._writing = False
            self._leave()

    def checkpoint(self, mode: str) -> bool:
        """Run ``wal_checkpoint(mode)``; False when somebody else was in the way."""
        try:
            rows = self.execute(f"pragma wal_checkpoint({mode})")
        except SourceBusyError:
            return False
        return not rows[0][0]

    def close(self) -> None:
        """Close the connection; ends a transaction that is open."""
        try:
            with self._call():
                self.raw.close()
                forking.unwatch(self)
        finally:
            self._let_fork()

    def park(self) -> None:
        """Never close it, not even at the end of the process, nor in a child of a fork."""
        forking.unwatch(self)
        forking.park(self.raw)
        self._let_fork()


def _as_we_need(raw: Any) -> None:
    """Undo what a factory may set for the application's convenience: it is in our way.

    Rows that are no sequences, text that is no ``str``, and transactions that are always
    open (``autocommit=False``, Python 3.12).
    """
    plain = {"row_factory": None, "text_factory": str, "row_trace": None}
    for name, value in plain.items():
        if hasattr(raw, name):
            setattr(raw, name, value)
    if getattr(raw, "autocommit", None) is False:
        raw.autocommit = True


def _translate(error: Exception, path: str) -> None:
    """Raise our error for one of whatever SQLite module is in use; return for others."""
    code = None if isinstance(error, DatabaseStateError) else _code(error)
    if code is None:
        return
    if code in (_BUSY, _LOCKED):
        raise SourceBusyError(f"{path} is locked: {error}", path=path) from error
    kind = {
        _NOTADB: "not-a-database",
        _CORRUPT: "not-a-database",
        _CANTOPEN: "cannot-open",
        _READONLY: "cannot-open",
    }.get(code, "sqlite")
    hint = _hint(kind, path)
    raise DatabaseStateError(f"{path}: {error}{hint}", path=path, kind=kind) from error


def _hint(kind: str, path: str) -> str:
    """What SQLite's words do not say."""
    if os.path.isdir(path):
        return ". It is a folder: give the database in it"
    if kind == "not-a-database":
        return ". If it is encrypted, pass the connect= of the application"
    if kind == "cannot-open":
        mode = os.R_OK | os.W_OK
        if not os.access(os.path.dirname(path), mode) or not os.access(path, mode):
            return (
                ". This user may not write to it and its folder, which WAL mode needs"
            )
    return ""


def _code(error: Exception) -> int | None:
    """Primary SQLite result code of an exception of sqlite3, apsw or their relatives.

    None for an exception that does not come from SQLite.
    """
    for name in ("sqlite_errorcode", "extendedresult", "result"):
        code = getattr(error, name, None)
        if isinstance(code, int):
            return code & 0xFF
    if type(error).__name__ not in ("OperationalError", "DatabaseError"):
        return None
    text = str(error)  # modules without codes: the messages are SQLite's own
    if "locked" in text or "busy" in text:
        return _BUSY
    if "not a database" in text:
        return _NOTADB
    if "unable to open" in text:
        return _CANTOPEN
    if "readonly" in text:
        return _READONLY
    return 1
