"""LTX files for tests: an independent, slow and unchecked builder, and sample pages.

``RawFile`` writes whatever it is told to, with the right file checksum unless told
otherwise, so that a test can break one rule at a time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import cramjam
from fastcrc.crc64 import go_iso

from sqlitereplica.ltx import Header

__all__ = [
    "PAGE_SIZES",
    "RawFile",
    "RawFrame",
    "image",
    "leb128",
    "make_header",
    "make_page",
    "with_file_checksum",
]

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]

CHECKSUM_FLAG = 1 << 63


def make_header(**changes: int) -> Header:
    """A valid header of a snapshot of two 512-byte pages, with changes."""
    fields = {
        "page_size": 512,
        "commit": 2,
        "min_txid": 1,
        "max_txid": 1,
        "timestamp": 1_700_000_000_123,
    }
    return Header(**{**fields, **changes})


def make_page(page_size: int, seed: int) -> bytes:
    """A page of which a half can be compressed."""
    half = random.Random(seed).randbytes(page_size // 2)
    return half + bytes([seed % 256]) * (page_size // 2)


def image(page_size: int, commit: int, seed: int = 0) -> list[tuple[int, bytes]]:
    """All pages of a small database."""
    return [(n, make_page(page_size, seed + n)) for n in range(1, commit + 1)]


def leb128(n: int) -> bytes:
    """A number as a varint, from the definition."""
    groups = [n & 0x7F]
    while n := n >> 7:
        groups[-1] |= 0x80
        groups.append(n & 0x7F)
    return bytes(groups)


@dataclass
class RawFrame:
    """One page frame; ``flags``, ``size`` and ``payload`` may disagree."""

    pgno: int
    page: bytes
    flags: int = 1
    size: int | None = None
    payload: bytes | None = None

    def parts(self) -> tuple[bytes, bytes]:
        """The part that the file checksum covers as it is, and the payload."""
        payload = self.payload
        if payload is None:
            payload = bytes(cramjam.lz4.compress_block(self.page, store_size=False))
        head = self.pgno.to_bytes(4, "big") + self.flags.to_bytes(2, "big")
        if self.flags & 1:
            size = len(payload) if self.size is None else self.size
            head += size.to_bytes(4, "big")
        return head, payload


@dataclass
class RawFile:
    """A file that follows from its frames, except where a field says otherwise."""

    header: bytes
    frames: list[RawFrame]
    end: bytes = bytes(6)
    index: bytes | None = None
    index_length: int | None = None
    post_apply: int = 0
    checksum: int | None = None
    extra: bytes = b""
    entries: list[tuple[int, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, header: Header, pages: list[tuple[int, bytes]]) -> RawFile:
        """The valid file of these pages."""
        return cls(header.pack(), [RawFrame(*page) for page in pages])

    def build(self) -> bytes:
        """The bytes; leaves the true index in ``entries``."""
        data = hashed = self.header
        self.entries = []
        for frame in self.frames:
            head, payload = frame.parts()
            self.entries.append((frame.pgno, len(data), len(head + payload)))
            data += head + payload
            hashed += head + frame.page
        index = self.index
        if index is None:
            index = b"".join(leb128(n) for entry in self.entries for n in entry)
            index += b"\0"
        length = len(index) if self.index_length is None else self.index_length
        rest = self.end + index + length.to_bytes(8, "big")
        rest += self.post_apply.to_bytes(8, "big")
        checksum = self.checksum
        if checksum is None:
            checksum = CHECKSUM_FLAG | go_iso(hashed + rest)
        return data + rest + checksum.to_bytes(8, "big") + self.extra


def with_file_checksum(data: bytes) -> bytes:
    """The bytes with the file checksum that their frames have.

    Unchanged if they cannot be walked through, as no checksum is defined then.
    """
    page_size = int.from_bytes(data[8:12], "big")
    hashed, at = data[:100], 100
    while data[at : at + 4] not in (b"", bytes(4)):
        size = int.from_bytes(data[at + 6 : at + 10], "big")
        page = bytearray(min(page_size, 65536))
        payload = data[at + 10 : at + 10 + size]
        try:
            cramjam.lz4.decompress_block_into(payload, page)
        except cramjam.DecompressionError:
            return data
        hashed += data[at : at + 10] + page
        at += 10 + size
    if len(data) - at < 8:
        return data
    checksum = CHECKSUM_FLAG | go_iso(hashed + data[at:-8])
    return data[:-8] + checksum.to_bytes(8, "big")
