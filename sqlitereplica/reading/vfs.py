"""The VFS named ``sqlitereplica``: how SQLite opens a replica by a URI.

``file:NAME?vfs=sqlitereplica&replica=URL&at=TIME`` can be given to any connection of apsw
in this process, also in ``ATTACH``. The name is free. What cannot be in a URI, such as
credentials, is registered under a number before, and the URI has that number.

Files that are no database, such as those of large sorts, are SQLite's own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TypeAlias, cast

import apsw

from sqlitereplica.reading.file import ReplicaFile
from sqlitereplica.reading.view import View

__all__ = ["VFS_NAME", "ReplicaVFS", "the_vfs"]

VFS_NAME = "sqlitereplica"

Parameters: TypeAlias = dict[str, str]
"""What follows the ``?`` in the URI."""


class ReplicaVFS(apsw.VFS):
    """Opens replicas; thread-safe. ``open_view`` makes a view of the parameters."""

    def __init__(self, open_view: Callable[[Parameters], View]) -> None:
        super().__init__(VFS_NAME, "")
        self._open_view = open_view
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[str, View] = {}

    def expect(self, view: View) -> str:
        """Take a view that is opened once; return the number that stands for it."""
        with self._lock:
            number = str(next(self._numbers))
            self._waiting[number] = view
        return number

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        """The name as it is: it is in no folder."""
        return name

    def xAccess(self, path: str, flags: int) -> bool:  # noqa: N802
        """There is no journal and no WAL."""
        return False

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        """Nothing to delete."""

    def xOpen(  # noqa: N802
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        """Open a replica, or a temporary file on the disk."""
        if flags[0] & apsw.SQLITE_OPEN_SUPER_JOURNAL:
            raise apsw.CantOpenError(
                "a connection to a replica writes to one database in a transaction: open"
                " one of them instead, and attach the replica to it (replica_uri)"
            )
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return apsw.VFSFile("", name, flags)
        parameters = {}
        if isinstance(name, apsw.URIFilename):
            for key in name.parameters:
                parameters[key] = name.uri_parameter(key) or ""
        view = self._take(parameters.get("view")) or self._open_view(parameters)
        flags[1] = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB
        # apsw takes any object with these methods; its own class would open a file.
        return cast(apsw.VFSFile, ReplicaFile(view))

    def _take(self, number: str | None) -> View | None:
        with self._lock:
            return self._waiting.pop(number or "", None)


_turn = threading.Lock()
_vfs: ReplicaVFS | None = None


def the_vfs(open_view: Callable[[Parameters], View]) -> ReplicaVFS:
    """Return the VFS of this process; the first call registers it."""
    global _vfs
    with _turn:
        if _vfs is None:
            _vfs = ReplicaVFS(open_view)
        return _vfs
