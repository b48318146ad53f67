"""Opening the files of a plan: small ones whole, of large ones the header and the index.

What proves a page that is read by range? The checksum of a file covers all of it, so it
says nothing about a part. There are three degrees:

* A small file is fetched whole, and its checksum verified. The checksum of each of its
  pages is noted, so that a page that has to be fetched again is proven, too.
* The pages of a full image are compared with the page checksums that our writers put
  beside it (``sums/``), if they are there: a list with a checksum of its own that is bound
  to the header of the image.
* Of others, large files of Litestream for instance, only the form is proven: the index
  describes frames that fill the file, a frame has the number of the page that was asked
  for, and decompresses to exactly one page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from io import BytesIO
from typing import NamedTuple

from sqlitereplica.errors import InvalidFileError, StoreError
from sqlitereplica.ltx import (
    HEADER_SIZE,
    INDEX_TAIL_SIZE,
    Decoder,
    FileInfo,
    Header,
    PageIndex,
    index_offset,
    page_checksum,
)
from sqlitereplica.reading.pagemap import Part
from sqlitereplica.reading.pages import Get
from sqlitereplica.restore.sums import read_sums
from sqlitereplica.store import LTXStore

__all__ = ["SMALL_FILE", "DamagedFileError", "Opened", "open_parts"]

logger = logging.getLogger(__name__)

SMALL_FILE = 256 << 10
"""Bytes up to which a file is fetched whole."""

_TAIL_SIZE = 32 << 10


class DamagedFileError(Exception):
    """A file of a plan is damaged; never leaves this package."""

    def __init__(self, info: FileInfo, error: InvalidFileError) -> None:
        super().__init__(str(error))
        self.info, self.error = info, error


class Opened(NamedTuple):
    """A file that was opened, and what came along with it.

    ``pages`` of a small one, of a large one the bytes that it begins with.
    """

    part: Part
    pages: Mapping[int, bytes]
    head: bytes


def open_parts(
    store: LTXStore, get: Get, plan: Sequence[FileInfo], pool: Executor, head: int
) -> list[Opened]:
    """Open files, many at a time. ``get`` fetches ranges, as the store does.

    ``head`` bytes are fetched of the beginning of a large one: page 1 is read first.

    Raises:
        DamagedFileError: One is damaged.
        StoreError: One cannot be read; ``kind`` is ``"missing"`` if it is gone.
    """
    begun = [_begin(store, get, info, pool, head) for info in plan]
    opened = []
    for info, finish in zip(plan, begun, strict=True):
        try:
            opened.append(finish())
        except InvalidFileError as error:
            error.add_note(f"in level {info.level}, {info.name}, {store.name}")
            raise DamagedFileError(info, error) from error
    return opened


def _begin(
    store: LTXStore, get: Get, info: FileInfo, pool: Executor, head: int
) -> Callable[[], Opened]:
    """Ask for what opens a file; return what waits for it and opens it."""
    if info.size <= SMALL_FILE:
        whole = pool.submit(get, info, 0, info.size)
        return lambda: _open_whole(info, whole.result())
    first = pool.submit(get, info, 0, head)
    index = pool.submit(_index_of, get, info)
    return lambda: _open_large(store, info, first, index, pool)


def _open_whole(info: FileInfo, data: bytes) -> Opened:
    decoder = Decoder(BytesIO(data))
    _check(info, decoder.header)
    pages = dict(decoder.pages())
    sums = {pgno: page_checksum(pgno, page) for pgno, page in pages.items()}
    index = PageIndex.parse(data, info.size)
    return Opened(Part(info, decoder.header, index, sums.get), pages, b"")


def _open_large(
    store: LTXStore,
    info: FileInfo,
    first: Future[bytes],
    tail: Future[bytes],
    pool: Executor,
) -> Opened:
    head = first.result()
    header = Header.unpack(head[:HEADER_SIZE])
    _check(info, header)
    sums = pool.submit(_sums, store, header)  # waited for by who reads a page
    index = PageIndex.parse(tail.result(), info.size)
    part = Part(info, header, index, partial(_sum_of, sums))
    return Opened(part, {}, head)


def _sum_of(sums: Future[Callable[[int], int | None]], pgno: int) -> int | None:
    return sums.result()(pgno)


def _check(info: FileInfo, header: Header) -> None:
    if (header.min_txid, header.max_txid) != (info.min_txid, info.max_txid):
        raise InvalidFileError(f"{info.name} is another file", kind="name")


def _index_of(get: Get, info: FileInfo) -> bytes:
    """Return the end of a file, with all of its index."""
    start = info.size - min(info.size, _TAIL_SIZE + (info.size >> 7))
    tail = get(info, start, info.size)
    begin = index_offset(tail[-INDEX_TAIL_SIZE:], info.size)
    if begin < start:
        tail = get(info, begin, start) + tail
    return tail


def _sums(store: LTXStore, header: Header) -> Callable[[int], int | None]:
    """Return what knows the page checksums of a full image, as far as there are any."""
    if not header.is_snapshot or not header.post_checksum:
        return _unknown
    try:
        found = read_sums(store, header)
    except (InvalidFileError, StoreError) as error:
        logger.warning(
            "page checksums of transaction %d cannot be used: %s",
            header.max_txid,
            error,
            extra={"action": "read-sums", "replica": store.name},
        )
        return _unknown
    if found is None:
        return _unknown
    sums = found
    return lambda pgno: sums[pgno - 1] or None


def _unknown(pgno: int) -> None:
    """Know no checksum."""
