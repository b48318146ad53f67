"""The write-ahead log: a 32-byte header, then frames of 24 bytes and one page each.

Everything is big-endian (walformat.html section 2). A frame header is pgno, the database
size in pages if this frame commits (else 0), both salts, and the running checksum.

Which frames count is not decided here: the wal-index says it (``walindex.py``), under a
read lock that keeps them in place. What is checked here is that the bytes read are the
frames meant: every frame carries the WAL's salts, and the last one the checksum that the
wal-index recorded for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.sqlite.walindex import WalIndex

__all__ = ["FRAME_HEADER_SIZE", "WAL_HEADER_SIZE", "frame_offset", "last_frames"]

WAL_HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24


def frame_offset(frame: int, page_size: int) -> int:
    """Byte offset of frame number ``frame`` (from 1) in the WAL file."""
    return WAL_HEADER_SIZE + (frame - 1) * (page_size + FRAME_HEADER_SIZE)


def last_frames(
    buffer: bytes, page_size: int, index: WalIndex, first: int
) -> dict[int, int]:
    """Map pgno to the offset in ``buffer`` of its newest page.

    ``buffer`` holds whole frames, beginning with number ``first``, none after
    ``index.mx_frame``.

    Raises:
        InvalidFileError: the bytes are not those frames of that WAL.
    """
    step = page_size + FRAME_HEADER_SIZE
    if not buffer or len(buffer) % step:
        raise InvalidFileError(
            "the WAL is shorter than its wal-index", kind="wal-short"
        )
    newest: dict[int, int] = {}
    salts = index.salts
    from_bytes = int.from_bytes
    for at in range(0, len(buffer), step):
        if buffer[at + 8 : at + 16] != salts:
            raise InvalidFileError("a WAL frame has other salts", kind="wal-salts")
        newest[from_bytes(buffer[at : at + 4], "big")] = at + FRAME_HEADER_SIZE
    if (
        first - 1 + len(buffer) // step == index.mx_frame
        and buffer[at + 16 : at + 24] != index.frame_checksum
    ):
        raise InvalidFileError(
            "the last WAL frame is not the one of the wal-index", kind="wal-checksum"
        )
    if 0 in newest:
        raise InvalidFileError("a WAL frame has page number 0", kind="wal-pgno")
    return newest


def split(first: int, last: int, frames_per_read: int) -> Iterator[tuple[int, int]]:
    """Cut frames ``first..last`` into (first, count) pieces of bounded size."""
    while first <= last:
        count = min(frames_per_read, last - first + 1)
        yield first, count
        first += count
