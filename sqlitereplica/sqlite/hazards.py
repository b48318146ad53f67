"""Refuse two copies of SQLite on one database file in one process.

PyPI's apsw carries its own SQLite, the stdlib's ``sqlite3`` uses another. POSIX locks belong
to the process, so two copies do not exclude each other, and a ``close()`` in one drops the
locks of the other: with both on one file committed data are lost (design section 3). Three
things tell that it happens or is about to:

* audit events: every ``sqlite3.connect`` announces its path *before* it opens the file, and
  is stopped there when the guarded file belongs to another copy;
* apsw's ``connections()`` and ``connection_hooks``: the hook runs after the file was opened,
  so it can only refuse loudly;
* Linux's ``/proc/self``: who has the file open, and ``-shm`` mapped twice at offset 0, which
  one copy never does. On other systems this last guard is missing.
"""

from __future__ import annotations

import gc
import math
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import apsw

from sqlitereplica.errors import MixedSQLiteCopiesError
from sqlitereplica.sqlite.connection import Connect
from sqlitereplica.sqlite.descriptors import FileId, file_id, is_open_here

__all__ = [
    "Guard",
    "check_before_open",
    "copy_of",
    "guard",
    "plain_factory",
    "shm_maps",
    "unguard",
]

_LOOKS, _LOOK_PAUSE = 30, 0.01


@dataclass(slots=True)
class Guard:
    """A database file that belongs to one copy of SQLite in this process."""

    path: str
    key: FileId
    copy: str
    users: int = 0
    tripped: str | None = None
    """The other copy that was seen on the file, once one was."""

    def check(self, max_age: float = 0.0) -> None:
        """Raise MixedSQLiteCopiesError when another copy was seen or is seen now.

        "Now" may be ``max_age`` seconds ago, for all guards together.
        """
        if self.tripped is None and shm_maps(self.path + "-shm", max_age) > 1:
            self.tripped = "another copy of SQLite"
        if self.tripped is not None:
            raise MixedSQLiteCopiesError(self.path, ours=self.copy, other=self.tripped)


_guards: dict[FileId, Guard] = {}
_names: weakref.WeakKeyDictionary[apsw.Connection, str] = weakref.WeakKeyDictionary()
"""Files of apsw's connections: one that is busy in another thread cannot be asked."""
_maps: tuple[float, Counter[str]] = (-math.inf, Counter())
_lock = threading.Lock()
_installed = False


def copy_of(connect: Connect) -> str:
    """Name the copy of SQLite that a factory uses: ``"sqlite3"``, ``"apsw"``, a module.

    A factory that is neither of the known ones is asked for a ``:memory:`` database; one
    that cannot make it is named ``"unknown"``.
    """
    if connect is sqlite3.connect:
        return "sqlite3"
    if connect is apsw.Connection:
        return "apsw"
    try:
        probe = connect(":memory:")
    except Exception:  # noqa: BLE001
        # Not an error: some factories insist on real files. The checks that need the
        # name are left to those that run once a connection is open.
        return "unknown"
    try:
        if isinstance(probe, sqlite3.Connection):
            return "sqlite3"
        if isinstance(probe, apsw.Connection):
            return "apsw"
        return type(probe).__module__.partition(".")[0]
    finally:
        probe.close()


def plain_factory(connect: Connect) -> Connect:
    """A factory of the same copy of SQLite that does no more than open a file.

    Where the copy is neither of the known ones, it is the factory itself.
    """
    known: dict[str, Connect] = {"sqlite3": sqlite3.connect, "apsw": apsw.Connection}
    return known.get(copy_of(connect), connect)


def check_before_open(path: str, copy: str) -> None:
    """Refuse, before anything is opened, a file that another copy has open here.

    Raises:
        MixedSQLiteCopiesError: naming both copies.
    """
    key = file_id(path)
    if key is None or copy == "unknown":
        return
    if copy != "apsw":
        if _is_open_by_apsw(key):
            raise MixedSQLiteCopiesError(path, ours=copy, other="apsw")
        return
    for look in range(_LOOKS):
        # Another thread may be about to open or to close it by apsw: its descriptor is
        # there before apsw knows of the connection, and after. Another copy stays.
        if _is_open_by_apsw(key) or not is_open_here(key):
            return
        if look == _LOOKS // 2:
            # A connection that was refused keeps its descriptor until it is collected.
            gc.collect()
        time.sleep(_LOOK_PAUSE)
    raise MixedSQLiteCopiesError(path, ours=copy, other="another copy of SQLite")


def _is_open_by_apsw(key: FileId) -> bool:
    return any(file_id(name) == key for name in _files_of_apsw())


def _files_of_apsw() -> list[str]:
    """Files that connections of apsw have open."""
    found = []
    for connection in apsw.connections():
        name = _names.get(connection)
        if name is None:
            try:
                name = connection.filename
            except apsw.ThreadingViolationError:
                # Opened before this module was imported, and busy in another thread
                # right now. The mapping of ``-shm`` will tell if it is on our file.
                continue
        if name:
            found.append(name)
    return found


def guard(path: str, key: FileId, copy: str) -> Guard:
    """Watch a file from now on; every user calls ``unguard`` once."""
    _install()
    with _lock:
        found = _guards.setdefault(key, Guard(path, key, copy))
        found.users += 1
    if found.copy != copy and "unknown" not in (found.copy, copy):
        unguard(found)
        raise MixedSQLiteCopiesError(path, ours=copy, other=found.copy)
    return found


def guard_path(path: str, copy: str) -> Guard | None:
    """``guard`` for a file that may not be there yet; None then."""
    key = file_id(path)
    return None if key is None else guard(path, key, copy)


def unguard(watched: Guard) -> None:
    """End one use of a guard."""
    with _lock:
        watched.users -= 1
        if watched.users == 0:
            _guards.pop(watched.key, None)


def shm_maps(shm_path: str, max_age: float = 0.0) -> int:
    """How many times this process maps the beginning of ``-shm``; 0 where unknown.

    The answer may be ``max_age`` seconds old: reading all maps anew for each of many
    databases would be quadratic.
    """
    global _maps
    key = file_id(shm_path)
    if key is None:
        return 0
    now = time.monotonic()
    if now - _maps[0] >= max_age:
        _maps = now, _read_maps()
    return _maps[1][str(key[1])]


def _read_maps() -> Counter[str]:
    """Count the mappings of the beginning of a ``-shm`` file by inode."""
    try:
        with open("/proc/self/maps") as maps:
            lines = [line.split() for line in maps if "-shm" in line]
    except OSError:
        return Counter()
    return Counter(f[4] for f in lines if f[2] == "00000000")


def _install() -> None:
    """Install the hooks once; an audit hook cannot be taken out again."""
    global _installed
    with _lock:
        if _installed:
            return
        _installed = True
    sys.addaudithook(_on_audit)


def _on_audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect" and _guards:
        _refuse(_path_of(args[0]), "sqlite3", opened=False)


def _on_apsw(connection: apsw.Connection) -> None:
    _names[connection] = name = connection.filename
    if _guards and name:
        _refuse(name, "apsw", opened=True)


def _refuse(path: str, copy: str, *, opened: bool) -> None:
    """Raise in the caller's face; what was opened already has harmed us, too."""
    key = file_id(path) if path else None
    with _lock:
        found = _guards.get(key) if key is not None else None
    if found is not None and file_id(found.path) not in (key, None):
        return  # it was replaced, and another file has got the number of its inode
    if found is not None and found.copy not in (copy, "unknown"):
        if opened:
            found.tripped = copy
        raise MixedSQLiteCopiesError(found.path, ours=found.copy, other=copy)


def _path_of(target: Any) -> str:
    """The file that ``sqlite3.connect(target)`` would open, '' for none."""
    try:
        path = os.fsdecode(target)
    except TypeError:
        return ""
    if path.startswith("file:"):
        return unquote(urlsplit(path).path)
    return "" if path == ":memory:" else path


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # its holder, if any, is not in this process
    _guards.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

apsw.connection_hooks.append(_on_apsw)
