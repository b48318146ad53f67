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
from concurrent.futures import Executor
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
    """A file that was opened; ``pages`` has what came along with it."""

    part: Part
    pages: Mapping[int, bytes]


def open_parts(
    store: LTXStore, get: Get, plan: Sequence[FileInfo], pool: Executor
) -> list[Opened]:
    """Open files, many at a time. ``get`` fetches ranges, as the store does.

    Raises:
        DamagedFileError: One is damaged.
        StoreError: One cannot be read; ``kind`` is ``"missing"`` if it is gone.
    """
    return list(pool.map(partial(_open, store, get), plan))


def _open(store: LTXStore, get: Get, info: FileInfo) -> Opened:
    try:
        if info.size <= SMALL_FILE:
            return _open_whole(info, get(info, 0, info.size))
        return _open_large(store, get, info)
    except InvalidFileError as error:
        error.add_note(f"in level {info.level}, {info.name}, {store.name}")
        raise DamagedFileError(info, error) from error


def _open_whole(info: FileInfo, data: bytes) -> Opened:
    decoder = Decoder(BytesIO(data))
    _check(info, decoder.header)
    pages = dict(decoder.pages())
    sums = {pgno: page_checksum(pgno, page) for pgno, page in pages.items()}
    index = PageIndex.parse(data, info.size)
    return Opened(Part(info, decoder.header, index, sums.get), pages)


def _open_large(store: LTXStore, get: Get, info: FileInfo) -> Opened:
    header = Header.unpack(get(info, 0, HEADER_SIZE))
    _check(info, header)
    index = PageIndex.parse(_index_of(get, info), info.size)
    return Opened(Part(info, header, index, _sums(store, header)), {})


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
