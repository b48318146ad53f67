"""The metadata folder beside the database: page table, spool, and who replicates it.

``.<database file>-sqlitereplica/`` holds ``pages`` and ``pages.log`` (``tablefile.py``),
``spool/`` with increments on their way, ``node`` (a random number that goes into every
file, so that a put of an earlier life of this Replicator is known as its own), and
``lock``. All of it may be deleted while nobody replicates: the next start then compares
with the replica instead. The lock keeps a second process from replicating the same database
at the same time; it is the operating system's, so it goes with the process that held it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlitereplica.errors import DatabaseStateError

try:
    import fcntl
except ImportError:  # Windows: the guard is missing there
    fcntl = None  # type: ignore[assignment]

__all__ = ["MetaFolder", "default_folder", "forget_locks"]

_locked: set[Path] = set()
"""Folders locked by this process, which POSIX locks do not keep from itself."""


def default_folder(database: str) -> Path:
    """Where the metadata of ``database`` is kept unless said otherwise."""
    folder, name = os.path.split(database)
    return Path(folder, f".{name}-sqlitereplica")


class MetaFolder:
    """The folder, locked by this process from construction to ``close``."""

    def __init__(self, path: Path, database: str) -> None:
        """Make the folder if need be, lock it, and empty its spool.

        Raises:
            DatabaseStateError: ``kind`` ``"elsewhere"``, another Replicator has it;
                ``"meta-folder"``, it cannot be made.
        """
        # By one name only: the process's own locks are known by it.
        self.path = path = Path(os.path.realpath(path))
        self.spool = path / "spool"
        self._pid = os.getpid()
        with self._usable(database):
            self.spool.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        self._lock(database)
        try:
            with self._usable(database):
                for stale in self.spool.iterdir():
                    stale.unlink()
                self.node_id = self._read_node_id()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _usable(self, database: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatabaseStateError(
                f"{self.path} cannot be used ({error.strerror}): the Replicator keeps its"
                " metadata beside the database; pass meta_path= to keep it elsewhere",
                path=database,
                kind="meta-folder",
            ) from error

    def _lock(self, database: str) -> None:
        try:
            if self.path in _locked:
                raise BlockingIOError
            if fcntl is not None:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Closing our descriptor would drop this process's own lock.
            if self.path not in _locked:
                os.close(self._fd)
            raise DatabaseStateError(
                f"{database} is replicated by another Replicator already, in this or"
                " another process: one per database",
                path=database,
                kind="elsewhere",
            ) from error
        _locked.add(self.path)

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

    def close(self) -> None:
        """Unlock."""
        if self._pid == os.getpid() and self.path in _locked:
            _locked.discard(self.path)
            os.close(self._fd)


def forget_locks() -> None:
    """After ``fork()``: the locks are the parent's, not the child's."""
    _locked.clear()
