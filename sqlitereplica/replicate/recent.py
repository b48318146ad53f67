"""Files put lately, kept on local disk, so that compaction need not fetch them back.

For stores that are not local folders. A cache and nothing more: what is read from it is
decoded and checked like what comes from the store, a file that is missing here is read from
there, and no file is fsynced. It ends with the process (``MetaFolder`` empties the folder at
the next start).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo

__all__ = ["Recent"]

_Key = tuple[int, int, int]


class Recent:
    """A bounded number of bytes of the newest files of one replica. Thread-safe."""

    def __init__(self, folder: Path, prefix: str, limit: int) -> None:
        """Keep up to ``limit`` bytes in ``folder``; 0 keeps nothing."""
        self._folder, self._prefix, self._limit = folder, prefix, limit
        self._files: OrderedDict[_Key, tuple[int, Path]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self.error: OSError | None = None
        """Why the last file could not be kept, if so; nothing depends on it."""

    def add(self, info: FileInfo, data: bytes | Path) -> None:
        """Keep a file that was put, and let the oldest go for it."""
        if info.level == SNAPSHOT_LEVEL or info.size > self._limit // 4:
            return  # nothing is made of it, or it would push out all that is needed
        path = self._folder / f"{self._prefix}-{info.level}-{info.name}"
        try:
            path.unlink(missing_ok=True)
            if isinstance(data, Path):
                os.link(data, path)
            else:
                path.write_bytes(data)
        except OSError as error:
            self.error = error
            path.unlink(missing_ok=True)
            return
        with self._lock:
            self.error = None
            self._files[_key(info)] = info.size, path
            self._size += info.size
            while self._size > self._limit:
                self._drop(next(iter(self._files)))

    def __contains__(self, info: FileInfo) -> bool:
        with self._lock:
            return _key(info) in self._files

    def open(self, info: FileInfo) -> BinaryIO | None:
        """A file that is kept, opened to be read; None when it is not."""
        with self._lock:
            found = self._files.get(_key(info))
            return None if found is None else found[1].open("rb")

    def discard(self, infos: Iterable[FileInfo]) -> None:
        """Let files go that nobody needs any more."""
        with self._lock:
            for info in infos:
                self._drop(_key(info))

    def clear(self) -> None:
        """Let everything go."""
        with self._lock:
            for key in list(self._files):
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        found = self._files.pop(key, None)
        if found is not None:
            self._size -= found[0]
            found[1].unlink(missing_ok=True)


def _key(info: FileInfo) -> _Key:
    # Not the whole of it: a listing may tell another time than the header does.
    return info.level, info.min_txid, info.max_txid
