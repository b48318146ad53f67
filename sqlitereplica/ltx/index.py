"""The page index at the end of an LTX file (litestream.md 1.4).

Theory. For each page, ascending, the index holds three unsigned LEB128 varints: page
number, offset of its frame in the file, size of the frame. A varint 0 ends it, and the
number of its bytes, the 0 included, follows as u64. As frames lie side by side from
the end of the file header to the end of the pages, the index of a file is a function
of its frames: a decoder generates the only right one and compares, and nothing that it
reads there needs to be believed. A reader of single pages cannot do that; it parses,
and rejects every index that no sequence of frames has.

Entries are made hundreds at a time. Written one by one, they take a quarter of the time
of LZ4, and more of it than decompression does.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate, chain
from operator import lt, sub

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx.format import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    MAX_COMMIT,
    PAGE_HEADER_SIZE,
    TRAILER_SIZE,
    Buffer,
    max_frame_size,
)
from sqlitereplica.ltx.stretches import read_entries

__all__ = [
    "INDEX_TAIL_SIZE",
    "IndexWriter",
    "PageIndex",
    "index_entries",
    "index_entry",
    "index_offset",
    "varint",
]

INDEX_TAIL_SIZE = 8 + TRAILER_SIZE
"""Bytes behind the varints of an index: their length and the trailer."""

_SHORT = 256
"""Bytes of an index up to which a loop over them is as fast as anything."""
_MAX_VARINT_SIZE = 10
_AT_ONCE, _FEW = 512, 32  # entries
_MOST_LANE_BYTES = 8
_MAX_FRAME_SIZE = max_frame_size(65536)
_LAST = [bytes([n]) for n in range(0x80)]
_MORE = [bytes([n | 0x80]) for n in range(0x80)]


def varint(n: int) -> bytes:
    """Return ``n`` (0..2**64-1) as an unsigned LEB128 number of least length."""
    result = b""
    while n > 0x7F:
        result += _MORE[n & 0x7F]
        n >>= 7
    return result + _LAST[n]


def index_entry(pgno: int, offset: int, size: int) -> bytes:
    """Return the index entry of the frame of one page."""
    return varint(pgno) + varint(offset) + varint(size)


class IndexWriter:
    """Makes the index of frames that lie side by side, the first behind a file header.

    For each frame append its page to ``pgnos`` and where it ends to ``ends``.
    """

    def __init__(self) -> None:
        self.pgnos = array("Q")
        self.ends = array("Q", [HEADER_SIZE])

    def take(self) -> bytes:
        """Return the entries of the frames that were appended since the last call."""
        count = len(self.pgnos)
        parts = [self._entries(at, at + _AT_ONCE) for at in range(0, count, _AT_ONCE)]
        del self.pgnos[:], self.ends[:-1]
        return b"".join(parts)

    def _entries(self, first: int, last: int) -> bytes:
        pgnos, ends = self.pgnos[first:last], self.ends[first : last + 1]
        packed = _packed(pgnos, ends) if len(pgnos) > _FEW else None
        if packed is None:
            sizes = map(sub, ends[1:], ends)
            return b"".join(map(index_entry, pgnos, ends, sizes))
        return packed


def _packed(pgnos: array[int], ends: array[int]) -> bytes | None:
    """Return the entries of frames; None if their numbers are not all of one width.

    The numbers lie side by side in one integer, in lanes of 64 bits: each operation on it
    is done to all of them.
    """
    count = len(pgnos)
    offsets = _lanes(ends[:-1])
    # A frame ends behind its offset, so no lane borrows from the one beside it.
    rows = (_lanes(pgnos), pgnos[0]), (offsets, ends[0])
    sizes = (_lanes(ends[1:]) - offsets, ends[1] - ends[0])
    columns: list[bytes] = []
    for lanes, first in (*rows, sizes):
        width = len(varint(first))
        if not _are_all_of(width, lanes, count):
            return None
        columns += _varint_columns(lanes, width, count)
    packed = bytearray(count * len(columns))
    for at, column in enumerate(columns):
        packed[at :: len(columns)] = column
    return bytes(packed)


def _lanes(numbers: array[int]) -> int:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return int.from_bytes(numbers.tobytes(), "little")


@lru_cache(64)
def _all(value: int, count: int) -> int:
    """Lanes that have the same value."""
    return int.from_bytes(value.to_bytes(8, "little") * count, "little")


def _are_all_of(width: int, lanes: int, count: int) -> bool:
    """Whether each number is one whose varint is ``width`` bytes long.

    What is added carries into the highest bit of a lane if its number reaches the bound.
    """
    if width > _MOST_LANE_BYTES:
        return False
    highest = 1 << 63
    highests, beyond = _all(highest, count), _all(highest - (1 << 7 * width), count)
    if lanes + beyond & highests:
        return False
    least = 1 << 7 * (width - 1) if width > 1 else 0
    return lanes + _all(highest - least, count) & highests == highests


def _varint_columns(lanes: int, width: int, count: int) -> Iterator[bytes]:
    """Yield the first bytes of varints of ``width`` bytes, the second ones, and so on."""
    low, more = _all(0x7F, count), _all(0x80, count)
    for at in range(width):
        septets = lanes >> 7 * at & low
        if at < width - 1:
            septets |= more
        yield septets.to_bytes(8 * count, "little")[::8]


def index_offset(tail: Buffer, file_size: int) -> int:
    """Return the offset at which the index of a file begins.

    ``tail`` is the end of the file, at least INDEX_TAIL_SIZE bytes of it. Raises
    InvalidFileError if no index can begin there.
    """
    if len(tail) < INDEX_TAIL_SIZE:
        raise InvalidFileError("no room for a page index", kind="truncated")
    length = int.from_bytes(tail[-INDEX_TAIL_SIZE:-TRAILER_SIZE], "big")
    offset = file_size - INDEX_TAIL_SIZE - length
    if length < 1 or offset < HEADER_SIZE + PAGE_HEADER_SIZE:
        raise InvalidFileError(
            f"a page index of {length} bytes in a file of {file_size}",
            kind="index",
            offset=file_size - INDEX_TAIL_SIZE,
        )
    return offset


def index_entries(data: Iterable[Buffer], begin: int) -> Iterator[tuple[int, int, int]]:
    """Yield (pgno, offset, size) of each frame, as the index at ``begin`` has them.

    ``data`` are the bytes from there to the length of the index, in pieces of any size.
    Raises InvalidFileError unless the entries describe frames that lie side by side and
    fill the file; of what was yielded until then nothing can be believed.
    """
    numbers = _varints(chain.from_iterable(data), begin)
    last, end = 0, HEADER_SIZE
    for pgno in numbers:
        if pgno == 0:
            break
        offset, size = next(numbers, -1), next(numbers, -1)
        if not last < pgno <= MAX_COMMIT:
            raise _invalid(f"page {pgno} after page {last}", begin)
        if offset != end or not FRAME_HEADER_SIZE < size <= _MAX_FRAME_SIZE:
            raise _invalid(f"page {pgno} at {offset}, {size} bytes", begin)
        last, end = pgno, offset + size
        if end > begin - PAGE_HEADER_SIZE:
            raise _invalid(f"page {pgno} ends at {end}", begin)
        yield pgno, offset, size
    else:
        raise _invalid("no end", begin)
    if next(numbers, None) is not None:
        raise _invalid("entries behind its end", begin)
    if end != begin - PAGE_HEADER_SIZE:
        raise _invalid(f"the frames end at {end}", begin)


class PageIndex(Mapping[int, tuple[int, int]]):
    """Where the pages of one file are: page number to (offset, size) of its frame.

    Takes 12 bytes of memory a page.
    """

    def __init__(self, pgnos: array[int], offsets: array[int]) -> None:
        """Use ``parse``. ``offsets`` has one item more: the end of the last frame."""
        self._pgnos = pgnos
        self._offsets = offsets

    @classmethod
    def parse(cls, tail: Buffer, file_size: int) -> PageIndex:
        """Read the index from the end of a file of ``file_size`` bytes.

        ``tail`` must reach back to ``index_offset``. Raises InvalidFileError unless
        the entries describe frames that lie side by side and fill the file.
        """
        begin = index_offset(tail, file_size)
        position = begin - (file_size - len(tail))
        if position < 0:
            raise InvalidFileError("the tail misses the index", kind="truncated")
        data = tail[position:-INDEX_TAIL_SIZE]
        found = _read_at_once(data, begin)
        if found is not None:
            return cls(*found)
        pgnos, offsets = array("I"), array("Q", [HEADER_SIZE])
        for pgno, offset, size in index_entries([data], begin):
            pgnos.append(pgno)
            offsets.append(offset + size)
        return cls(pgnos, offsets)

    def __getitem__(self, pgno: int) -> tuple[int, int]:
        at = bisect_left(self._pgnos, pgno)
        if at == len(self._pgnos) or self._pgnos[at] != pgno:
            raise KeyError(pgno)
        offset = self._offsets[at]
        return offset, self._offsets[at + 1] - offset

    def run(self, pgno: int, size: int) -> list[tuple[int, int, int]]:
        """Return (pgno, offset, size) of a frame and of those behind it in the file.

        They are as many as ``size`` bytes hold, and the first one in any case. Raises
        KeyError if the file does not have the page.
        """
        offset, _ = self[pgno]
        first = bisect_left(self._pgnos, pgno)
        last = max(first + 1, bisect_right(self._offsets, offset + size) - 1)
        offsets = self._offsets[first : last + 1]
        sizes = map(sub, offsets[1:], offsets)
        return list(zip(self._pgnos[first:last], offsets, sizes, strict=False))

    def after(self, offset: int) -> int | None:
        """Return the page of the frame that begins there, or None at the end of all."""
        at = bisect_left(self._offsets, offset)
        return self._pgnos[at] if at < len(self._pgnos) else None

    def __iter__(self) -> Iterator[int]:
        return iter(self._pgnos)

    def __len__(self) -> int:
        return len(self._pgnos)


def _read_at_once(data: Buffer, begin: int) -> tuple[array[int], array[int]] | None:
    """As ``index_entries``, for most indexes: page numbers, and offsets with the end.

    None for an index that has to be read slowly, which tells what is wrong with it.
    """
    is_long = len(data) > _SHORT and data[-1] == 0
    columns = read_entries(data[:-1]) if is_long else None
    if columns is None or not columns[0]:
        return None
    pgnos, offsets, sizes = columns
    ends = array("Q", accumulate(sizes, initial=HEADER_SIZE))
    is_right = (
        ends[:-1] == offsets
        and ends[-1] == begin - PAGE_HEADER_SIZE
        and FRAME_HEADER_SIZE < min(sizes) <= max(sizes) <= _MAX_FRAME_SIZE
        and pgnos[-1] <= MAX_COMMIT
        and all(map(lt, pgnos, pgnos[1:]))
    )
    return (pgnos, ends) if is_right else None


def _varints(data: Iterable[int], offset: int) -> Iterator[int]:
    """Yield the numbers in ``data``; each must be minimal and fit in 64 bits."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            if shift >= 7 * _MAX_VARINT_SIZE:
                raise _invalid("a number of more than 10 bytes", offset)
            continue
        if value >> 64 or (byte == 0 and shift > 7):
            raise _invalid("a number that is too large or padded", offset)
        yield value
        value = shift = 0
    if shift:
        raise _invalid("an unfinished number", offset)


def _invalid(what: str, offset: int) -> InvalidFileError:
    return InvalidFileError(f"invalid page index: {what}", kind="index", offset=offset)
