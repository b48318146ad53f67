"""``LTXFile``: one file of a replica as a value, to look at and to make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import (
    Header,
    decode,
    encode,
    format_filename,
    lock_pgno,
    parse_filename,
)

__all__ = ["LTXFile", "image_of"]

_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LTXFile:
    """The pages that the transactions ``min_txid`` to ``max_txid`` changed.

    ``commit`` is the size of the database after them, in pages. Two files of equal
    content are equal, whatever their bytes are.

    Example:
        >>> file = LTXFile(min_txid=1, max_txid=1, pages={1: bytes(512)}, page_size=512)
        >>> LTXFile.read(file.name, file.data) == file
        True
    """

    min_txid: int
    max_txid: int
    pages: Mapping[int, bytes] = field(hash=False)
    page_size: int = 4096
    commit: int = 0
    """0 stands for the number of the last page."""
    level: int = 0
    time: datetime = _EPOCH
    """Of the newest change in it, to the millisecond; aware."""

    def __post_init__(self) -> None:
        """Fill in the commit size."""
        if self.commit == 0:
            object.__setattr__(self, "commit", max(self.pages, default=1))

    @classmethod
    def read(cls, name: str, data: bytes, *, level: int = 0) -> Self:
        """The file of that name and those bytes, verified.

        Raises:
            InvalidFileError: it is no valid LTX file, or has another one's name.
            ChecksumMismatchError: its bytes are not those that were written.
        """
        header, pages = decode(data)
        txids = parse_filename(name)
        if txids != (header.min_txid, header.max_txid):
            raise _misnamed(name, header)
        return cls(
            min_txid=header.min_txid,
            max_txid=header.max_txid,
            pages=dict(pages),
            page_size=header.page_size,
            commit=header.commit,
            level=level,
            time=_EPOCH + timedelta(milliseconds=header.timestamp),
        )

    @property
    def name(self) -> str:
        """What it is called in its folder."""
        return format_filename(self.min_txid, self.max_txid)

    @property
    def timestamp(self) -> int:
        """``time`` in milliseconds since 1970."""
        return (self.time - _EPOCH) // timedelta(milliseconds=1)

    @property
    def is_snapshot(self) -> bool:
        """Whether it holds a whole database."""
        return self.min_txid == 1

    @property
    def data(self) -> bytes:
        """Its bytes, without the database checksums that a Replicator adds.

        Raises:
            InvalidFileError: no valid file has this content.
        """
        header = Header(
            page_size=self.page_size,
            commit=self.commit,
            min_txid=self.min_txid,
            max_txid=self.max_txid,
            timestamp=self.timestamp,
        )
        return encode(header, sorted(self.pages.items()))

    def __repr__(self) -> str:
        pages = ", ".join(map(str, sorted(self.pages)[:8]))
        more = ", ..." if len(self.pages) > 8 else ""
        return (
            f"LTXFile(level={self.level}, min_txid={self.min_txid},"
            f" max_txid={self.max_txid}, commit={self.commit}, pages=[{pages}{more}])"
        )


def _misnamed(name: str, header: Header) -> InvalidFileError:
    found = format_filename(header.min_txid, header.max_txid)
    return InvalidFileError(f"{name} holds {found}", kind="name")


def image_of(files: Iterable[LTXFile]) -> bytes:
    """The database that files make which follow each other, the first a snapshot.

    Put together in the simplest way there is, to compare with what a restore gives.
    """
    pages: dict[int, bytes] = {}
    size = commit = 0
    for file in files:
        pages.update(file.pages)
        size, commit = file.page_size, file.commit
        pages = {pgno: page for pgno, page in pages.items() if pgno <= commit}
    lock = lock_pgno(size) if size else 0
    return b"".join(
        pages.get(pgno, bytes(size)) if pgno == lock else pages[pgno]
        for pgno in range(1, commit + 1)
    )
