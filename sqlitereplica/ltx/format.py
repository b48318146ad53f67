"""The fixed parts of an LTX file: its constants and its header (litestream.md 1.1).

An LTX file holds the pages that a range of transactions changed, in this order::

    header          100 bytes
    page frames     6-byte page header, 4-byte size, one LZ4 block; ascending pgno
    end of pages    6 zero bytes
    page index      varints (pgno, offset, size) per page, varint 0, u64 length
    trailer         u64 database checksum (0 here), u64 file checksum

Integers of fixed width are big-endian. Every bound is checked both ways: we write no
header that we would not read.

The extension. Litestream's own checksum fields cannot be used: its compactor refuses
files that fill them in (litestream.md 0.1). The last 20 bytes of the header are
reserved, covered by the file checksum and ignored by Litestream; there we keep the
database checksums before and after the file, behind a tag. Other contents of these
bytes are ignored.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sqlitereplica.errors import InvalidFileError

__all__ = [
    "CHECKSUM_FLAG",
    "FLAG_NO_CHECKSUM",
    "FRAME_HEADER_SIZE",
    "HEADER_SIZE",
    "MAX_COMMIT",
    "MAX_LEVEL",
    "PAGE_HEADER_SIZE",
    "SNAPSHOT_LEVEL",
    "TRAILER_SIZE",
    "BinaryReader",
    "Buffer",
    "Header",
    "compress_bound",
    "lock_pgno",
    "max_frame_size",
    "snapshot_page_count",
]

Buffer: TypeAlias = bytes | bytearray | memoryview

HEADER_SIZE = 100
PAGE_HEADER_SIZE = 6
FRAME_HEADER_SIZE = 10  # the page header and the size that follows it
TRAILER_SIZE = 16
FLAG_NO_CHECKSUM = 0x2
SNAPSHOT_LEVEL = 9
MAX_LEVEL = 9
MAX_COMMIT = 2**32 - 2  # SQLite's largest page number
CHECKSUM_FLAG = 1 << 63  # set in every stored checksum, so that 0 can mean "none"

# Beyond its data as one block, an LZ4 frame has a descriptor and sizes of blocks.
_LEGACY_OVERHEAD = 256
_MAGIC = b"LTX1"
_FIELDS = struct.Struct(">4sIIIQQqQqqIIQ")
_EXTENSION = struct.Struct(">4sQQ")
_EXTENSION_TAG = b"SQLR"
_WAL_HEADER_SIZE = 32
_PENDING_BYTE = 0x40000000
# What datetime can express, in milliseconds since 1970. Go's zero time is the first.
_MIN_TIMESTAMP = -62_135_596_800_000
_MAX_TIMESTAMP = 253_402_300_799_999


class BinaryReader(Protocol):
    """What a decoder reads from: the bytes of one file, in order."""

    def read(self, n: int, /) -> bytes:
        """Return 1..n bytes, or ``b""`` at the end of the file."""


def lock_pgno(page_size: int) -> int:
    """Return the number of the page that SQLite never uses (litestream.md 1.3)."""
    return _PENDING_BYTE // page_size + 1


def compress_bound(size: int) -> int:
    """Return the most bytes that ``size`` bytes can become as one LZ4 block."""
    return size + size // 255 + 16


def max_frame_size(page_size: int) -> int:
    """Return the most bytes that the frame of one page can take."""
    return FRAME_HEADER_SIZE + compress_bound(page_size) + _LEGACY_OVERHEAD


def snapshot_page_count(page_size: int, commit: int) -> int:
    """Return the number of pages in a full image: all but the lock page."""
    return commit - (lock_pgno(page_size) <= commit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an LTX file says about itself.

    ``commit`` is the size of the database after it, in pages of ``page_size`` bytes;
    ``timestamp`` is in milliseconds since the epoch. ``wal_offset`` and ``wal_size``
    are bytes of the source WAL; Litestream needs an offset of at least 32 in level 0
    (litestream.md 0.2), and compacted files have 0. ``pre_checksum`` and
    ``post_checksum`` are our extension: the database checksums before and after, where
    a ``post_checksum`` of 0 means that the file carries no extension.
    """

    page_size: int
    commit: int
    min_txid: int
    max_txid: int
    timestamp: int
    wal_offset: int = _WAL_HEADER_SIZE
    wal_size: int = 0
    wal_salt1: int = 0
    wal_salt2: int = 0
    node_id: int = 0
    pre_checksum: int = 0
    post_checksum: int = 0

    @property
    def is_snapshot(self) -> bool:
        """Whether the file holds the whole database (litestream.md 0.4)."""
        return self.min_txid == 1

    def pack(self) -> bytes:
        """Return the 100 bytes; raise InvalidFileError if a field is out of bounds."""
        _check(self)
        fields = _FIELDS.pack(
            _MAGIC,
            FLAG_NO_CHECKSUM,
            self.page_size,
            self.commit,
            self.min_txid,
            self.max_txid,
            self.timestamp,
            0,
            self.wal_offset,
            self.wal_size,
            self.wal_salt1,
            self.wal_salt2,
            self.node_id,
        )
        if not self.post_checksum:
            return fields.ljust(HEADER_SIZE, b"\0")
        checksums = self.pre_checksum, self.post_checksum
        return fields + _EXTENSION.pack(_EXTENSION_TAG, *checksums)

    @classmethod
    def unpack(cls, data: Buffer) -> Header:
        """Read the first 100 bytes of a file.

        Raises InvalidFileError if they break a rule of litestream.md 1.1. A file with
        Litestream's own checksums (flags 0, as LiteFS writes) is accepted; they are
        not part of the value.
        """
        if len(data) < HEADER_SIZE:
            raise InvalidFileError(
                f"{len(data)} bytes are too few for an LTX header",
                kind="truncated",
                offset=len(data),
            )
        magic, flags, page_size, commit, *rest = _FIELDS.unpack_from(data)
        min_txid, max_txid, timestamp, pre_apply, offset, size, *salts, node_id = rest
        _require(magic == _MAGIC, "magic", 0, "not an LTX file")
        _require(flags in (0, FLAG_NO_CHECKSUM), "flags", 4, f"flags {flags:#x}")
        tag, pre, post = _EXTENSION.unpack_from(data, _FIELDS.size)
        extended = tag == _EXTENSION_TAG
        _require(not extended or post != 0, "extension", 92, "no database checksum")
        header = cls(
            page_size=page_size,
            commit=commit,
            min_txid=min_txid,
            max_txid=max_txid,
            timestamp=timestamp,
            wal_offset=offset,
            wal_size=size,
            wal_salt1=salts[0],
            wal_salt2=salts[1],
            node_id=node_id,
            pre_checksum=pre if extended else 0,
            post_checksum=post if extended else 0,
        )
        _check(header)
        needed = flags == 0 and not header.is_snapshot
        valid = pre_apply >= CHECKSUM_FLAG if needed else pre_apply == 0
        what = f"pre-apply checksum {pre_apply:#x}"
        _require(valid, "pre-apply-checksum", 40, what)
        return header


def _check(header: Header) -> None:
    """Raise InvalidFileError unless every field is within its bounds."""
    size, commit = header.page_size, header.commit
    power_of_two = 512 <= size <= 65536 and size & (size - 1) == 0
    _require(power_of_two, "page-size", 8, f"page size {size}")
    _require(1 <= commit <= MAX_COMMIT, "commit", 12, f"commit {commit}")
    _require(
        1 <= header.min_txid <= header.max_txid < 2**64,
        "txid",
        16,
        f"TXIDs {header.min_txid}..{header.max_txid}",
    )
    _require(
        _MIN_TIMESTAMP <= header.timestamp <= _MAX_TIMESTAMP,
        "timestamp",
        32,
        f"timestamp {header.timestamp}",
    )
    _check_wal(header)
    _require(0 <= header.node_id < 2**64, "node-id", 72, f"node id {header.node_id}")
    pre, post = header.pre_checksum, header.post_checksum
    for checksum in (pre, post):
        valid = checksum == 0 or CHECKSUM_FLAG <= checksum < 2**64
        _require(valid, "extension", 84, f"database checksum {checksum:#x}")
    _require(post != 0 or pre == 0, "extension", 92, "a pre without a post checksum")


def _check_wal(header: Header) -> None:
    """Check the WAL range: none at all, or one behind the header of a WAL."""
    offset, size = header.wal_offset, header.wal_size
    salts = header.wal_salt1, header.wal_salt2
    valid = offset == 0 or _WAL_HEADER_SIZE <= offset < 2**63
    _require(valid, "wal", 48, f"WAL offset {offset}")
    _require(0 <= size < 2**63, "wal", 56, f"WAL size {size}")
    _require(all(0 <= salt < 2**32 for salt in salts), "wal", 64, f"WAL salts {salts}")
    bare = size == 0 and salts == (0, 0)
    _require(offset != 0 or bare, "wal", 48, "WAL size or salts without an offset")


def _require(condition: bool, kind: str, offset: int, what: str) -> None:
    if not condition:
        raise InvalidFileError(f"invalid LTX header: {what}", kind=kind, offset=offset)
