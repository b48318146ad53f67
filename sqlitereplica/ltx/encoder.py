"""Writing LTX files.

Invariants. What has been written is a prefix of a valid file, so page rules are checked
before a page is encoded. Page numbers ascend within 1..commit and skip the lock page;
hence a snapshot is complete exactly if it has as many pages as there are. After an error
the encoder stays closed: it cannot finish a file that misses something.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from io import BytesIO

import cramjam
from fastcrc.crc64 import go_iso

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx.format import (
    CHECKSUM_FLAG,
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    PAGE_HEADER_SIZE,
    Buffer,
    Header,
    lock_pgno,
    snapshot_page_count,
)
from sqlitereplica.ltx.index import IndexWriter

__all__ = ["Encoder", "encode"]

_WRITE_SIZE = 1 << 20
_BLOCK_FLAG = 1
_pack_frame_header = struct.Struct(">IHI").pack


class Encoder:
    """Encodes one file and hands it to ``write`` in pieces of about 1 MiB.

    A piece is a view of memory that the next one uses again: ``write`` copies what it
    keeps. Memory that is allocated for each piece and given back costs a page fault for
    every 4 KiB, which is half as much as compressing them.

    Memory: one piece, and about 10 bytes a page for the index.
    """

    def __init__(self, write: Callable[[Buffer], object], header: Header) -> None:
        """Begin a file. Raises InvalidFileError if the header is not valid."""
        packed = header.pack()
        self._write = write
        self._header = header
        self._lock = lock_pgno(header.page_size)
        self._piece = BytesIO()
        self._piece.write(packed)
        self._index = bytearray()  # of what was written
        self._frames = IndexWriter()
        self._crc = go_iso(packed)
        self._base = 0  # in the file, of the piece
        self._offset = HEADER_SIZE  # in the file, of what comes next
        self._count = 0
        self._last = 0
        self._open = True

    def add(self, pages: Iterable[tuple[int, Buffer]]) -> None:
        """Write pages as (page number, page); may be called again for further ones.

        Raises InvalidFileError, and writes no more, if page numbers do not ascend, are
        the lock page's or beyond the commit size, or if a page has another size.
        """
        self._begin()
        page_size, commit = self._header.page_size, self._header.commit
        lock, append = self._lock, self._piece.write
        add_pgno, add_end = self._frames.pgnos.append, self._frames.ends.append
        compress = cramjam.lz4.compress_block
        last, count, offset, crc = self._last, self._count, self._offset, self._crc
        full = self._base + _WRITE_SIZE
        for pgno, page in pages:
            if not last < pgno <= commit or pgno == lock or len(page) != page_size:
                raise self._refusal(pgno, last, len(page))
            block = compress(page, store_size=False)
            size = len(block)
            frame_header = _pack_frame_header(pgno, _BLOCK_FLAG, size)
            crc = go_iso(page, go_iso(frame_header, crc))
            append(frame_header)
            append(block)
            offset += FRAME_HEADER_SIZE + size
            add_pgno(pgno)
            add_end(offset)
            last = pgno
            count += 1
            if offset >= full:
                self._flush(offset)
                full = offset + _WRITE_SIZE
        self._last, self._count, self._offset, self._crc = last, count, offset, crc
        self._open = True

    def finish(self) -> int:
        """Write index and trailer; return the size of the file in bytes.

        Raises InvalidFileError if a snapshot misses pages.
        """
        self._begin()
        header = self._header
        expected = snapshot_page_count(header.page_size, header.commit)
        if header.is_snapshot and self._count != expected:
            raise InvalidFileError(
                f"a snapshot has {self._count} of {expected} pages", kind="incomplete"
            )
        self._flush(self._offset)
        end_of_pages = bytes(PAGE_HEADER_SIZE)
        self._index += b"\0"
        length = len(self._index).to_bytes(8, "big")
        post_apply = bytes(8)
        tail = b"".join((end_of_pages, self._index, length, post_apply))
        checksum = CHECKSUM_FLAG | go_iso(tail, self._crc)
        self._write(tail + checksum.to_bytes(8, "big"))
        return self._offset + len(tail) + 8

    def _begin(self) -> None:
        """Close the encoder; who comes through without an error opens it again."""
        if not self._open:
            raise ValueError("the encoder has finished or failed")
        self._open = False

    def _flush(self, end: int) -> None:
        """Write what there is of the file up to ``end``."""
        with self._piece.getbuffer() as memory, memory[: end - self._base] as piece:
            self._write(piece)
        self._index += self._frames.take()
        self._piece.seek(0)
        self._base = end

    def _refusal(self, pgno: int, last: int, size: int) -> InvalidFileError:
        """Return the error that says why a page cannot be written."""
        commit, page_size = self._header.commit, self._header.page_size
        if size != page_size:
            what = f"page {pgno} has {size} bytes instead of {page_size}"
            return InvalidFileError(what, kind="page-size")
        if pgno == self._lock:
            return InvalidFileError(f"page {pgno} is the lock page", kind="lock-page")
        if not 1 <= pgno <= commit:
            what = f"page {pgno} of a database of {commit} pages"
            return InvalidFileError(what, kind="pgno")
        return InvalidFileError(f"page {pgno} after page {last}", kind="page-order")


def encode(header: Header, pages: Iterable[tuple[int, Buffer]]) -> bytes:
    """Return a whole file; raises as Encoder does."""
    data = bytearray()
    encoder = Encoder(data.extend, header)
    encoder.add(pages)
    encoder.finish()
    return bytes(data)
