"""A database put together from LTX files.

Invariants. Files are applied in the order of a plan, so the newest copy of a page is
the one written last. After each whole file the image is the state of its last
transaction; between, it is none, and ``whole`` is False.

``_written`` has one byte per page of that state: 0 if nothing brought the page yet, 1 if
some file did, 2 if an old copy of the database has it. The bytes of pages beyond a shrunk
database are dropped, for if it grows again these pages have to come anew (litestream.md
0.5). So at the end no page but the lock page may have a 0: what is missing was never in
the replica.

An image may begin with an old copy instead of nothing: as the state of some transaction
of which the copy lacks some pages. The checksums of all pages of that state are known, so
those that are lacking can be brought later, and are then known to be right.

Pages beyond ``horizon``, the size of the state that is wanted, are not kept at all: a
database that once was larger needs no more room than it does now.

Nothing is allocated by a size that a header states unless the files so far could hold
that many pages: a page takes more than 10 bytes of a file.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from itertools import chain
from typing import NamedTuple, Self

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx import (
    FRAME_HEADER_SIZE,
    BinaryReader,
    Decoder,
    FileInfo,
    Header,
    database_checksum,
    lock_pgno,
    merge_headers,
    page_checksum,
    page_checksums,
)
from sqlitereplica.restore.output import Made

__all__ = ["Image", "State", "WritePages", "check_commit"]

WritePages = Callable[[int, list[bytes]], object]
"""Takes the byte offset in the database and the pages that follow each other there."""

_RUN_SIZE = 1 << 20  # bytes of neighbouring pages that are written together


def check_commit(header: Header, size: int) -> None:
    """Raise InvalidFileError if files of ``size`` bytes cannot hold that many pages."""
    if header.commit > size // FRAME_HEADER_SIZE:
        raise InvalidFileError(
            f"{header.commit} pages cannot be in {size} bytes", kind="commit"
        )


class State(NamedTuple):
    """A verified image: the last file's header, how many files there were, checksums.

    ``sums`` has the checksum of each page, by page number less one, and 0 for the lock
    page; ``checksum`` is that of the database. Both are None if not asked for. ``reused``
    is the number of pages that no file brought.
    """

    header: Header
    files: int
    checksum: int | None
    sums: array[int] | None
    reused: int = 0

    def made(self) -> Made:
        """Return it as what a restore makes."""
        header = self.header
        return Made(
            header.page_size,
            header.commit,
            header.timestamp,
            self.files,
            header.max_txid,
            self.checksum,
            self.sums,
            self.reused,
        )


class Image:
    """The state of a database after the files applied so far.

    ``header`` is the one of the last file; ``files`` counts them.
    """

    def __init__(
        self, write: WritePages | None, *, horizon: int, checksums: bool
    ) -> None:
        """Begin with nothing. ``horizon`` is the number of pages worth keeping."""
        self.header: Header | None = None
        self.files = 0
        self.whole = True
        self.horizon = horizon
        self.sums: array[int] | None = array("Q") if checksums else None
        self._write = write
        self._written = bytearray()
        self._size = 0  # bytes of the files applied

    @classmethod
    def over_copy(
        cls,
        write: WritePages,
        header: Header,
        sums: array[int],
        lacking: Iterable[int],
        *,
        horizon: int,
    ) -> Self:
        """Begin with the state of ``header``, of which the output has all pages but some.

        ``sums`` are the checksums of that state. The image changes them.
        """
        image = cls(write, horizon=horizon, checksums=True)
        image.header, image.sums = header, sums
        image._size = header.commit * FRAME_HEADER_SIZE  # these pages it can hold
        image._written = bytearray(b"\2") * header.commit
        lock = lock_pgno(header.page_size)
        for pgno in chain(lacking, [lock] if lock <= header.commit else []):
            image._written[pgno - 1] = 0
        return image

    @property
    def txid(self) -> int:
        """The last transaction applied; 0 before the first file."""
        return self.header.max_txid if self.header else 0

    def can_become(self, goal: Header) -> bool:
        """Tell whether applying further files can make it the state of ``goal``.

        It cannot if something was not kept that this state needs.
        """
        if not self.whole or self.header is None:
            return False
        dropped = self.header.commit > self.horizon
        return not (
            (dropped and goal.commit > self.horizon)
            or (goal.post_checksum and self.sums is None)
        )

    def apply(self, file: FileInfo, reader: BinaryReader) -> None:
        """Apply one whole file: what the listing says of it, and its bytes.

        Raises:
            InvalidFileError: The file is malformed, damaged or not the one listed.
            PosMismatchError: It does not join the files before.
        """
        decoder = Decoder(reader)
        header = decoder.header
        self._check(file, header)
        self.whole = False
        self._resize(header)
        longest = max(1, _RUN_SIZE // header.page_size)
        run: list[bytes] = []
        first = following = 0
        for pgno, page in decoder.pages():
            if pgno != following or len(run) == longest:
                self._put(header.page_size, first, run)
                run = []
                first = pgno
            run.append(page)
            following = pgno + 1
        self._put(header.page_size, first, run)
        self.header = header
        self.files += 1
        self.whole = True

    def lacks(self, pgno: int) -> bool:
        """Tell whether nothing has brought a page yet that the database has."""
        return pgno <= len(self._written) and not self._written[pgno - 1]

    def bring(self, pgno: int, page: bytes) -> None:
        """Keep a page of the state that the image began with and lacked it.

        Raises:
            ChecksumMismatchError: It is not the page of that state.
        """
        assert self.header is not None
        assert self.sums is not None
        expected, actual = self.sums[pgno - 1], page_checksum(pgno, page)
        if actual != expected:
            raise ChecksumMismatchError(
                f"page {pgno}", expected=expected, actual=actual
            )
        self._put(self.header.page_size, pgno, [page])

    def verify(self) -> State:
        """Return the state if it is complete and the one that was replicated.

        Raises:
            InvalidFileError: Pages are missing.
            ChecksumMismatchError: The database checksum is another one.
        """
        header = self.header
        if header is None:
            raise ValueError("no file was applied")
        lock = lock_pgno(header.page_size)
        missing = self._written.find(0)
        if missing + 1 == lock:
            missing = self._written.find(0, lock)
        if missing >= 0:
            raise InvalidFileError(
                f"page {missing + 1} of {header.commit} is in no file",
                kind="incomplete",
            )
        if self.sums is None:
            return State(header, self.files, None, None)
        actual = database_checksum(self.sums)
        if header.post_checksum not in (0, actual):
            raise ChecksumMismatchError(
                "database", expected=header.post_checksum, actual=actual
            )
        reused = self._written.count(2)
        return State(header, self.files, actual, self.sums, reused)

    def _check(self, file: FileInfo, header: Header) -> None:
        """Raise unless the file is the one listed and joins what there is."""
        if (header.min_txid, header.max_txid) != (file.min_txid, file.max_txid):
            raise InvalidFileError(
                f"{file.name} holds transactions {header.min_txid}..{header.max_txid}",
                kind="name",
            )
        if self.header is not None:
            merge_headers((self.header, header))
        elif not header.is_snapshot:
            raise InvalidFileError(f"{file.name} holds no whole database", kind="base")
        self._size += file.size
        check_commit(header, self._size)

    def _resize(self, header: Header) -> None:
        """Forget pages that the database has no more, expect those that it has now."""
        known = min(len(self._written), header.commit)
        new = header.commit - known
        del self._written[known:]
        self._written.extend(bytes(new))
        if self.sums is not None:
            del self.sums[known:]
            self.sums.frombytes(bytes(8 * new))

    def _put(self, page_size: int, first: int, run: list[bytes]) -> None:
        """Keep neighbouring pages that begin with page ``first``."""
        del run[max(0, self.horizon + 1 - first) :]
        if not run:
            return
        at, end = first - 1, first - 1 + len(run)
        self._written[at:end] = b"\1" * len(run)
        if self.sums is not None:
            self.sums[at:end] = page_checksums(first, run)
        if self._write is not None:
            self._write(at * page_size, run)
