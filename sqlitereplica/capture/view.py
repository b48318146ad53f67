"""A view: one committed state of the source database, readable page by page.

Theory. While a read transaction of ours stands at a wal-index header H, SQLite keeps every
page of that state where it is:

* pages with a frame in (nBackfill, mxFrame] of H are read from the WAL, which cannot be
  reset under our mark;
* all others are read from the database file. A checkpoint may write there meanwhile, but
  only pages whose frames are at or below our mark, and those we take from the WAL. When H
  was fully backfilled our lock is READ_LOCK(0), and nobody writes to the file at all.

So a view needs SQLite only to begin and to end, both done by the capture thread; in
between any thread may read it with ``pread`` alone.

The capture thread may have to let the database go while a view is read, and what is read
from then on may be wrong. It says so first (``valid``), then drops its locks. A reader
counts on what it read only if the view is still valid *afterwards*: then every byte was
read under the locks. The descriptors stay open until ``release``, so that what is read is
the files' at least, and nothing else in the process.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Iterator

from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.ltx import Buffer, lock_pgno
from sqlitereplica.sqlite import SourceDatabase, WalIndex, last_frames, split

__all__ = ["View", "ViewEndedError"]

_READ_BYTES = 1 << 18


class ViewEndedError(DatabaseStateError):
    """The database was let go while it was read: ask for another view."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} was let go while it was read", path=path, kind="view-ended"
        )


class View:
    """One state of the database, until ``release``. To be read by one thread.

    Whoever used what it read calls ``check`` *afterwards*, before the bytes count: the
    capture thread may have had to let the database go meanwhile.
    """

    def __init__(self, source: SourceDatabase, index: WalIndex, commit: int) -> None:
        """To be made while a read transaction at ``index`` is held."""
        self._source = source
        self.path = source.path
        self.page_size = source.page_size
        self.commit = commit
        self._lock = lock_pgno(self.page_size)
        self._frames = wal_map(source, index, index.n_backfill + 1)
        self.released = threading.Event()
        self.valid = True
        """False once the database was let go: what was read may be wrong."""
        self._release_lock = threading.Lock()
        source.share()

    def release(self) -> None:
        """Say that nobody reads any more; the capture thread then ends the transaction.

        Idempotent; from any thread.
        """
        with self._release_lock:
            if self.released.is_set():
                return
            self.released.set()
        self._source.let_go()

    def check(self) -> None:
        """Raise ViewEndedError when what was read so far may be wrong."""
        if not self.valid:
            raise ViewEndedError(self.path)

    def all_pages(self) -> Iterator[tuple[int, bytes]]:
        """Every page but the lock page, in order."""
        return self.pages(range(1, self.commit + 1))

    def pages(self, pgnos: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The given pages (ascending), without the lock page, as (pgno, page)."""
        for first, run in self.runs(pgnos):
            yield from enumerate(map(bytes, run), first)

    def runs(self, pgnos: Iterable[int]) -> Iterator[tuple[int, list[Buffer]]]:
        """The same as runs of neighbours: (pgno of the first, pages).

        Pages are parts of what was read at once: who keeps one copies it, or keeps all.
        """
        size = self.page_size
        for first, count in _runs(pgnos, max(1, _READ_BYTES // size), self._lock):
            self.check()  # early, to spare the work
            block = memoryview(self._source.read_db(first, count))
            run: list[Buffer] = [
                block[at : at + size] for at in range(0, count * size, size)
            ]
            for pgno in self._in_wal(first, count):
                run[pgno - first] = self._source.read_wal_page(self._frames[pgno])
            yield first, run

    def _in_wal(self, first: int, count: int) -> Iterable[int]:
        if not self._frames:
            return ()
        return self._frames.keys() & range(first, first + count)


def wal_map(source: SourceDatabase, index: WalIndex, first: int) -> dict[int, int]:
    """Map pgno to its newest frame number among frames ``first..index.mx_frame``."""
    step = source.page_size + 24
    newest: dict[int, int] = {}
    for start, count in split(first, index.mx_frame, max(1, 4 * _READ_BYTES // step)):
        found = last_frames(
            source.read_wal(start, count), source.page_size, index, start
        )
        newest.update((pgno, start + at // step) for pgno, at in found.items())
    return newest


def _runs(pgnos: Iterable[int], most: int, without: int) -> Iterator[tuple[int, int]]:
    """Join ascending numbers into (first, count) runs without holes, of bounded length.

    The number ``without`` is left out. A run costs a few looks at the numbers, not one at
    each: mostly there are no holes.
    """
    numbers = array("I", pgnos)
    at = 0
    while at < len(numbers):
        first, count = numbers[at], min(most, len(numbers) - at)
        if first == without:
            at += 1
            continue
        if numbers[at + count - 1] - first >= count:  # there is a hole
            count = 1
            while numbers[at + count] == first + count:
                count += 1
        if first < without < first + count:
            count = without - first
        yield first, count
        at += count
