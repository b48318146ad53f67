"""Reading the entries of a page index many at a time: pure.

Theory. An entry is three LEB128 numbers, and neighbours mostly are of the same widths. A
stretch of such entries is a table of bytes, and the same byte of all entries is a slice of
it with a step. Slices are put side by side again, each number in a lane of 4 or 8 bytes, and
the seven bits of each byte are pushed together in all lanes at once, as one large integer.
So an entry costs a fraction of a microsecond, where a loop over its bytes takes more than one,
and a database of a gigabyte has a quarter of a million.

Nothing is proven here but the form of the numbers: least length, no zero. Whatever is not
read is for a slower way, which also says what is wrong.
"""

from __future__ import annotations

import re
import sys
from array import array
from functools import cache, lru_cache

from sqlitereplica.ltx.format import Buffer

__all__ = ["Columns", "read_entries"]

Columns = tuple["array[int]", "array[int]", "array[int]"]
"""Page numbers, offsets, sizes."""

_ENTRY = re.compile(rb"([\x80-\xff]*[\x01-\x7f])" * 3)
_LOW = bytes(n & 0x7F for n in range(256))
_PIECE = 1 << 16
_FEW = 64
"""Entries that a stretch has at least, on average, where this way is worth it."""


def read_entries(data: Buffer) -> Columns | None:
    """Read entries that lie side by side; None if a number is none, or widths vary."""
    pgnos, offsets, sizes = array("I"), array("Q"), array("I")
    at = stretches = 0
    while at < len(data):
        entry = _ENTRY.match(data, at)
        if entry is None:
            return None
        widths = tuple(map(len, entry.groups()))
        stretches += 1
        if widths[0] > 4 or widths[1] > 8 or widths[2] > 4:
            return None
        if stretches > 16 + len(pgnos) // _FEW:
            return None
        found = _stretch(widths).match(data, at, at + _PIECE)
        assert found is not None, "it begins with an entry of these widths"
        table = found[0]
        first, second, _ = widths
        _append(pgnos, table, 0, widths)
        _append(offsets, table, first, widths)
        _append(sizes, table, first + second, widths)
        at = found.end()
    return pgnos, offsets, sizes


@cache
def _stretch(widths: tuple[int, ...]) -> re.Pattern[bytes]:
    """Entries whose numbers have these widths, as many as there are."""
    numbers = (rb"[\x80-\xff]{%d}[\x01-\x7f]" % (width - 1) for width in widths)
    return re.compile(b"(?:%b)+" % b"".join(numbers))


def _append(
    column: array[int], table: bytes, start: int, widths: tuple[int, ...]
) -> None:
    """Append the numbers that begin at ``start`` in each entry of a table."""
    size, lane = sum(widths), column.itemsize
    ends = [0, widths[0], widths[0] + widths[1]]
    lanes = bytearray(len(table) // size * lane)
    for place in range(widths[ends.index(start)]):
        lanes[place::lane] = table[start + place :: size]
    numbers = array(column.typecode, _pushed(lanes, lane))
    if sys.byteorder == "big":
        numbers.byteswap()
    column += numbers


def _pushed(lanes: bytearray, lane: int) -> bytes:
    """Push the low seven bits of the bytes of each lane together."""
    number, span, bits = int.from_bytes(lanes.translate(_LOW), "little"), 1, 7
    while span < lane:
        low = number & _every_other(span, bits, len(lanes))
        number = low | (number ^ low) >> (8 * span - bits)
        span, bits = 2 * span, 2 * bits
    return number.to_bytes(len(lanes), "little")


@lru_cache(16)
def _every_other(span: int, bits: int, size: int) -> int:
    """Ones in the low bits of every other span of bytes."""
    ones = ((1 << bits) - 1).to_bytes(span, "little")
    return int.from_bytes((ones + bytes(span)) * (size // (2 * span)), "little")
