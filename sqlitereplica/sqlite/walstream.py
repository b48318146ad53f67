"""A WAL that arrives piece by piece, proven by its checksums alone.

There is no wal-index to say which frames count (as there is for ``wal.py``), but every
frame carries the checksum of the WAL up to it (walformat.html, section 4.1): two running
sums over 32-bit words, x0 and x1 by turns::

    s0 += x0 + s1
    s1 += x1 + s0

over the first 8 bytes of a frame's header and its page, beginning with the sums stored in
the frame before, and for the first frame those in the header of the WAL. The words are
big-endian if the last bit of the magic number is set, else little-endian.

In Python that would take 70 us a page. But since each frame tells the sums that the next
one begins with, the sums of many frames can be computed side by side: in one long integer
with 64 bits for each frame, of which 32 are used, step by step through all frames at once.
If all are what the frames say, each frame follows from the one before.

Nothing is believed before that: neither a page number nor a commit leaves this module
unproven.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError

__all__ = ["WalFrames", "WalStream"]

WAL_HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24

_MAGIC = 0x377F0682  # the last bit is the byte order of the sums
_VERSION = 3007000
_MASK = 0xFFFFFFFF
_BATCH_SIZE = 2 << 20
_FEWEST, _MOST = 64, 1024  # frames in a batch


class WalFrames(NamedTuple):
    """Proven frames that follow each other.

    ``pgnos`` and ``commits`` are their page numbers and, where a transaction ends, the
    size of the database in pages, else 0.
    """

    pgnos: tuple[int, ...]
    commits: tuple[int, ...]
    data: bytes
    page_size: int

    def page(self, number: int) -> bytes:
        """The page in a frame, counted from 0."""
        step = self.page_size + FRAME_HEADER_SIZE
        start = number * step + FRAME_HEADER_SIZE
        return self.data[start : start + self.page_size]


class WalStream:
    """One WAL, from its header on. ``size`` counts the bytes taken in."""

    def __init__(self, page_size: int) -> None:
        """``page_size`` is that of the database."""
        self.size = 0
        self._page_size = page_size
        self._step = page_size + FRAME_HEADER_SIZE
        self._batch = self._step * max(_FEWEST, min(_MOST, _BATCH_SIZE // self._step))
        self._waiting = bytearray()
        self._salts = b""  # those of the header, once that is known
        self._sums = b""  # those of the last frame, stored as they are in the WAL
        self._swaps = False

    def feed(self, data: bytes) -> Iterator[WalFrames]:
        """Take in bytes and yield frames, in batches.

        Raises:
            InvalidFileError: the header or a frame is not valid.
            ChecksumMismatchError: a checksum differs.
        """
        self.size += len(data)
        self._waiting += data
        if not self._salts and len(self._waiting) >= WAL_HEADER_SIZE:
            self._take_header()
        while self._salts and len(self._waiting) >= self._batch:
            yield self._take_frames(self._batch)

    def end_segment(self) -> None:
        """Raise InvalidFileError, ``"wal-short"``, unless a frame ends here."""
        if not self._salts or len(self._waiting) % self._step:
            raise InvalidFileError(
                "the WAL ends within a frame", kind="wal-short", offset=self.size
            )

    def flush(self) -> Iterator[WalFrames]:
        """Yield the frames that are left after ``end_segment``; raises as ``feed``."""
        if self._waiting:
            yield self._take_frames(len(self._waiting))

    def _take_header(self) -> None:
        header = bytes(self._waiting[:WAL_HEADER_SIZE])
        del self._waiting[:WAL_HEADER_SIZE]
        magic, version, page_size = struct.unpack_from(">III", header)
        if magic & ~1 != _MAGIC or version != _VERSION:
            raise InvalidFileError("this is no WAL", kind="wal-magic", offset=0)
        self._swaps = bool(magic & 1)
        s0 = s1 = 0
        for x0, x1 in struct.iter_unpack(">II" if self._swaps else "<II", header[:24]):
            s0 = s0 + x0 + s1 & _MASK
            s1 = s1 + x1 + s0 & _MASK
        _compare("WAL header", header[24:], struct.pack(">II", s0, s1))
        if page_size != self._page_size:
            raise InvalidFileError(
                f"the WAL has pages of {page_size} bytes, its database of"
                f" {self._page_size}",
                kind="page-size",
            )
        self._salts, self._sums = header[16:24], header[24:]

    def _take_frames(self, size: int) -> WalFrames:
        data = bytes(memoryview(self._waiting)[:size])
        del self._waiting[:size]
        stride = self._step // 8
        fields = memoryview(data).cast("Q")
        if fields[1::stride].tobytes() != self._salts * (size // self._step):
            raise InvalidFileError("a WAL frame has other salts", kind="wal-salts")
        stored = fields[2::stride].tobytes()
        self._verify(data, self._sums + stored[:-8], stored)
        self._sums = stored[-8:]
        count = size // self._step
        numbers = struct.unpack(f">{2 * count}I", fields[::stride].tobytes())
        frames = WalFrames(numbers[::2], numbers[1::2], data, self._page_size)
        if 0 in frames.pgnos:
            raise InvalidFileError("a WAL frame has page number 0", kind="wal-pgno")
        return frames

    def _verify(self, data: bytes, before: bytes, stored: bytes) -> None:
        """Compare the sums of frames that begin with the sums ``before``."""
        stride, count = self._step // 8, len(stored) // 8
        pairs = array("Q", _swapped(data) if self._swaps else data)
        load = int.from_bytes
        low = load(b"\xff\xff\xff\xff\0\0\0\0" * count, "little")
        both = load(_swapped(before), "little")
        s0, s1 = both & low, both >> 32 & low
        for at in (0, *range(FRAME_HEADER_SIZE // 8, stride)):
            pair = load(pairs[at::stride], "little")
            s0 = s0 + (pair & low) + s1 & low
            s1 = s1 + (pair >> 32 & low) + s0 & low
        actual = _swapped((s0 | s1 << 32).to_bytes(8 * count, "little"))
        if actual != stored:
            for at in range(0, len(stored), 8):
                _compare("WAL frame", stored[at : at + 8], actual[at : at + 8])


def _compare(what: str, stored: bytes, actual: bytes) -> None:
    if stored != actual:
        expected, found = (int.from_bytes(sums, "big") for sums in (stored, actual))
        raise ChecksumMismatchError(what, expected=expected, actual=found)


def _swapped(data: bytes) -> bytes:
    """The data with each 32-bit word in the other byte order."""
    words = array("I", data)
    words.byteswap()
    return words.tobytes()
