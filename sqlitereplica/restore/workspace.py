"""A place for a database that is thrown away: made, looked at, removed.

It is a private temporary folder that a killed process does not leave for ever.

What is in it is a copy of somebody's database, and as large. So nobody else may look
into it, and the next one that works in the same place removes what a process left that
was killed. A living one holds a ``flock`` on a file in it; one that is just being made
has none yet, so young ones count as living.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Self

from sqlitereplica.restore.pagefile import PageFile, try_lock

__all__ = ["Throwaway", "workspace"]

_PREFIX = "sqlitereplica-verify-"
_LOCK = "lock"
_STALE_SECONDS = 60


@contextmanager
def workspace(parent: str | os.PathLike[str] | None = None) -> Iterator[str]:
    """Make an empty folder in ``parent``, by default where temporary files go.

    It is removed in the end, whatever happens.

    Raises:
        OSError: It cannot be made.
    """
    where = tempfile.gettempdir() if parent is None else os.fspath(parent)
    _sweep(where)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=where) as folder:
        lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try_lock(lock)
            yield folder
        finally:
            os.close(lock)


class Throwaway(PageFile):
    """The file that a restore writes to; nothing of it is brought to disk on purpose."""

    def __init__(self, path: str) -> None:
        """Create the file."""
        super().__init__(path, FileIO(path, "x+"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _sweep(where: str) -> None:
    """Remove the folders of processes that were killed."""
    with os.scandir(where) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in found:
        try:
            if _is_stale(path):
                shutil.rmtree(path)
        except OSError:
            continue  # its process ends just then; what is left is for the next one


def _is_stale(path: str) -> bool:
    """Whether a folder is ours, is old, and nobody works in it."""
    status = os.lstat(path)
    mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    age = time.time() - status.st_mtime
    if not (mine and stat.S_ISDIR(status.st_mode) and age > _STALE_SECONDS):
        return False
    lock = os.open(
        os.path.join(path, _LOCK),
        os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0),
        0o600,
    )
    try:
        return try_lock(lock)
    finally:
        os.close(lock)
