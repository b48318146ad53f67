"""Forks: what a child inherits of SQLite, and how to get rid of it.

SQLite keeps in the memory of the process which locks it holds on a file, and shares that
between all connections of the process. A child inherits this memory but not the locks. So
while one inherited connection is open there, a *new* connection of the child finds the
locks taken already and takes none of the operating system's (measured: none at all):
others checkpoint under its feet, and the last one to close deletes the WAL that it writes.

So the child closes our inherited connections at once, before anybody opens one. It holds no
lock, so closing drops none, neither its own nor the parent's: POSIX locks belong to the
process. What makes this safe is that none of them is in the middle of anything:

* a fork waits until no call into SQLite of ours is under way (``calling``), since the child
  would inherit SQLite's mutexes as taken, and
* until none of ours holds the write lock, whose end tidies the wal-index that is shared.

If it waits too long the child leaves them as they are for ever, unclosed. Those connections
that the application inherited are not ours to close; ``locks_are_real`` tells whether the
locks of this process are, and who is told that they are not does not read the database.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from sqlitereplica.sqlite.descriptors import FileId, file_id

__all__ = ["calling", "locks_are_real", "park", "unwatch", "watch"]

_PATIENCE = 5.0
_SHARED_RANGE = "1073741826"
"""Where the lock begins that every open connection has on a database in WAL mode."""


class _Connection(Protocol):
    raw: Any


calling = threading.RLock()
"""Held by whoever calls SQLite on the source, and for as long as it has the write lock."""
_open: weakref.WeakSet[_Connection] = weakref.WeakSet()
_parked: list[Any] = []
_waited = False


def watch(connection: _Connection) -> None:
    """Have a connection closed in children; a weak reference is kept."""
    _open.add(connection)


def unwatch(connection: _Connection) -> None:
    """Leave a connection to children as it is."""
    _open.discard(connection)


def park(raw: Any) -> None:
    """Let go of a connection without closing it, for the process's life."""
    # One reference too many: not even the end of the interpreter frees it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))
    _parked.append(raw)


def locks_are_real(path: str, connect: Callable[[str], Any]) -> bool:
    """Whether a connection of this process really locks the database at ``path``.

    False where the system does not tell, and when there is no database to try it on.
    """
    if file_id(path) is None:
        return True  # nobody can have inherited it
    connection = connect(path)
    try:
        connection.execute("begin")  # or the lock is gone again, without a WAL
        connection.execute("select 1 from sqlite_master limit 1").fetchall()
        key = file_id(path)
        return key is not None and _has_lock(key)
    finally:
        connection.close()


def _has_lock(key: FileId) -> bool:
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return False
    mine, inode = str(os.getpid()), str(key[1])
    return any(
        len(f) > 7
        and f[4] == mine
        and f[5].rpartition(":")[2] == inode
        and f[6] == _SHARED_RANGE
        for f in lines
    )


def _before() -> None:
    global _waited
    _waited = calling.acquire(timeout=_PATIENCE)


def _after_in_parent() -> None:
    if _waited:
        calling.release()


def _after_in_child() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is one for those that are not closed
        for connection in list(_open):
            _get_rid_of(connection)
    _open.clear()
    if _waited:
        calling.release()
    else:
        calling._at_fork_reinit()  # type: ignore[attr-defined]


def _get_rid_of(connection: _Connection) -> None:
    raw, connection.raw = connection.raw, None
    if raw is None:
        return
    if not _waited:
        park(raw)
        return
    try:
        raw.close()
    except Exception:  # noqa: BLE001
        _close_as_sqlite3(raw)


def _close_as_sqlite3(raw: Any) -> None:
    """Close a connection that belongs to a thread which is not in this process.

    ``close`` of ``sqlite3``, and of the modules made after it, insists on that thread, and
    the garbage collector may take its time. To be made anew closes what it was before.
    """
    made: Any = next((c for c in type(raw).__mro__ if c.__name__ == "Connection"), None)
    try:
        made.__init__(raw, ":memory:")
        raw.close()
    except Exception:  # noqa: BLE001, S110
        pass  # ``locks_are_real`` will tell


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )
