"""Fetching pages: by range, with their neighbours, ahead of a scan.

Theory. Frames lie in a file in the order of page numbers, so pages that follow each other
in the database are one range of the file. A page that is not in the cache is fetched with
a little of what follows: a request costs more than some kilobytes. When the next page
that is missing lies right behind what was fetched last from that file, somebody scans:
what is fetched doubles each time, and once it is large, the next range is fetched in the
background while this one is used.

A page that a later file replaced is in the range, too, but is not decompressed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx import HEADER_SIZE, FileInfo, decode_frame, page_checksum
from sqlitereplica.reading.cache import PageCache
from sqlitereplica.reading.pagemap import PageMap, Part

__all__ = ["FAR", "NEAR", "Get", "Pages", "Reach"]

Get = Callable[[FileInfo, int, int], bytes]
"""Fetches a range of a file."""

_Run = list[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Reach:
    """How much is fetched at once, in bytes.

    ``first`` for a page that nothing is known of, at most ``most`` in a scan; from
    ``ahead`` on the next range is fetched in the background.
    """

    first: int
    most: int
    ahead: int


NEAR = Reach(first=16 << 10, most=1 << 20, ahead=1 << 62)
"""For local folders: a request takes microseconds, waiting is no issue."""
FAR = Reach(first=64 << 10, most=2 << 20, ahead=512 << 10)
"""For object stores: a request takes as long as a few hundred kilobytes."""


class _Stream:
    """How one file was read lately."""

    def __init__(self, size: int) -> None:
        self.size = size
        """Bytes that were fetched last."""
        self.end = -1
        """Where they ended."""
        self.run: _Run = []
        self.coming: Future[bytes] | None = None
        """What is fetched in the background: the bytes of ``run``."""


class Pages:
    """Reads pages of the files of a map; belongs to one thread.

    ``pool`` is for what is fetched in the background; errors come out when that is used.
    """

    def __init__(
        self, get: Get, pool: Executor, cache: PageCache, reach: Reach
    ) -> None:
        self._get, self._pool = get, pool
        self._cache, self.reach = cache, reach
        self._streams: dict[Part, _Stream] = {}

    def read(self, pages: PageMap, part: Part, pgno: int) -> bytes:
        """Return a page of the state, which ``part`` brings.

        Raises:
            InvalidFileError: It is damaged.
            StoreError: It cannot be fetched.
        """
        found = self._cache.get((part, pgno))
        if found is not None:
            return found
        stream = self._streams.setdefault(part, _Stream(self.reach.first))
        wanted = self._arrive(stream, pages, part, pgno)
        if wanted is None:
            run = self._plan(stream, part, pgno)
            data = self._get(part.info, *_range(run))
            stream.end = _range(run)[1]
            wanted = self._keep(pages, part, run, data, pgno)
        self._look_ahead(stream, part)
        return wanted

    def keep(self, part: Part, pgno: int, page: bytes) -> None:
        """Take a page that came by another way."""
        self._cache.put((part, pgno), page)

    def offer(self, part: Part, begin: bytes) -> None:
        """Take the bytes that a file begins with: the first page is asked for soon."""
        run = part.index.run(next(iter(part.index)), len(begin) - HEADER_SIZE)
        if run and _range(run)[1] <= len(begin):
            stream = self._streams[part] = _Stream(self.reach.first)
            stream.run, stream.coming = run, Future()
            stream.coming.set_result(begin[HEADER_SIZE:])

    def forget(self) -> None:
        """Give up what is being fetched: other files are read from now on."""
        for stream in self._streams.values():
            if stream.coming is not None:
                stream.coming.cancel()
        self._streams.clear()

    def _plan(self, stream: _Stream, part: Part, pgno: int) -> _Run:
        """Choose what to fetch with a page."""
        offset, _ = part.index[pgno]
        if 0 <= offset - stream.end <= stream.size:
            stream.size = min(2 * stream.size, self.reach.most)
        else:
            stream.size = self.reach.first
        return part.index.run(pgno, stream.size)

    def _arrive(
        self, stream: _Stream, pages: PageMap, part: Part, pgno: int
    ) -> bytes | None:
        """Take in what is fetched in the background if the page is in it."""
        if stream.coming is None:
            return None
        run, coming = stream.run, stream.coming
        if not run[0][0] <= pgno <= run[-1][0]:
            return None
        stream.run, stream.coming = [], None
        data = coming.result()
        stream.end = _range(run)[1]
        stream.size = min(2 * stream.size, self.reach.most)
        return self._keep(pages, part, run, data, pgno)

    def _look_ahead(self, stream: _Stream, part: Part) -> None:
        """Begin to fetch what a scan reads next."""
        if stream.size < self.reach.ahead:
            return
        if stream.coming is not None and _range(stream.run)[0] == stream.end:
            return
        following = part.index.after(stream.end)
        if following is not None:
            stream.run = part.index.run(following, stream.size)
            stream.coming = self._pool.submit(self._get, part.info, *_range(stream.run))

    def _keep(
        self, pages: PageMap, part: Part, run: _Run, data: bytes, wanted: int
    ) -> bytes:
        """Take the frames apart; return the page that is wanted."""
        start, _ = _range(run)
        view = memoryview(data)
        result = b""
        for pgno, offset, size in reversed(run):
            key = part, pgno
            if pgno != wanted and (key in self._cache or not pages.has(part, pgno)):
                continue
            frame = view[offset - start : offset - start + size]
            try:
                page = decode_frame(frame, pgno, pages.page_size)
                _prove(part, pgno, page)
            except InvalidFileError:
                if pgno == wanted:
                    raise
                continue  # it is said when somebody asks for that page
            self._cache.put(key, page)
            if pgno == wanted:
                result = page
        return result


def _prove(part: Part, pgno: int, page: bytes) -> None:
    """Raise ChecksumMismatchError if a page is known to be another one."""
    expected = part.sum_of(pgno)
    if expected is None:
        return
    actual = page_checksum(pgno, page)
    if actual != expected:
        raise ChecksumMismatchError(f"page {pgno}", expected=expected, actual=actual)


def _range(run: _Run) -> tuple[int, int]:
    """Return the offsets of the first byte and of the one behind the last."""
    return run[0][1], run[-1][1] + run[-1][2]
