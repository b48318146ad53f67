"""The wal-index header: what SQLite itself says is committed.

The first 136 bytes of the ``-shm`` file (walformat.html section 2.3, measured offsets in
reliability.md 4(c)), in native byte order except for the salts:

====== ==== =====================================================================
offset size field
====== ==== =====================================================================
0      48   header: version, change counter, isInit @12, page size @14 (1 = 65536),
            mxFrame @16, nPage @20, checksum of frame mxFrame @24, salts @32
48     48   the same again; a reader takes it only when both copies agree
96     4    nBackfill: frames already copied into the database file
100    20   five read marks
====== ==== =====================================================================

Frames up to mxFrame are committed, by SQLite's own word. One look is one ``pread``.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from sqlitereplica.errors import InvalidFileError

__all__ = ["WAL_INDEX_VERSION", "WalIndex", "parse_wal_index", "read_wal_index"]

WAL_INDEX_VERSION = 3007000
HEADER_SIZE = 136
_QUICK_TRIES = 16
_SLOW_TRIES = 200
_PAUSE = 0.0005
_FIELDS = struct.Struct("=I8xBxHII")


class WalIndex(NamedTuple):
    """One settled look at the wal-index. Two equal values mean the same state of the WAL."""

    salts: bytes
    """The 8 bytes of both salts, as they stand in the WAL header."""
    mx_frame: int
    """Number of the last committed frame, from 1; 0 when the WAL holds none."""
    n_page: int
    """Database size in pages after that frame (LTX calls it ``commit``)."""
    n_backfill: int
    """Frames that a checkpoint has copied into the database file."""
    page_size: int
    """Bytes; 0 as long as the WAL has never held a frame."""
    frame_checksum: bytes
    """Checksum of frame ``mx_frame``, big-endian, as its frame header carries it."""

    @property
    def fully_backfilled(self) -> bool:
        """True when a reader that begins now takes READ_LOCK(0) instead of a mark."""
        return self.n_backfill == self.mx_frame


@lru_cache(maxsize=512)  # most looks, of many databases, find nothing new
def parse_wal_index(raw: bytes) -> WalIndex | None:
    """Decode 136 bytes of ``-shm``; None while a writer is between its two copies.

    Raises:
        InvalidFileError: a version of the wal-index that this library does not know.
    """
    if len(raw) < HEADER_SIZE or raw[:48] != raw[48:96]:
        return None
    version, is_init, size, mx_frame, n_page = _FIELDS.unpack_from(raw)
    if not is_init:
        return None
    if version != WAL_INDEX_VERSION:
        raise InvalidFileError(
            f"unknown wal-index version {version}", kind="wal-index-version"
        )
    checksum = struct.pack(">II", *struct.unpack_from("=II", raw, 24))
    (n_backfill,) = struct.unpack_from("=I", raw, 96)
    return WalIndex(
        salts=raw[32:40],
        mx_frame=mx_frame,
        n_page=n_page,
        n_backfill=n_backfill,
        page_size=65536 if size == 1 else size,
        frame_checksum=checksum,
    )


def read_wal_index(
    shm: int, sleep: Callable[[float], None] = time.sleep
) -> WalIndex | None:
    """Look at the wal-index through the open descriptor ``shm``.

    A writer may be interrupted between its two copies, so this waits up to 0.1 s. None
    when it does not settle: nobody has initialised it, or a writer died there; the next
    read transaction of any connection repairs that.
    """
    for attempt in range(_QUICK_TRIES + _SLOW_TRIES):
        index = parse_wal_index(os.pread(shm, HEADER_SIZE, 0))
        if index is not None:
            return index
        if attempt >= _QUICK_TRIES:
            sleep(_PAUSE)
    return None
