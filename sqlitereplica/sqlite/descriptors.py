"""Raw descriptors on database and ``-shm`` files that are never closed while it matters.

POSIX locks belong to (process, inode): closing *any* descriptor of a file drops every lock
that this process has on it, among them those of the application's own connections
(reliability.md section 3, measured). So this module opens a file at most once per process
and inode, reads it by ``os.pread``, and keeps the descriptor after the last user
is gone. It is freed

* when the inode has been unlinked, for then no lock on it matters any more,
* when it has been moved to a name that nobody knows yet and nobody here has it open, or
* when too many idle ones have gathered (a test run with thousands of databases) and nobody
  else in this process has that file open.

A file that we write ourselves (a follower's) has a second one beside it, for writing, that
lives exactly as long.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from dataclasses import dataclass

from sqlitereplica.sqlite.openfiles import open_files

__all__ = [
    "FileId",
    "acquire",
    "acquire_writable",
    "file_id",
    "is_open_here",
    "release",
    "release_moved",
    "sweep",
]

FileId = tuple[int, int]
"""(st_dev, st_ino)."""

MAX_IDLE = 128
"""Idle descriptors kept before those that nobody else has open are freed."""


@dataclass(slots=True)
class _Entry:
    fd: int
    users: int
    writable: int | None = None

    @property
    def own(self) -> int:
        """How many descriptors there are."""
        return 1 if self.writable is None else 2

    def close(self) -> None:
        os.close(self.fd)
        if self.writable is not None:
            os.close(self.writable)


_entries: dict[FileId, _Entry] = {}
_lock = threading.Lock()


def file_id(path: str) -> FileId | None:
    """Identity of the file at ``path``; None when there is none. Opens nothing."""
    try:
        st = os.stat(path)
    except FileNotFoundError:
        return None
    return st.st_dev, st.st_ino


def acquire(path: str) -> tuple[int, FileId]:
    """A read-only descriptor of ``path`` and the identity of what it reads.

    Raises:
        OSError: as ``os.open``.
    """
    sweep()
    with _lock:
        known = file_id(path)
        if known is not None and known in _entries:
            _entries[known].users += 1
            return _entries[known].fd, known
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        st = os.fstat(fd)
        key = (st.st_dev, st.st_ino)
        # Replaced between stat and open by a file that we know already: the new
        # descriptor cannot be closed without harm, so it is the one kept from now on.
        users = _entries[key].users if key in _entries else 0
        _entries[key] = _Entry(fd, users + 1)
        return fd, key


def acquire_writable(path: str) -> tuple[int, FileId]:
    """As ``acquire``, with a descriptor that can be written to as well.

    For files that are ours to write, and only under SQLite's own locks.

    Raises:
        OSError: as ``os.open``.
    """
    _, key = acquire(path)
    with _lock:
        entry = _entries[key]
        if entry.writable is None:
            # Through the one that is open: the name may be another file's by now.
            fd = _reopen(entry.fd, path)
            st = os.fstat(fd)
            if (st.st_dev, st.st_ino) != key:
                # Not closed: it may be a file that somebody here has locks on.
                raise OSError(errno.ESTALE, "replaced while it was opened", path)
            entry.writable = fd
        return entry.writable, key


def _reopen(fd: int, path: str) -> int:
    own = f"/proc/self/fd/{fd}"
    name = own if os.path.exists(own) else path
    return os.open(name, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))


def release(key: FileId) -> None:
    """End one use. The descriptor stays open (see the module's text)."""
    with _lock:
        _entries[key].users -= 1
    sweep()


def release_moved(key: FileId) -> None:
    """End one use of a file that was given another name, which nobody opens yet.

    Whoever came by the old name is seen; if there is nobody the descriptor is closed.
    """
    with _lock:
        entry = _entries[key]
        entry.users -= 1
        if entry.users == 0 and list(open_files("self")).count(key) == entry.own:
            entry.close()
            del _entries[key]


def sweep() -> None:
    """Free the descriptors that can be freed without harm."""
    with _lock:
        idle = [(k, e) for k, e in _entries.items() if e.users == 0]
        crowded = len(idle) > MAX_IDLE
        others = Counter(open_files("self")) if crowded else Counter()
        for key, entry in idle:
            unlinked = os.fstat(entry.fd).st_nlink == 0
            if unlinked or (crowded and others[key] == entry.own):
                entry.close()
                del _entries[key]


def is_open_here(key: FileId, ours: int = 0) -> bool:
    """True when this process has the file open through a descriptor that is not ours.

    ``ours`` says how many are beside that of this module. Reads ``/proc/self/fd``; where
    that does not exist (macOS, Windows) the answer is False and the guard against mixed
    copies of SQLite is weaker.
    """
    with _lock:
        own = ours + (1 if key in _entries else 0)
    return sum(1 for k in open_files("self") if k == key) > own


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # its holder, if any, is not in this process
    for entry in _entries.values():
        entry.users = 0  # nor are its users; the descriptors are as good here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
