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

Nor may a thread of the application be in SQLite with the same file: the child would wait for
ever for mutexes of that file. So ours are only closed if the application has it not open;
if it has, the child's locks would not work anyway. Mutexes for all files are held for less
than a microsecond, and who forks while other threads are in SQLite cannot use it in the
child, with or without us.

If it waits too long the child leaves those that are in a call as they are for ever,
unclosed. The connections that the application inherited are not ours to close;
``locks_are_real`` tells whether the locks of this process are, and who is told that they are
not does not read the database.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from sqlitereplica.sqlite.descriptors import FileId, file_id, is_open_here

__all__ = [
    "Calling",
    "calling",
    "close_inherited",
    "locks_are_real",
    "park",
    "unwatch",
    "watch",
]

_PATIENCE = 5.0
_SHARED_RANGE = "1073741826"
"""Where the lock begins that every open connection has on a database in WAL mode."""


class _Connection(Protocol):
    path: str
    raw: Any
    calls: int


class Calling:
    """Any number of calls at once, or a fork. One thread may be in several calls."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In the child: whoever else was in a call is not here."""
        self._changed = threading.Condition(threading.Lock())
        self._inside = self._forks = 0
        self._mine = threading.local()

    def enter(self) -> None:
        """A call begins; waits for a fork that is about to happen."""
        depth = self._depth
        if depth == 0:
            with self._changed:
                while self._forks:
                    self._changed.wait()
                self._inside += 1
        self._mine.depth = depth + 1

    def leave(self) -> None:
        """It has ended."""
        self._mine.depth -= 1
        if self._mine.depth == 0:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @property
    def _depth(self) -> int:
        depth: int = getattr(self._mine, "depth", 0)
        return depth

    def begin_fork(self) -> None:
        """Wait until nobody is in a call, for some time at most; and let nobody begin."""
        own = min(1, self._depth)
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: self._inside <= own, _PATIENCE)

    def end_fork(self) -> None:
        """In the parent: go on."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


calling = Calling()
"""Entered by whoever calls SQLite, and for as long as it has the write lock."""
_open: weakref.WeakSet[_Connection] = weakref.WeakSet()
_parked: list[Any] = []
_left: list[Any] = []
"""Those that a child inherited and could not close at once."""


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
    close_inherited()
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


def _after_in_child() -> None:
    calling.forget()  # first: whatever happens here, the child may call SQLite
    files = Counter(_file_of(connection) for connection in _open)
    foreign = {key for key, ours in files.items() if _is_foreign(key, ours)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is one for those that are not closed
        for connection in list(_open):
            _get_rid_of(connection, _file_of(connection) not in foreign)
    _open.clear()


def _file_of(connection: _Connection) -> FileId | None:
    """Its file; None when there is none by that name, or it cannot be looked at."""
    try:
        return file_id(connection.path)
    except OSError:
        return None


def _is_foreign(key: FileId | None, ours: int) -> bool:
    """Whether the application has a file open, as far as can be told."""
    if key is None or not os.path.isdir("/proc/self/fd"):
        return True
    return is_open_here(key, ours)


def _get_rid_of(connection: _Connection, may_close: bool) -> None:
    raw, connection.raw = connection.raw, None
    if raw is None:
        return
    if may_close and not connection.calls:
        _close(raw)
        return
    park(raw)
    if not connection.calls:
        _left.append(raw)


def close_inherited() -> None:
    """In a child: close what was left, for the application may have closed its own since.

    If a thread of the parent was in SQLite with the file this never returns: to be called
    in a thread that nobody waits for, and with no lock held.
    """
    while _left:
        _close(_left.pop())


def _close(raw: Any) -> None:
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
        before=calling.begin_fork,
        after_in_parent=calling.end_fork,
        after_in_child=_after_in_child,
    )
