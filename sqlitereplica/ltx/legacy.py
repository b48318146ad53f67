"""Page frames without a size field, which hold an LZ4 frame (litestream.md 1.2).

Early LTX writers made these. Where such a frame ends must be found by walking through
it, within a bound: its layout is a descriptor, blocks that each begin with their size,
and a zero end mark; integers are little-endian (LZ4 frame format 1.6).
"""

from __future__ import annotations

from sqlitereplica.ltx.format import Buffer

__all__ = ["legacy_frame_size"]

_MAGIC = bytes.fromhex("04224d18")
_VERSION_MASK, _VERSION = 0xC0, 0x40
_BLOCK_CHECKSUM, _CONTENT_SIZE, _CONTENT_CHECKSUM = 0x10, 0x08, 0x04
_UNKNOWN = 0x03  # a reserved bit, and a dictionary that we do not have
_STORED = 0x80000000  # in a block's size: it is not compressed


def legacy_frame_size(data: Buffer) -> int | None:
    """Return the size of the LZ4 frame at the start of ``data``.

    None if there is none, or if it goes on beyond ``data``.
    """
    if len(data) < 7 or bytes(data[:4]) != _MAGIC:
        return None
    flags = data[4]
    if flags & _VERSION_MASK != _VERSION or flags & _UNKNOWN:
        return None
    at = 15 if flags & _CONTENT_SIZE else 7
    extra = 4 if flags & _BLOCK_CHECKSUM else 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little") & ~_STORED
        at += 4
        if size == 0:
            at += 4 if flags & _CONTENT_CHECKSUM else 0
            return at if at <= len(data) else None
        at += size + extra
    return None
