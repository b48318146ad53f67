"""LZ4 frames, decoded while they arrive (LZ4 frame format 1.6).

A frame is a magic number, a descriptor, blocks that each begin with their size, a zero end
mark and the checksum of the content; integers are little-endian. Litestream 0.3 wrote one
frame a file, with blocks of up to 4 MiB that do not depend on each other.

What bounds a frame that expands endlessly: a block makes no more than the descriptor says,
which is 4 MiB at most, and LZ4 makes no more than 255 bytes out of one. So memory is a
few blocks, and the disk is bounded by what is fetched. The descriptor's own checksum is
not looked at: whatever it guards shows by what follows. The content's checksum is
required, for a snapshot has no other.

That checksum is xxHash-32, which nothing that we depend on offers by itself. But an
encoder ends its frames with it. So the content is encoded anew, at about a gigabyte a
second, only to compare the last four bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import cramjam

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx import BinaryReader

__all__ = ["MOST_EXPANSION", "decode_frame"]

MOST_EXPANSION = 255
"""Bytes that one byte of a frame can become."""

_MAGIC = bytes.fromhex("04224d18")
_AGE = b"age-"
_VERSION_MASK, _VERSION = 0xC0, 0x40
_INDEPENDENT, _BLOCK_CHECKSUM, _CONTENT_SIZE, _CONTENT_CHECKSUM = 0x20, 0x10, 0x08, 0x04
_UNKNOWN = 0x03  # a reserved bit, and a dictionary that we do not have
_STORED = 1 << 31  # in a block's size: it is not compressed


def decode_frame(reader: BinaryReader) -> Iterator[bytes]:
    """Yield the content of a file that is one frame, piece by piece.

    Only when the iterator has ended is the content proven.

    Raises:
        InvalidFileError: the file is no frame (``"magic"``), is encrypted
            (``"encrypted"``), ends too soon (``"truncated"``), goes on behind its end
            (``"trailing"``), or breaks another rule (``"lz4"``).
        ChecksumMismatchError: the content is not what was written.
    """
    source = _Source(reader)
    flags, block_size = _read_descriptor(source)
    content_size = source.number(8) if flags & _CONTENT_SIZE else None
    source.take(1)  # the descriptor's checksum
    checksum, total = _Checksum(), 0
    buffer = bytearray(block_size)
    while size := source.number(4):
        length = size & ~_STORED
        if length > block_size:
            raise source.error(f"a block of {length} bytes, of {block_size} at most")
        data = source.take(length)
        content = data if size & _STORED else _decode(source, data, buffer)
        if flags & _BLOCK_CHECKSUM:
            source.take(4)  # that of the content covers it
        checksum.update(content)
        total += len(content)
        yield content
    expected = source.number(4)
    if source.has_more():
        raise InvalidFileError(
            "there are bytes behind the end of the LZ4 frame",
            kind="trailing",
            offset=source.at,
        )
    actual = checksum.digest()
    if actual != expected:
        raise ChecksumMismatchError("content", expected=expected, actual=actual)
    if content_size not in (None, total):
        raise source.error(f"{total} bytes, not {content_size} as it says")


def _read_descriptor(source: _Source) -> tuple[int, int]:
    """Return the flags and the greatest size of a block."""
    magic = source.take(4)
    if magic == _AGE:
        raise InvalidFileError(
            "the file is encrypted with age: Litestream 0.3 restores it, later versions"
            " and this library cannot",
            kind="encrypted",
        )
    if magic != _MAGIC:
        raise InvalidFileError("the file is no LZ4 frame", kind="magic", offset=0)
    flags, sizes = source.take(2)
    if flags & _VERSION_MASK != _VERSION or flags & _UNKNOWN or sizes & 0x8F:
        raise source.error("a descriptor that is not known")
    if not flags & _INDEPENDENT or not flags & _CONTENT_CHECKSUM or sizes < 0x40:
        raise source.error("a frame with linked blocks or without a checksum")
    return flags, 1 << (8 + 2 * (sizes >> 4))


def _decode(source: _Source, data: bytes, buffer: bytearray) -> bytes:
    try:
        return bytes(
            memoryview(buffer)[: cramjam.lz4.decompress_block_into(data, buffer)]
        )
    except cramjam.DecompressionError as error:
        raise source.error("a block cannot be decoded") from error


class _Source:
    """The bytes of the file; ``at`` counts those taken."""

    def __init__(self, reader: BinaryReader) -> None:
        self.at = 0
        self._reader = reader

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        parts, left = [], size
        while left:
            part = self._reader.read(left)
            if not part:
                raise InvalidFileError(
                    "the file ends within its LZ4 frame",
                    kind="truncated",
                    offset=self.at + size - left,
                )
            parts.append(part)
            left -= len(part)
        self.at += size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def number(self, size: int) -> int:
        """An integer of so many bytes."""
        return int.from_bytes(self.take(size), "little")

    def has_more(self) -> bool:
        """Whether the file goes on."""
        return self._reader.read(1) != b""

    def error(self, what: str) -> InvalidFileError:
        """The error for a rule that is broken here."""
        return InvalidFileError(f"LZ4: {what}", kind="lz4", offset=self.at)


class _Checksum:
    """The xxHash-32 of bytes that come in pieces: see above."""

    def __init__(self) -> None:
        self._encoder = cramjam.lz4.Compressor(level=0)

    def update(self, data: bytes) -> None:
        """Add bytes."""
        self._encoder.compress(data)
        self._encoder.flush()  # its output is held until it is taken

    def digest(self) -> int:
        """The checksum of all of them."""
        return int.from_bytes(bytes(self._encoder.finish())[-4:], "little")
