"""The pages of SQLite's b-trees, as far as is needed to know which page belongs to what.

Format: https://sqlite.org/fileformat2.html section 1.6. Values are not decoded here, SQLite
does that. A b-tree is balanced: the children of a page are all leaves or none is, so that one
child tells what its siblings are, and leaves need not be read to be known.

Pages are hostile: whatever does not fit in its page, and a tree that leads into itself, is
an InvalidFileError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlitereplica.errors import InvalidFileError

__all__ = ["Cell", "Tree", "cells", "chain", "free_pages", "walk"]

_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_INTERIOR = {_INTERIOR_INDEX, _INTERIOR_TABLE}
_HEADER_SIZE = 100  # of the database, before the b-tree of page 1

Read = Callable[[int], bytes]
"""Returns a page by its number."""


class Tree(NamedTuple):
    """The pages of a b-tree."""

    interior: frozenset[int]
    leaves: frozenset[int]


class Cell(NamedTuple):
    """``rowid`` is None in an index; ``overflow`` the page where it goes on, or 0."""

    rowid: int | None
    overflow: int


def walk(read: Read, root: int, commit: int) -> Tree:
    """Return the pages of the b-tree at a root; reads the interior ones and one leaf.

    ``commit`` is the number of pages of the database.
    """
    interior: set[int] = set()
    level = [root]
    while _type(read(level[0]), level[0]) in _INTERIOR:
        below: list[int] = []
        for pgno in level:
            if pgno in interior:
                raise _invalid(pgno, "is in its tree twice")
            interior.add(pgno)
            below += _children(read(pgno), pgno, commit)
        level = below
    leaves = frozenset(level)
    if len(leaves) != len(level) or leaves & interior:
        raise _invalid(root, "has a tree that leads to one page twice")
    return Tree(frozenset(interior), leaves)


def _children(page: bytes, pgno: int, commit: int) -> list[int]:
    start = _start(pgno)
    found = [_number(page, at, 4, pgno) for at in _pointers(page, pgno)]
    found.append(_number(page, start + 8, 4, pgno))
    for child in found:
        if not 1 < child <= commit:
            raise _invalid(pgno, f"leads to page {child}")
    return found


def cells(page: bytes, pgno: int, usable: int) -> Iterator[Cell]:
    """Yield the cells of a page that has payload: all but the interior ones of a table.

    ``usable`` is the page size without the reserved bytes.
    """
    kind = _type(page, pgno)
    for at in _pointers(page, pgno):
        rowid = None
        if kind == _INTERIOR_INDEX:
            at += 4
        size, at = _varint(page, at, pgno)
        if kind == _LEAF_TABLE:
            value, at = _varint(page, at, pgno)
            rowid = value - (1 << 64) if value >> 63 else value
        local = _local_size(size, usable, kind == _LEAF_TABLE)
        overflow = 0 if local == size else _number(page, at + local, 4, pgno)
        yield Cell(rowid, overflow)


def _local_size(size: int, usable: int, is_table: bool) -> int:
    """Return how much of a payload is in the page of its cell (section 1.6)."""
    most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    fitting = least + (size - least) % (usable - 4)
    return fitting if fitting <= most else least


def chain(read: Read, first: int, commit: int) -> Iterator[int]:
    """Yield the overflow pages from the first one on."""
    seen: set[int] = set()
    pgno = first
    while pgno:
        if pgno in seen or not 1 < pgno <= commit:
            raise _invalid(pgno, "is no overflow page")
        seen.add(pgno)
        yield pgno
        pgno = int.from_bytes(read(pgno)[:4], "big")


def free_pages(read: Read, usable: int, commit: int) -> set[int]:
    """Return the pages of the free list (section 1.5)."""
    found: set[int] = set()
    trunk = _number(read(1), 32, 4, 1)
    while trunk:
        if trunk in found or not 1 < trunk <= commit:
            raise _invalid(trunk, "is no page of the free list")
        found.add(trunk)
        page = read(trunk)
        count = min(_number(page, 4, 4, trunk), usable // 4 - 2)
        found.update(_number(page, 8 + 4 * i, 4, trunk) for i in range(count))
        trunk = _number(page, 0, 4, trunk)
    return found


def _start(pgno: int) -> int:
    return _HEADER_SIZE if pgno == 1 else 0


def _type(page: bytes, pgno: int) -> int:
    kind = page[_start(pgno)]
    if kind not in {_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE}:
        raise _invalid(pgno, "is no page of a b-tree")
    return kind


def _pointers(page: bytes, pgno: int) -> list[int]:
    """Return where the cells of a page are."""
    start = _start(pgno)
    count = _number(page, start + 3, 2, pgno)
    first = start + (12 if page[start] in _INTERIOR else 8)
    return [_number(page, first + 2 * i, 2, pgno) for i in range(count)]


def _number(page: bytes, at: int, size: int, pgno: int) -> int:
    if at + size > len(page):
        raise _invalid(pgno, "has a cell outside of it")
    return int.from_bytes(page[at : at + size], "big")


def _varint(page: bytes, at: int, pgno: int) -> tuple[int, int]:
    """Return a number of 1..9 bytes and where it ends (section 1.6)."""
    value = 0
    for count in range(9):
        if at + count >= len(page):
            raise _invalid(pgno, "has a cell outside of it")
        byte = page[at + count]
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    raise AssertionError("the ninth byte ends it")


def _invalid(pgno: int, what: str) -> InvalidFileError:
    return InvalidFileError(f"page {pgno} {what}", kind="b-tree")
