"""Single pages of one file of a replica, by range requests.

The page index at the end of the file says where the frames are; only those that are
wanted are fetched. Neighbours become one request, and so do frames with little between
them: a request costs more than a few kilobytes. Memory: 16 bytes a page that is wanted,
whatever the size of the index, which is read as it comes.

Neither index nor frames are covered by a checksum here, as that of the file is over all
of it. A frame must be what the index says; whether the page is right its own checksum
has to show.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from sqlitereplica.ltx import (
    INDEX_TAIL_SIZE,
    Buffer,
    FileInfo,
    decode_frame,
    index_entries,
    index_offset,
)
from sqlitereplica.restore.fetch import CHUNK_SIZE, Ahead, Chunk, cut
from sqlitereplica.store import LTXStore

__all__ = ["ENTRY_SIZE", "Frames", "fetch_pages", "find_frames"]

ENTRY_SIZE = 10
"""Bytes that the index has for a page, at most in files below 32 GiB."""

HOLE_SIZE = 8 << 10
"""Bytes between two frames that are fetched with them rather than skipped."""

_THREADS = 16


class Frames(NamedTuple):
    """Where frames are: ascending page numbers, offsets in the file, sizes in bytes."""

    pgnos: array[int]
    offsets: array[int]
    sizes: array[int]

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield (first, behind the last) of the frames that are fetched together."""
        first, end = 0, 0
        for at, (offset, size) in enumerate(zip(self.offsets, self.sizes, strict=True)):
            too_far = offset - end > HOLE_SIZE
            too_long = offset + size - self.offsets[first] > CHUNK_SIZE
            if at and (too_far or too_long):
                yield first, at
                first = at
            end = offset + size
        if self.offsets:
            yield first, len(self.offsets)

    def chunks(self, file: FileInfo) -> Iterator[Chunk[FileInfo]]:
        """Yield what has to be fetched of the file, a chunk for each span."""
        for first, last in self.spans():
            end = self.offsets[last - 1] + self.sizes[last - 1]
            yield Chunk(file, self.offsets[first], end)


def find_frames(
    store: LTXStore,
    file: FileInfo,
    count: int,
    is_wanted: Callable[[int], bool],
    *,
    on_bytes: Callable[[int], object],
) -> Frames:
    """Read the page index of a file and return where the wanted pages are.

    ``count`` is the number of pages in the file, as far as known: so much is read first.

    Raises:
        InvalidFileError: The index is not one that a file has.
        StoreError: It cannot be fetched.
    """
    length = min(CHUNK_SIZE, INDEX_TAIL_SIZE + ENTRY_SIZE * count)
    start = max(0, file.size - length)
    tail = memoryview(store.get(file, start, file.size))
    on_bytes(len(tail))
    begin = index_offset(tail, file.size)
    frames = Frames(array("I"), array("Q"), array("I"))
    with Ahead(store.get, cut(file, begin, start), on_bytes=on_bytes) as ahead:
        last: Buffer = tail[max(0, begin - start) : -INDEX_TAIL_SIZE]
        pieces = chain(_taken(ahead), [last])
        for pgno, offset, size in index_entries(pieces, begin):
            if is_wanted(pgno):
                frames.pgnos.append(pgno)
                frames.offsets.append(offset)
                frames.sizes.append(size)
    return frames


def fetch_pages(
    store: LTXStore,
    file: FileInfo,
    frames: Frames,
    page_size: int,
    *,
    on_bytes: Callable[[int], object],
) -> Iterator[tuple[int, bytes]]:
    """Yield (page number, page) of the frames.

    Raises:
        InvalidFileError: A frame is not the one that the index promises.
        StoreError: One cannot be fetched.
    """
    chunks = frames.chunks(file)
    with Ahead(store.get, chunks, threads=_THREADS, on_bytes=on_bytes) as ahead:
        for first, last in frames.spans():
            data = memoryview(ahead.take())
            start = frames.offsets[first]
            for at in range(first, last):
                pgno, begin = frames.pgnos[at], frames.offsets[at] - start
                frame = data[begin : begin + frames.sizes[at]]
                yield pgno, decode_frame(frame, pgno, page_size)


def _taken(ahead: Ahead[FileInfo]) -> Iterator[bytes]:
    while ahead.next is not None:
        yield ahead.take()
