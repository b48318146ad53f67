"""Moving an old database out of the way, whole: the file and what belongs to it.

Its WAL, or a journal of a crash, is a part of the database. Invariants, at any instant and
after a crash at any instant:

* The old database is complete under its old name or complete under the new one: its WAL
  and journal get their second names before the file is renamed, and lose their first ones
  after that. (The ``-shm`` holds nothing; SQLite makes it anew.)
* Nothing is overwritten, even if it comes into being meanwhile: the new name is claimed
  first, exclusively, by an empty file, and hard links do not overwrite.

Where there are no hard links WAL and journal are renamed after the file, so that a crash
in between leaves them under the old name.

Each step is on disk before the next one: after a power loss no later one may be found
without an earlier one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from sqlitereplica.errors import TargetExistsError

__all__ = ["NO_HARD_LINKS", "Aside", "refuse_taken", "sync_directory"]

NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_PARTS = ("-wal", "-journal")


class Aside:
    """An old database at ``path``, or only parts of one, on the way to ``away``."""

    def __init__(self, path: str, away: str) -> None:
        """Note what is there; nothing is done yet."""
        self.path, self.away = path, away
        self._is_there = os.path.lexists(path)
        self._parts = [part for part in _PARTS if os.path.lexists(path + part)]
        self._claimed = False

    def claim(self) -> None:
        """Take a new name that others may want, too; an empty file there counts as none.

        Raises:
            TargetExistsError: The name is taken.
        """
        refuse_taken(self.away)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        try:
            os.close(os.open(self.away, flags, 0o600))
        except FileExistsError:
            refuse_taken(self.away)
        else:
            self._claimed = True

    def move(self) -> None:
        """Give the database its new name; ``back`` is to be called if this fails."""
        linked = [part for part in self._parts if _link(self.path, self.away, part)]
        self._sync(linked)
        if self._is_there:
            os.rename(self.path, self.away)
            self._sync(["the file"])
        for part in linked:
            os.unlink(self.path + part)
        for part in self._parts:
            if part not in linked:
                os.rename(self.path + part, self.away + part)
                self._sync([part])
        if os.path.lexists(self.path + "-shm"):
            os.unlink(self.path + "-shm")
        self._sync(["the rest"])

    def back(self) -> None:
        """Undo ``claim`` and ``move``, wherever they were interrupted.

        In the reverse order: the database comes after what belongs to it.
        """
        for part in self._parts:
            old, new = self.path + part, self.away + part
            moved = os.path.lexists(new) and not os.path.lexists(old)
            if moved and not _link(self.away, self.path, part):
                os.rename(new, old)
        self._sync(self._parts)
        if self._is_there and not os.path.lexists(self.path):
            os.rename(self.away, self.path)
            self._sync(["the file"])
        elif self._claimed:
            os.unlink(self.away)
        for part in self._parts:
            old, new = self.path + part, self.away + part
            if os.path.lexists(new) and os.path.samefile(old, new):
                os.unlink(new)

    def drop(self) -> None:
        """Remove the database under its new name."""
        if self._is_there:
            os.unlink(self.away)
        for part in self._parts:
            os.unlink(self.away + part)

    def _sync(self, changed: Sequence[str]) -> None:
        """Make the names in both folders durable if any changed."""
        if changed:
            for folder in {os.path.dirname(self.path), os.path.dirname(self.away)}:
                sync_directory(folder)


def refuse_taken(away: str) -> None:
    """Raise TargetExistsError if there is a database, or a part of one, at a new name."""
    for taken in (away, *(away + part for part in _PARTS)):
        try:
            status = os.lstat(taken)
        except FileNotFoundError:
            continue
        if taken == away and stat.S_ISREG(status.st_mode) and status.st_size == 0:
            continue
        raise _taken(taken)


def _taken(path: str) -> TargetExistsError:
    return TargetExistsError(
        path,
        f"{path} exists: the old database is not kept in the place of anything,"
        " so pass another path as keep_old",
    )


def sync_directory(directory: str) -> None:
    """Make the names in a folder durable, where a folder can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link(source: str, target: str, part: str) -> bool:
    """Give a part of a database a second name; False where there are no hard links.

    Raises:
        TargetExistsError: The name is taken.
    """
    try:
        os.link(source + part, target + part)
    except FileExistsError:
        raise _taken(target + part) from None
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return False
    return True
