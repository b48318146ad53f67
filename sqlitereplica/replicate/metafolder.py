"""The metadata folder beside the database: page table, spool, and who replicates it.

``.<database file>-sqlitereplica/`` holds ``pages`` and ``pages.log`` (``tablefile.py``),
``spool/`` with increments on their way, ``node`` (a random number that goes into every
file, so that a put of an earlier life of this Replicator is known as its own), ``lock``, and
``socket`` (``desk.py``). All of it may be deleted while nobody replicates: the next start
then compares with the replica instead.

``lock`` elects one of all processes that would replicate the same database. It is a
``flock``: the operating system's, so it goes with the process that held it, and nothing that
this process does to the file by other descriptors drops it (as it would a POSIX lock). It
belongs to the open file, which children of a fork inherit: they close their descriptor at
once, for otherwise the lock would outlive the parent.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from sqlitereplica.errors import DatabaseStateError

try:
    import fcntl
except ImportError:  # Windows: the guard is missing there
    fcntl = None  # type: ignore[assignment]

__all__ = ["MetaFolder", "default_folder", "folder_mode", "forget_folders"]

_NAMES = frozenset(
    {
        "held",
        "lock",
        "node",
        "pages",
        "pages.log",
        "parked",
        "promoted",
        "socket",
        "spool",
    }
)
"""What is in such a folder, and ``unneeded-*``; each may be there with ``.tmp`` as well."""
_HARMLESS = frozenset({"ltx", "lost+found"})
"""What Litestream leaves in the folder that its configuration names; a new filesystem."""

_taken: dict[Path, MetaFolder] = {}
"""Folders of the Replicators of this process: one each, elected or not."""


def default_folder(database: str) -> Path:
    """Where the metadata of ``database`` is kept unless said otherwise."""
    folder, name = os.path.split(database)
    return Path(folder, f".{name}-sqlitereplica")


def folder_mode(database: str) -> int:
    """Permissions of a folder with parts of a database in it.

    Whoever may not read the database may not look into it either. Without a database they
    are whatever the umask leaves.
    """
    try:
        mode = stat.S_IMODE(os.stat(database).st_mode)
    except OSError:
        return 0o777
    return mode | (mode & 0o444) >> 2 | 0o700


class MetaFolder:
    """The folder, taken for one Replicator of this process until ``close``."""

    def __init__(self, path: Path, database: str) -> None:
        """Make the folder if need be; ``try_lock`` is what elects.

        Raises:
            DatabaseStateError: ``kind`` ``"elsewhere"``, another Replicator of this
                process has it; ``"meta-folder"``, it cannot be made.
        """
        # By one name only: it is known by it.
        self.path = path = Path(os.path.realpath(path))
        self.spool = path / "spool"
        self.database, self.node_id = database, 0
        self._fd = -1
        with self._usable():
            self._make()
            os.close(self._open())
        if _taken.setdefault(path, self) is not self:
            raise DatabaseStateError(
                f"{database} is replicated by another Replicator of this process"
                " already: one per database and process",
                path=database,
                kind="elsewhere",
            )

    @classmethod
    def locked(cls, path: Path, database: str) -> Self:
        """The folder, locked; for who does not wait to be elected.

        Raises:
            DatabaseStateError: as above, and ``"elsewhere"`` if another process has it.
        """
        folder = cls(path, database)
        try:
            if folder.try_lock():
                return folder
        except BaseException:
            folder.close()
            raise
        folder.close()
        raise DatabaseStateError(
            f"{database} is replicated or followed by another process already",
            path=database,
            kind="elsewhere",
        )

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatabaseStateError(
                f"{self.path} cannot be used ({error.strerror}): the Replicator keeps its"
                " metadata beside the database; pass meta_path= to keep it elsewhere",
                path=self.database,
                kind="meta-folder",
            ) from error

    def _make(self) -> None:
        self.path.mkdir(folder_mode(self.database), parents=True, exist_ok=True)
        names = set(os.listdir(self.path)) - _HARMLESS
        if "lock" not in names and not all(map(_is_ours, names)):
            # What is in ``spool`` would be deleted, and all of it by ``reset``.
            raise DatabaseStateError(
                f"{self.path} holds other files and is no metadata folder: give meta_path"
                " a folder of its own",
                path=self.database,
                kind="meta-folder",
            )
        self.spool.mkdir(exist_ok=True)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        return os.open(self.path / "lock", flags, 0o644)

    def try_lock(self) -> bool:
        """Be elected, if nobody is; the spool is then empty, ``node_id`` is set.

        Raises:
            DatabaseStateError: ``kind`` ``"meta-folder"``, it cannot be used.
        """
        with self._usable():
            self._make()
            fd = self._open()
            try:
                if not self._lock(fd):
                    os.close(fd)
                    return False
                for stale in self.spool.iterdir():
                    stale.unlink()
                self.node_id = self._read_node_id()
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
        return True

    def _lock(self, fd: int) -> bool:
        try:
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Somebody may have deleted the folder since: another process then locks another
        # file of that name.
        return os.path.samestat(os.fstat(fd), os.stat(self.path / "lock"))

    def _read_node_id(self) -> int:
        """A random number, the same as long as the folder lives; never 0."""
        path = self.path / "node"
        try:
            found = int(path.read_text(), 16)
        except (FileNotFoundError, ValueError):
            found = 0
        if not 0 < found < 1 << 64:
            found = secrets.randbits(63) | 1
            temporary = path.with_suffix(".tmp")
            temporary.write_text(f"{found:016x}\n")
            temporary.replace(path)
        return found

    def delete(self) -> None:
        """Delete the folder, but what else somebody has put there; while it is locked."""
        for name in os.listdir(self.path):
            if name == "spool":
                shutil.rmtree(self.spool)
            elif _is_ours(name):
                (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()  # unless it is not empty

    def unlock(self) -> None:
        """Let others be elected; also where a child has inherited the open file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def close(self) -> None:
        """Unlock, and let another Replicator of this process take the folder."""
        self.unlock()
        if _taken.get(self.path) is self:
            del _taken[self.path]

    def _disown(self) -> None:
        # Closed, not unlocked: that would unlock the parent's.
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_ours(name: str) -> bool:
    name = name.removesuffix(".tmp")
    return name in _NAMES or name.startswith("unneeded-")


def forget_folders() -> None:
    """After ``fork()``: the folders and their locks are the parent's, not the child's."""
    for folder in list(_taken.values()):
        folder._disown()
    _taken.clear()
