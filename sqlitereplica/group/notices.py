"""What Linux tells of changes in folders (inotify), so that they need not be looked for.

Notices come beside the looks at all files and replace none of them: what is not told (the
queue ran over, another host wrote, there are too many folders to be watched, or another
system than Linux) is found by the next look. So nothing here has to be complete, and a
failure ends it for good: the looks then come more often again.

Only names are taken from the kernel. Whether something happened is judged by ``stat``, as
after any look.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sqlitereplica.replicate.driver import call_guarded

__all__ = ["Noticed", "Notices"]

_EVENT = struct.Struct("iIII")
_MODIFY, _ATTRIB, _MOVED, _CREATE, _DELETE = 0x2, 0x4, 0xC0, 0x100, 0x200
_ONLY_FOLDERS, _IS_FOLDER, _GONE = 0x01000000, 0x40000000, 0x8000
_MASK = _MODIFY | _ATTRIB | _MOVED | _CREATE | _DELETE | _ONLY_FOLDERS
_CLOSED_ON_EXEC = 0o2000000
_READ = 1 << 16
_PAUSE = 0.1
"""Seconds between reads: somebody who writes without rest makes a notice of each write."""


@dataclass(slots=True)
class Noticed:
    """Names that something happened to, below the folder."""

    names: set[str] = field(default_factory=set)
    is_listed: bool = False
    """Whether names have come or gone, or folders."""


class Notices:
    """Watches folders in a thread until ``close``."""

    def __init__(self, root: str, tell: Callable[[], None]) -> None:
        """``tell`` is called when there is something to ``take``.

        Raises:
            OSError: there is no inotify, or no more of it.
        """
        self._root, self._tell = root, tell
        self._lock = threading.Lock()
        self._folders: dict[int, str] = {}
        self._watched: dict[str, int] = {}
        self._found = Noticed()
        self._libc = _libc()
        self._fd = _checked(self._libc.inotify_init1(_CLOSED_ON_EXEC), root)
        self._ends, self._end = os.pipe()
        self._thread = threading.Thread(
            target=self._run, name="sqlitereplica-notices", daemon=True
        )
        self._thread.start()

    def follow(self, folders: Iterable[str]) -> None:
        """Watch these, by their paths below the root, and no others.

        Raises:
            OSError: there are too many.
        """
        wanted = set(folders)
        with self._lock:
            for rel in wanted - self._watched.keys():
                self._add(rel)
            for rel in self._watched.keys() - wanted:
                self._libc.inotify_rm_watch(self._fd, self._watched.pop(rel))

    def _add(self, rel: str) -> None:
        path = f"{self._root}/{rel}" if rel else self._root
        try:
            wd = self._libc.inotify_add_watch(self._fd, os.fsencode(path), _MASK)
            _checked(wd, path)
        except (FileNotFoundError, NotADirectoryError):
            return  # gone since it was listed
        self._watched[rel], self._folders[wd] = wd, rel
        # What came into it before it was watched was not told of.
        self._found.is_listed = True

    def take(self) -> Noticed:
        """What was noticed since it was asked last."""
        with self._lock:
            found, self._found = self._found, Noticed()
            return found

    def close(self) -> None:
        """End it."""
        os.close(self._end)
        self._thread.join()
        os.close(self._fd)
        os.close(self._ends)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._ends], [], [])
            if self._ends in ready:
                return
            call_guarded(self._read, lambda error: None)
            if select.select([self._ends], [], [], _PAUSE)[0]:
                return

    def _read(self) -> None:
        data, at = os.read(self._fd, _READ), 0
        with self._lock:
            while at < len(data):
                wd, mask, _, size = _EVENT.unpack_from(data, at)
                at += _EVENT.size + size
                name = os.fsdecode(data[at - size : at].rstrip(b"\0"))
                self._take_in(wd, mask, name)
        self._tell()

    def _take_in(self, wd: int, mask: int, name: str) -> None:
        folder = self._folders.get(wd)
        if mask & _GONE:
            self._folders.pop(wd, None)
            if folder is not None and self._watched.get(folder) == wd:
                del self._watched[folder]
                self._found.is_listed = True
        if folder is None or not name or name.startswith("."):
            return
        if mask & _IS_FOLDER:
            self._found.is_listed = True
            return
        rel = f"{folder}/{name}" if folder else name
        self._found.names.add(rel.removesuffix("-wal"))


def _libc() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise OSError("there is no inotify on this system")
    return ctypes.CDLL(None, use_errno=True)


def _checked(number: int, path: str) -> int:
    if number < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return number
