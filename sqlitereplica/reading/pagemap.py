"""Where each page of a state is: pure, made of the page indexes of a plan's files.

Theory. The state that a plan makes has, of each page, the copy in the last file that
brings it, unless the database became too small for the page in between. A ``PageMap``
notes for each page the file it comes from, in two bytes; where in that file says the
file's own index. So the next state costs a copy of two bytes a page and one step for each
page that the next file brings.

A map never changes: a reader that holds one sees one state, whatever comes later.

Invariants. Pages by which the database grows belong to nobody until a file brings them,
so that no older copy comes back (litestream.md 0.5). Asking for such a page is an error.
The files join as in a restore.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import FileInfo, Header, PageIndex, lock_pgno, merge_headers

__all__ = ["MOST_PARTS", "PageMap", "Part", "Source"]

_NOBODY = 0
MOST_PARTS = 60_000
"""Files that a map can be made of; two bytes number them."""


class Source(Protocol):
    """What brings pages: a file of the replica, or a local copy of a state."""

    @property
    def header(self) -> Header:
        """What it says about itself."""

    @property
    def pgnos(self) -> Collection[int]:
        """The pages that it has."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One file of a plan: what it is, its header, and where its pages are.

    ``sum_of`` returns the checksum of a page by its number, None where it is not known.
    """

    info: FileInfo
    header: Header
    index: PageIndex
    sum_of: Callable[[int], int | None]

    @property
    def pgnos(self) -> Collection[int]:
        """The pages that it has."""
        return self.index


class PageMap:
    """The pages of one state; immutable."""

    def __init__(
        self,
        parts: tuple[Source, ...],
        owners: array[int],
        header: Header,
        brought: int,
    ) -> None:
        """Use ``begin`` and ``advance``.

        ``owners`` are places in ``parts``, from 1 on; ``brought`` is the number of pages
        in all of these.
        """
        self.parts = parts
        self.header = header
        self._owners = owners
        self._brought = brought

    @classmethod
    def begin(cls, source: Source) -> PageMap:
        """The state that one full image makes.

        Raises:
            InvalidFileError: It is none.
        """
        header = source.header
        if not header.is_snapshot:
            raise InvalidFileError(
                "the first file holds no whole database", kind="base"
            )
        empty: array[int] = array("H")
        return cls((), empty, header, 0)._with(source, header)

    def advance(self, source: Source) -> PageMap:
        """The state after a further file.

        Raises:
            InvalidFileError: Its pages have another size.
            PosMismatchError: It does not join.
        """
        merge_headers((self.header, source.header))
        return self._with(source, source.header)

    def _with(self, source: Source, header: Header) -> PageMap:
        parts = (*self.parts, source)
        if len(parts) > MOST_PARTS:
            raise InvalidFileError("too many files for one state", kind="parts")
        commit, number = header.commit, len(parts)
        brought = self._brought + len(source.pgnos)
        if commit > brought + 1:  # the lock page is in no file
            what = f"{commit} pages, of which the files have {brought} at most"
            raise InvalidFileError(what, kind="commit")
        owners = self._owners[:commit]
        owners.frombytes(bytes(owners.itemsize * (commit - len(owners))))
        for pgno in source.pgnos:
            if pgno > commit:
                raise InvalidFileError(f"page {pgno} of {commit}", kind="pgno")
            owners[pgno - 1] = number
        return PageMap(parts, owners, header, brought)

    @property
    def txid(self) -> int:
        """The last transaction."""
        return self.header.max_txid

    @property
    def commit(self) -> int:
        """Pages of the database."""
        return self.header.commit

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self.header.page_size

    def is_lock_page(self, pgno: int) -> bool:
        """Whether it is the page that SQLite never uses and no file has."""
        return pgno == lock_pgno(self.page_size)

    def is_same_state(self, other: PageMap) -> bool:
        """Whether another map can be of the same state, as far as headers tell.

        After the same transaction of another history the checksum of the database is
        another one; where it is not known (Litestream) at most the size tells.
        """
        a, b = self.header, other.header
        sums = {a.post_checksum, b.post_checksum} - {0}
        return len(sums) < 2 and (a.max_txid, a.page_size, a.commit) == (
            b.max_txid,
            b.page_size,
            b.commit,
        )

    def owner(self, pgno: int) -> Source:
        """Return what has a page of 1..commit.

        Raises:
            InvalidFileError: Nothing has.
        """
        number = self._owners[pgno - 1]
        if number == _NOBODY:
            raise InvalidFileError(
                f"page {pgno} of {self.commit} is in no file", kind="incomplete"
            )
        return self.parts[number - 1]

    def has(self, source: Source, pgno: int) -> bool:
        """Whether a page of the state comes from there."""
        if pgno > self.commit:
            return False
        number = self._owners[pgno - 1]
        return number != _NOBODY and self.parts[number - 1] is source
