"""Which files a replica holds, remembered so that nothing has to be listed while idle.

Filled by the listing with which a worker begins, kept true by every put and deletion of this
process. A later listing replaces it, except for what was added while that listing was made:
a store may or may not show a file that is being put just then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from sqlitereplica.ltx import FileInfo

__all__ = ["Catalog"]

_Key = tuple[int, int, int]


class Catalog:
    """The files of one replica as this process knows them. Thread-safe."""

    def __init__(self) -> None:
        self._files: dict[_Key, tuple[int, FileInfo]] = {}
        self._lock = threading.Lock()
        self.version = 0
        """Grows with every change: an unchanged number means unchanged files."""

    def files(self) -> tuple[FileInfo, ...]:
        """All files, by level and TXID."""
        with self._lock:
            found = [info for _, info in self._files.values()]
        return tuple(sorted(found, key=_key))

    def add(self, info: FileInfo) -> None:
        """Note a file that was put."""
        with self._lock:
            self.version += 1
            self._files[_key(info)] = self.version, info

    def remove(self, infos: Iterable[FileInfo]) -> None:
        """Forget files that are gone."""
        with self._lock:
            self.version += 1
            for info in infos:
                self._files.pop(_key(info), None)

    def replace(self, listed: Iterable[FileInfo], since: int) -> list[FileInfo]:
        """Take a listing over; ``since`` is the ``version`` before it was asked for.

        A file that is known keeps the time that is known, which is that of its header.
        Returns files that were known and are not listed: somebody deleted them, or the
        listing lies.
        """
        with self._lock:
            old = self._files
            new = {_key(info): (0, info) for info in listed}
            for key, (version, info) in old.items():
                if version > since or key in new:
                    new[key] = version, info
            lost = [info for key, (_, info) in old.items() if key not in new]
            if lost or len(new) != len(old):
                self.version += 1
            self._files = new
        return sorted(lost, key=_key)


def _key(info: FileInfo) -> _Key:
    return info.level, info.min_txid, info.max_txid
