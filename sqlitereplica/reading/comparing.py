"""Which pages, and so which rows, may differ between two states of a database.

Theory. Most pages of two states come from the same file of the replica, or have the same
checksum, and are the same without being read. A leaf page that both states have at the same
place of the same table, unchanged, has the same rows in both. So only the rows in other
leaves have to be compared.

Except: a large row goes on in overflow pages, and these may change while its leaf stays. Such
a page is changed and is nothing else: no page of a b-tree, not free, not the overflow of a
row in a leaf that changed. If there is one, no short cut is safe, and all rows are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlitereplica.ltx import lock_pgno
from sqlitereplica.reading.btree import Tree, cells, chain, free_pages, walk
from sqlitereplica.reading.pagemap import Part, Source
from sqlitereplica.reading.view import View

__all__ = ["Comparison", "Side"]


class Side:
    """One of the two states; ``trees`` are its b-trees by their root pages."""

    def __init__(self, view: View, roots: Iterable[int]) -> None:
        """Read the interior pages of all b-trees.

        Raises:
            InvalidFileError: A page is none of a b-tree.
            StoreError: One cannot be read.
        """
        self.view = view
        self.commit = view.map.commit
        self.usable = view.map.page_size - view.read(1)[20]
        self.trees: dict[int, Tree] = {
            root: walk(view.read, root, self.commit) for root in sorted({1, *roots})
        }

    def rowids(self, leaves: Iterable[int]) -> Iterator[int]:
        """Yield the rowids in leaves of tables."""
        for pgno in sorted(leaves):
            for cell in cells(self.view.read(pgno), pgno, self.usable):
                if cell.rowid is not None:
                    yield cell.rowid

    def explained(self) -> set[int]:
        """Return all pages but overflow pages."""
        found = free_pages(self.view.read, self.usable, self.commit)
        for tree in self.trees.values():
            found |= tree.interior | tree.leaves
        found.add(lock_pgno(self.view.map.page_size))
        if any(self.view.read(1)[52:56]):  # auto-vacuum: there are pointer maps
            found.update(range(2, self.commit + 1, self.usable // 5 + 1))
        return found

    def overflow(self, pgno: int) -> Iterator[int]:
        """Yield the overflow pages of what is in a page."""
        for cell in cells(self.view.read(pgno), pgno, self.usable):
            if cell.overflow:
                yield from chain(self.view.read, cell.overflow, self.commit)


class Comparison:
    """Compares the pages of two states of one page size."""

    def __init__(self, old: Side, new: Side) -> None:
        self.old, self.new = old, new
        self._same: dict[int, bool] = {}

    def is_same(self, pgno: int) -> bool:
        """Whether both states have the same page there; it is read if nothing tells."""
        if pgno not in self._same:
            self._same[pgno] = self._compare(pgno)
        return self._same[pgno]

    def _compare(self, pgno: int) -> bool:
        if pgno > min(self.old.commit, self.new.commit):
            return False
        old, new = self.old.view, self.new.view
        if old.map.is_lock_page(pgno):
            return True
        mine, theirs = old.map.owner(pgno), new.map.owner(pgno)
        if mine is theirs:
            return True
        before, after = _sum(mine, pgno), _sum(theirs, pgno)
        if before is not None and after is not None and before != after:
            return False
        return old.read(pgno) == new.read(pgno)

    def leaves(self, old_root: int, new_root: int) -> tuple[set[int], set[int]]:
        """Return the leaves of a table, in both states, whose rows may differ."""
        old, new = self.old.trees[old_root].leaves, self.new.trees[new_root].leaves
        same = {pgno for pgno in old & new if self.is_same(pgno)}
        return set(old - same), set(new - same)

    def is_complete(self) -> bool:
        """Whether all changes are in rows whose leaves changed."""
        left = {p for p in range(1, self.new.commit + 1) if not self.is_same(p)}
        changed = left & set().union(
            *(tree.interior | tree.leaves for tree in self.new.trees.values())
        )
        left -= self.new.explained()
        for pgno in sorted(changed):
            if not left:
                break
            left.difference_update(self.new.overflow(pgno))
        return not left


def _sum(source: Source, pgno: int) -> int | None:
    """Return the checksum of a page, None if it is not known."""
    return source.sum_of(pgno) if isinstance(source, Part) else None
