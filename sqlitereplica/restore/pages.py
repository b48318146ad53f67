"""Pages on their way into a followed file: proven, and held until they are written.

A page of an LTX file is right only when the whole file has been read, and it must be there
twice, to be compared and to be written. So pages are gathered first, the newest copy of each:
in memory, and past a limit in a temporary file without a name.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, Protocol, Self

__all__ = ["Gathered", "Pages", "StoredPages", "write_at"]

_MEMORY = 16 << 20


def write_at(fd: int, data: bytes | bytearray, offset: int) -> int:
    """Write all of it, past every buffer; returns its size."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
    return len(data)


class Pages(Protocol):
    """Pages by number."""

    def pgnos(self) -> Iterable[int]:
        """Their numbers, ascending."""

    def page(self, pgno: int) -> bytes:
        """One of them."""


class Gathered:
    """Pages of one or several transactions; a context manager that lets them go."""

    def __init__(self, page_size: int, *, folder: str, memory: int = _MEMORY) -> None:
        self.page_size = page_size
        self._folder = folder
        self._most = max(1, memory // page_size)
        self._pages: dict[int, bytes] = {}
        self._places: dict[int, int] = {}
        self._file: BinaryIO | None = None
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let them go."""
        if self._file is not None:
            self._file.close()

    @property
    def size(self) -> int:
        """Bytes of the pages."""
        return (len(self._pages) + len(self._places)) * self.page_size

    def add(self, pages: Iterable[tuple[int, bytes]], commit: int) -> None:
        """Add what a transaction of ``commit`` pages wrote.

        Raises:
            OSError: no space for it.
        """
        for known in (self._pages, self._places):
            for gone in [pgno for pgno in known if pgno > commit]:
                del known[gone]
        for pgno, page in pages:
            stored = pgno in self._places
            if not stored and (pgno in self._pages or len(self._pages) < self._most):
                self._pages[pgno] = page
            else:
                self._store(pgno, page)

    def _store(self, pgno: int, page: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
        place = self._places.get(pgno)
        if place is None:
            place = self._places[pgno] = self._end
            self._end += self.page_size
        write_at(self._file.fileno(), page, place)

    def pgnos(self) -> Iterable[int]:
        """Their numbers, ascending."""
        return sorted([*self._pages, *self._places])

    def page(self, pgno: int) -> bytes:
        """One of them."""
        place = self._places.get(pgno)
        if place is None:
            return self._pages[pgno]
        assert self._file is not None
        return os.pread(self._file.fileno(), self.page_size, place)


class _Readable(Protocol):
    def read(self, offset: int, size: int) -> bytes:
        """Bytes of a file."""


class StoredPages:
    """All pages of a database in a file, but its lock page."""

    def __init__(
        self, file: _Readable, *, page_size: int, commit: int, lock: int
    ) -> None:
        self._file = file
        self.page_size, self._commit, self._lock = page_size, commit, lock

    def pgnos(self) -> Iterable[int]:
        """Their numbers, ascending."""
        return (p for p in range(1, self._commit + 1) if p != self._lock)

    def page(self, pgno: int) -> bytes:
        """One of them."""
        return self._file.read((pgno - 1) * self.page_size, self.page_size)
