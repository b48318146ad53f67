"""The table of page checksums: what the database holds, in 8 bytes a page.

Comparing two tables says which pages differ between two states of a database without
reading either again: that is how a replica is brought up by a delta. Their exclusive or is
the database checksum of LTX (litestream.md 1.6). The lock page has no checksum; its entry
is 0.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from sqlitereplica.ltx import EMPTY_CHECKSUM, lock_pgno, page_checksum

__all__ = ["Changes", "PageTable", "sums_of"]

Changes = list[tuple[int, int]]
"""(pgno, checksum) of pages that changed."""

_BLOCK = 1024


class PageTable:
    """Page checksums of one state of a database. Not thread-safe; ``copy`` to share."""

    def __init__(self, page_size: int, sums: array[int] | None = None) -> None:
        self.page_size = page_size
        self.sums: array[int] = array("Q") if sums is None else sums
        self._lock = lock_pgno(page_size)
        self._xor = 0
        for value in self.sums:
            self._xor ^= value

    @property
    def commit(self) -> int:
        """Database size in pages."""
        return len(self.sums)

    @property
    def checksum(self) -> int:
        """The database checksum; bit 63 is always set."""
        return EMPTY_CHECKSUM | self._xor

    def apply(self, commit: int, changes: Iterable[tuple[int, int]]) -> None:
        """Move on to the state after a transaction of ``commit`` pages.

        Pages by which the database grew and that ``changes`` does not name are left 0,
        which no page's checksum is: a hole never equals a page.
        """
        sums, xor = self.sums, self._xor
        for value in sums[commit:]:
            xor ^= value
        del sums[commit:]
        if commit > len(sums):
            sums.frombytes(bytes(8 * (commit - len(sums))))
        for pgno, value in changes:
            xor ^= sums[pgno - 1] ^ value
            sums[pgno - 1] = value
        self._xor = xor

    def forget(self, pgnos: Iterable[int]) -> None:
        """Mark pages as unknown, so that they differ from every state."""
        self.apply(self.commit, [(p, 0) for p in pgnos if p <= self.commit])

    def sums_at(self, pgnos: array[int]) -> array[int]:
        """The checksums of some pages; their numbers ascend."""
        sums = self.sums
        if pgnos and pgnos[-1] - pgnos[0] + 1 == len(pgnos):  # one run, as of an image
            return sums[pgnos[0] - 1 : pgnos[-1]]
        return array("Q", (sums[pgno - 1] for pgno in pgnos))

    def copy(self) -> PageTable:
        """An independent copy."""
        return PageTable(self.page_size, array("Q", self.sums))

    def is_state_of(self, other: PageTable) -> bool:
        """True when both describe the same pages, one by one.

        The database checksum alone cannot tell: it is the exclusive or of checksums that
        are linear, so two pages that change in the same bits leave it as it was.
        """
        return self.page_size == other.page_size and self.sums == other.sums

    def differs_from(self, base: PageTable | None) -> array[int]:
        """Page numbers, ascending, that a database in state ``base`` must be given.

        None, or a table of another page size, means all of them. Never the lock page.
        """
        if base is None or base.page_size != self.page_size:
            return self._all_pgnos()
        found = array("I")
        ours, theirs = memoryview(self.sums), memoryview(base.sums)
        for at in range(0, len(ours), _BLOCK):
            mine, its = ours[at : at + _BLOCK], theirs[at : at + _BLOCK]
            if mine == its:
                continue
            for i, value in enumerate(mine):
                pgno = at + i + 1
                if (i >= len(its) or its[i] != value) and pgno != self._lock:
                    found.append(pgno)
        return found

    def _all_pgnos(self) -> array[int]:
        """All but the lock page. An array that grows number by number is slow to make."""
        pgnos = array("I", bytes(4 * self.commit))
        for at in range(0, self.commit, _BLOCK):
            last = min(at + _BLOCK, self.commit)
            pgnos[at:last] = array("I", range(at + 1, last + 1))
        if self._lock <= self.commit:
            del pgnos[self._lock - 1]
        return pgnos


def sums_of(pages: Iterable[tuple[int, bytes]], lock: int) -> Changes:
    """Checksums of (pgno, page) pairs, without the lock page."""
    return [(p, page_checksum(p, page)) for p, page in pages if p != lock]
