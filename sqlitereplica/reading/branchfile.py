"""A branch: a local database of which pages are fetched when they are first needed.

Theory of operation. The local file has the size of the database, with holes. The map beside
it says which pages are in the file; SQLite's reads of others fetch them from the replica and
write them there first. What SQLite writes is in the file from then on. Everything else,
locks, journals, WAL and shared memory, is SQLite's own VFS on the local file, so a branch is
used by several connections and processes as any database is.

Why a fetched page never overwrites a written one: SQLite reads a page of the file under a
lock that keeps others from writing that page, in journal mode the whole file, in WAL mode
by not letting a checkpoint go beyond a reader's mark. Only the header is read without a
lock, when a connection is opened; so the first page is there from the beginning.

Why a crash loses nothing. A written page is marked at once, as the mark has to be there
before its journal is gone. If the mark reaches the disk and the page does not, the power
was cut before SQLite's sync returned, and SQLite repairs all pages of that transaction
from its journal or WAL. A fetched page has no journal: it is marked after the file was
synced. Marks are synced before a sync returns.

Whoever finishes the branch fetches all that is missing, under no lock of SQLite's. So it takes
the lock of the map alone for the moment between the look whether a page is missing still and
the write; all that SQLite writes is written, and marked, under the shared one. The last page
fetched, the same lock covers the end: connections that are open go on, and find at their next
look that the file is a plain database.

Until all pages are there the file begins with bytes of ours, so that no other SQLite takes
it for a database. They are exchanged as they are read and written.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw

from sqlitereplica.reading.branchmap import BranchMap, map_path
from sqlitereplica.reading.view import View

__all__ = ["BRANCH_VFS", "MAGIC", "BranchFile", "BranchVFS"]

BRANCH_VFS = "sqlitereplica-branch"
MAGIC = b"SQLR branch 001\0"
"""What the local file begins with until it is a database."""
_SQLITE = b"SQLite format 3\0"


class BranchFile(apsw.VFSFile):
    """The local file; see https://sqlite.org/c3ref/io_methods.html."""

    def __init__(
        self,
        name: str | apsw.URIFilename,
        flags: list[int],
        pages: BranchMap,
        view: View,
    ) -> None:
        self._map, self._view = pages, view
        self._fetched: set[int] = set()
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        """Bytes of the file, after what is missing of them was fetched."""
        if self._map.is_finished:
            return super().xRead(amount, offset)
        size = self._map.page_size
        for pgno in range(offset // size + 1, (offset + amount - 1) // size + 2):
            self.fetch(pgno)
        data = super().xRead(amount, offset)
        if offset < len(MAGIC):
            data = (_SQLITE[offset:] + data[len(MAGIC) - offset :])[: len(data)]
        return data

    def fetch(self, pgno: int) -> None:
        """Make sure that a page is in the file."""
        if self._map.has(pgno) or pgno in self._fetched:
            return
        page = self._view.read(pgno)
        if pgno == 1:
            page = MAGIC + page[len(MAGIC) :]
        super().xWrite(page, (pgno - 1) * self._map.page_size)
        self._fetched.add(pgno)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write, and mark the pages; of those written in part the rest is fetched."""
        size, end = self._map.page_size, offset + len(data)
        for inside in {offset, end} - {0}:
            if inside % size:
                self.fetch(inside // size + 1)
        with self._map.locked(alone=False):
            if self._map.is_finished:
                super().xWrite(data, offset)
            else:
                self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> None:
        size, end = self._map.page_size, offset + len(data)
        first, last = offset // size + 1, (end - 1) // size + 1
        if offset < len(MAGIC):
            data = (MAGIC[offset:] + data[len(MAGIC) - offset :])[: len(data)]
        super().xWrite(data, offset)
        for pgno in range(first, last + 1):
            self._map.set(pgno)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        """Cut the file; what was behind is not to come back from the replica."""
        with self._map.locked(alone=False):
            self._map.set_from(-(-size // self._map.page_size) + 1)
            super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Bring the file to disk, and what is in it."""
        super().xSync(flags)
        self._mark()

    def _mark(self) -> None:
        """Mark the fetched pages, which are on disk now."""
        for pgno in self._fetched:
            self._map.set(pgno)
        self._fetched.clear()
        self._map.sync()

    def fetch_all(self, told: Callable[[int], object]) -> None:
        """Fetch all that is missing; ``told`` is given the number of each page.

        Others may write meanwhile.
        """
        pgno = self._map.missing()
        while pgno is not None:
            page = self._view.read(pgno)
            with self._map.locked(alone=True):
                if not self._map.has(pgno):
                    super().xWrite(page, (pgno - 1) * self._map.page_size)
                    self._fetched.add(pgno)
            told(pgno)
            pgno = self._map.missing(pgno + 1)

    def finish(self) -> None:
        """Make the file a plain database: all pages are there."""
        self.xSync(apsw.SQLITE_SYNC_FULL)
        with self._map.locked(alone=True):
            super().xWrite(_SQLITE, 0)
            super().xSync(apsw.SQLITE_SYNC_FULL)
            self._map.finish()
            self._map.sync()

    def xClose(self) -> None:  # noqa: N802
        """Keep what was fetched, and let go of everything."""
        try:
            if self._fetched:
                super().xSync(apsw.SQLITE_SYNC_NORMAL)
                self._mark()
        finally:
            self._view.close()
            self._map.close()
            super().xClose()


class BranchVFS(apsw.VFS):
    """Opens branches, and all other files as SQLite does. Thread-safe."""

    def __init__(self) -> None:
        super().__init__(BRANCH_VFS, "")
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[str, tuple[Callable[[], View], list[BranchFile]]] = {}

    def expect(self, open_view: Callable[[], View], opened: list[BranchFile]) -> str:
        """Take what is needed to open a branch once; return its number for the URI.

        The file that is opened is added to ``opened``.
        """
        with self._lock:
            number = str(next(self._numbers))
            self._waiting[number] = open_view, opened
        return number

    def xOpen(  # noqa: N802
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        """Open a branch, or any other file."""
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB or not isinstance(
            name, apsw.URIFilename
        ):
            return apsw.VFSFile("", name, flags)
        with self._lock:
            waiting = self._waiting.pop(name.uri_parameter("branch") or "", None)
        path = map_path(name.filename())
        if not path.exists():
            return apsw.VFSFile("", name, flags)
        if waiting is None:
            raise ValueError(f"{Path(name.filename())} is a branch: use its connect()")
        open_view, opened = waiting
        try:
            pages = BranchMap(path)
        except FileNotFoundError:
            return apsw.VFSFile("", name, flags)  # it was finished just now
        try:
            file = BranchFile(name, flags, pages, open_view())
        except BaseException:
            with suppress(BufferError):
                pages.close()
            raise
        opened.append(file)
        return file
