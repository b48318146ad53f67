"""Whether anything was committed to a database since a moment ago: one look, no query.

The wal-index header names the last committed frame and its checksum, and the salts of the
WAL that it is in. All three change with a commit; a checkpoint changes none of them. So two
equal looks mean that nothing was committed in between, by whatever process. A look is one
``stat`` and one ``pread`` of the ``-shm`` file, through a descriptor that is never closed
while it matters (``descriptors.py``); the database is not opened.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.sqlite import descriptors
from sqlitereplica.sqlite.walindex import HEADER_SIZE, WalIndex, parse_wal_index

__all__ = ["CommitWatch", "Look"]

_TRIES = 16


class Look(NamedTuple):
    """What the database is at a moment, as far as commits change it."""

    file: descriptors.FileId
    salts: bytes
    mx_frame: int
    frame_checksum: bytes


class CommitWatch:
    """Looks at one database, which may come and go. Thread-safe, also after ``fork()``."""

    def __init__(self, path: str) -> None:
        """Watch the database at ``path``; nothing is opened yet."""
        self._path = f"{path}-shm"
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._held: tuple[int, descriptors.FileId] | None = None

    def look(self) -> Look | None:
        """How the database is now; None when that cannot be seen, which equals nothing.

        It cannot when nobody has the database open in WAL mode, and at the moment in which
        a writer changes the header.
        """
        held = self._descriptor()
        index = None if held is None else _read(held[0])
        if held is None or index is None:
            return None
        return Look(held[1], index.salts, index.mx_frame, index.frame_checksum)

    def _descriptor(self) -> tuple[int, descriptors.FileId] | None:
        here = descriptors.file_id(self._path)
        held = self._held
        if here is None:
            return None
        if held is not None and held[1] == here:
            return held
        if self._pid != os.getpid():  # whoever held the lock is not in this process
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            if self._held == held:
                self._take(held)
            return self._held

    def _take(self, old: tuple[int, descriptors.FileId] | None) -> None:
        try:
            self._held = descriptors.acquire(self._path)
        except OSError:
            self._held = None  # it went away just then
        if old is not None:
            descriptors.release(old[1])


def _read(shm: int) -> WalIndex | None:
    """The header, if it is settled; nobody is waited for: this may be an event loop."""
    try:
        tries = (parse_wal_index(os.pread(shm, HEADER_SIZE, 0)) for _ in range(_TRIES))
        return next((index for index in tries if index is not None), None)
    except (InvalidFileError, OSError):
        return None
