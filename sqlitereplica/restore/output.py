"""What a restore writes to, the file that becomes the database, and what is in it then."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Made", "Output"]


class Output(Protocol):
    """A file that begins empty."""

    def write(self, offset: int, pages: list[bytes]) -> None:
        """Write neighbouring pages."""

    def read(self, offset: int, size: int) -> bytes:
        """Return what was written; fewer bytes at the end of the file."""

    def resize(self, size: int) -> None:
        """Cut the file, or extend it by zeros."""

    def clear(self) -> None:
        """Begin anew."""

    def reserve(self, size: int) -> None:
        """Raise OSError if ``size`` more bytes have no room."""


@dataclass(frozen=True, slots=True)
class Made:
    """A database that was put together, of ``commit`` pages, from so many ``files``.

    ``timestamp`` is when the state was replicated, in milliseconds. ``txid`` and
    ``checksum`` are None if there is no such thing, ``sums``, the checksum of each page by
    its number less one, if they were not needed. ``reused`` is the number of pages that an
    old copy had.
    """

    page_size: int
    commit: int
    timestamp: int
    files: int
    txid: int | None = None
    checksum: int | None = None
    sums: array[int] | None = None
    reused: int = 0
