"""Reading LTX files, which may be damaged or made to do harm.

Invariants. Nothing is allocated by a size that the file states before that size is
bounded, and memory does not depend on the number of pages: one chunk of the file, one
page, and a digest. Page numbers ascend strictly within 1..commit and skip the lock page;
hence a snapshot is complete exactly if it has as many pages as there are. The index is
compared by digest with the one that the frames have (see ``ltx.index``).

A page is yielded before the checksum over it can be known: it is right only once the
iterator has ended without an error.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from io import BytesIO

import cramjam
from fastcrc.crc64 import go_iso

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx.checksum import page_checksum
from sqlitereplica.ltx.format import (
    CHECKSUM_FLAG,
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    PAGE_HEADER_SIZE,
    TRAILER_SIZE,
    BinaryReader,
    Buffer,
    Header,
    compress_bound,
    lock_pgno,
    max_frame_size,
    snapshot_page_count,
)
from sqlitereplica.ltx.index import IndexWriter
from sqlitereplica.ltx.legacy import legacy_frame_size

__all__ = ["READ_SIZE", "Decoder", "decode", "decode_frame"]

READ_SIZE = 1 << 18

_BLOCK_FLAG = 1
_INDEX_PIECE = 1 << 16
_MANY_FRAMES = 512
_frame_header = struct.Struct(">IHI").unpack_from
_decompress_block = cramjam.lz4.decompress_block_into
_decompress_frame = cramjam.lz4.decompress_into


class Decoder:
    """Decodes one file in one pass.

    ``header`` is there at once. ``file_checksum`` is 0 until all has been verified.
    """

    def __init__(self, file: BinaryReader, *, read_size: int = READ_SIZE) -> None:
        """Read the header; raises InvalidFileError if it is not valid.

        ``read_size`` is the number of bytes to ask ``file`` for at a time.
        """
        self._source = _Source(file, read_size)
        packed = self._source.take(HEADER_SIZE)
        self.header = Header.unpack(packed)
        self.file_checksum = 0
        # Flags of 0: the trailer has a database checksum, as LiteFS writes it.
        self._has_checksum = packed[4:8] == bytes(4)
        self._page = bytearray(self.header.page_size)
        self._bound = compress_bound(self.header.page_size)
        self._longest = max_frame_size(self.header.page_size)
        self._lock = lock_pgno(self.header.page_size)
        self._crc = go_iso(packed)
        self._frames = IndexWriter()  # of those read, as far as not in the digest
        self._index_size = 0
        self._index_digest = hashlib.sha256()
        self._started = False

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield (page number, page), ascending. Can be called once.

        When it ends the whole file is verified; else InvalidFileError or its subclass
        ChecksumMismatchError is raised.
        """
        if self._started:
            raise ValueError("the pages of a decoder can be read once")
        self._started = True
        return self._pages()

    def _pages(self) -> Iterator[tuple[int, bytes]]:
        header, page = self.header, self._page
        checked = self._has_checksum and header.is_snapshot
        checksum = CHECKSUM_FLAG
        count = 0
        for pgno in self._decoded():
            if checked:
                checksum = CHECKSUM_FLAG | checksum ^ page_checksum(pgno, page)
            count += 1
            yield pgno, bytes(page)
        expected = snapshot_page_count(header.page_size, header.commit)
        if header.is_snapshot and count != expected:
            what = f"a snapshot has {count} of {expected} pages"
            raise self._invalid(what, "incomplete")
        self._hash(self._source.take(PAGE_HEADER_SIZE))
        self._check_index()
        self._check_trailer(checksum if checked else None)

    def _decoded(self) -> Iterator[int]:
        """Decode frame after frame into the page; yield the number of each."""
        source, page, crc, last = self._source, self._page, self._crc, 0
        commit, lock = self.header.commit, self._lock
        bound, longest = self._bound, self._longest
        add_pgno, add_end = self._frames.pgnos.append, self._frames.ends.append
        while True:
            if source.end - source.at < longest:
                source.fill(longest)
                self._digest_index(_MANY_FRAMES)
            view, at = source.view, source.at
            if source.end - at < FRAME_HEADER_SIZE:
                raise source.truncated()
            pgno, flags, size = _frame_header(view, at)
            if not last < pgno <= commit or pgno == lock:
                if pgno == flags == 0:
                    break
                raise self._misplaced(pgno, last)
            if flags == _BLOCK_FLAG:
                body = at + FRAME_HEADER_SIZE
                if not 0 < size <= bound:
                    raise self._invalid(f"page {pgno} in {size} bytes", "frame-size")
            else:
                body = at + PAGE_HEADER_SIZE
                size = self._legacy_size(flags, view[body : at + longest])
            stop = body + size
            if stop > source.end:
                raise source.truncated()
            _decompress(flags, view[body:stop], page, pgno, source.base + at)
            crc = go_iso(page, go_iso(view[at:body], crc))
            add_pgno(pgno)
            add_end(source.base + stop)
            last, source.at = pgno, stop
            yield pgno
        self._crc = crc

    def _legacy_size(self, flags: int, data: Buffer) -> int:
        """Return the size of the LZ4 frame that ``data`` begins with."""
        if flags:
            raise self._invalid(f"page flags {flags:#x}", "page-flags")
        size = legacy_frame_size(data)
        if size is None:
            raise self._invalid("no whole LZ4 frame", "lz4")
        return size

    def _misplaced(self, pgno: int, last: int) -> InvalidFileError:
        """Return the error that says why a page cannot be the next one."""
        commit = self.header.commit
        if pgno == self._lock:
            return self._invalid(f"page {pgno} is the lock page", "lock-page")
        if not 1 <= pgno <= commit:
            what = f"page {pgno} of a database of {commit} pages"
            return self._invalid(what, "pgno")
        return self._invalid(f"page {pgno} after page {last}", "page-order")

    def _check_index(self) -> None:
        """Compare the index in the file with the one that the frames have."""
        self._digest_index(0)
        self._index_digest.update(b"\0")
        self._index_size += 1
        digest = hashlib.sha256()
        left = self._index_size
        while left:
            piece = self._source.take(min(left, _INDEX_PIECE))
            digest.update(piece)
            self._hash(piece)
            left -= len(piece)
        length = self._source.take(8)
        self._hash(length)
        right = digest.digest() == self._index_digest.digest()
        if not right or int.from_bytes(length, "big") != self._index_size:
            raise self._invalid("the page index is not that of the frames", "index")

    def _check_trailer(self, checksum: int | None) -> None:
        """Check the trailer; ``checksum`` is that of the database if it must agree."""
        trailer = self._source.take(TRAILER_SIZE)
        self._source.fill(1)
        if self._source.at != self._source.end:
            raise self._invalid("bytes behind the trailer", "trailing")
        self._hash(trailer[:8])
        found = CHECKSUM_FLAG | self._crc
        recorded = int.from_bytes(trailer[8:], "big")
        if recorded != found:
            raise ChecksumMismatchError("file", expected=recorded, actual=found)
        post_apply = int.from_bytes(trailer[:8], "big")
        flagged = post_apply >= CHECKSUM_FLAG
        if not (flagged if self._has_checksum else post_apply == 0):
            what = f"post-apply checksum {post_apply:#x}"
            raise self._invalid(what, "post-apply-checksum")
        if checksum is not None and checksum != post_apply:
            raise ChecksumMismatchError(
                "database", expected=post_apply, actual=checksum
            )
        self.file_checksum = found

    def _digest_index(self, threshold: int) -> None:
        """Move the index of the frames into the digest if there are enough of them."""
        if len(self._frames.pgnos) >= threshold:
            entries = self._frames.take()
            self._index_digest.update(entries)
            self._index_size += len(entries)

    def _hash(self, data: Buffer) -> None:
        self._crc = go_iso(data, self._crc)

    def _invalid(self, what: str, kind: str) -> InvalidFileError:
        offset = self._source.base + self._source.at
        return InvalidFileError(what, kind=kind, offset=offset)


class _Source:
    """The bytes of a file, read ahead: ``view[at:end]`` are the next ones.

    ``base`` is the offset in the file of ``view[0]``.
    """

    def __init__(self, file: BinaryReader, read_size: int) -> None:
        self._file = file
        self._read_size = read_size
        self._ended = False
        self.view = memoryview(b"")
        self.at = self.end = self.base = 0

    def fill(self, want: int) -> None:
        """Make ``want`` bytes available, or all that there are."""
        if self._ended:
            return
        parts: list[Buffer] = [self.view[self.at :]]
        size = self.end - self.at
        while size < want and not self._ended:
            part = self._file.read(self._read_size)
            self._ended = not part
            size += len(part)
            parts.append(part)
        self.base += self.at
        self.view = memoryview(b"".join(parts))
        self.at, self.end = 0, size

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes; InvalidFileError if the file ends before."""
        if self.end - self.at < size:
            self.fill(size)
        if self.end - self.at < size:
            raise self.truncated()
        begin = self.at
        self.at += size
        return bytes(self.view[begin : self.at])

    def truncated(self) -> InvalidFileError:
        """Return the error for a file that ends too early."""
        offset = self.base + self.end
        return InvalidFileError("the file ends early", kind="truncated", offset=offset)


def decode_frame(frame: Buffer, pgno: int, page_size: int) -> bytes:
    """Return the page of a frame that was read alone, by the index of its file.

    Raises InvalidFileError unless ``frame`` is exactly one frame, of page ``pgno``. The
    file checksum does not cover a part of a file: the page is only right if its own
    checksum is.
    """
    if len(frame) < FRAME_HEADER_SIZE:
        raise InvalidFileError(f"page {pgno} is cut short", kind="truncated")
    found, flags, size = _frame_header(frame)
    if found != pgno:
        what = f"page {found} where page {pgno} should be"
        raise InvalidFileError(what, kind="pgno")
    if flags == _BLOCK_FLAG:
        body, bound = memoryview(frame)[FRAME_HEADER_SIZE:], compress_bound(page_size)
    elif flags == 0:
        body, bound = memoryview(frame)[PAGE_HEADER_SIZE:], max_frame_size(page_size)
        size = legacy_frame_size(body) or 0
    else:
        raise InvalidFileError(f"page flags {flags:#x}", kind="page-flags")
    if size != len(body) or not 0 < size <= bound:
        what = f"page {pgno} in {len(body)} bytes"
        raise InvalidFileError(what, kind="frame-size")
    page = bytearray(page_size)
    _decompress(flags, body, page, pgno, None)
    return bytes(page)


def _decompress(
    flags: int, data: Buffer, page: bytearray, pgno: int, offset: int | None
) -> None:
    """Decompress one page; it must be exactly that long, nothing pads it."""
    decompress = _decompress_block if flags == _BLOCK_FLAG else _decompress_frame
    try:
        count = decompress(data, page)
    except cramjam.DecompressionError as error:
        what = f"page {pgno}: {error}"
        raise InvalidFileError(what, kind="lz4", offset=offset) from error
    if count != len(page):
        what = f"page {pgno} has {count} bytes"
        raise InvalidFileError(what, kind="page-size", offset=offset)


def decode(data: bytes) -> tuple[Header, list[tuple[int, bytes]]]:
    """Return the header and the pages of a whole file; raises as Decoder does."""
    decoder = Decoder(BytesIO(data))
    return decoder.header, list(decoder.pages())
