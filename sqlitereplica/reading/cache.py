"""Pages in memory, the ones used last, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from sqlitereplica.reading.pagemap import Part

__all__ = ["PageCache"]

_Key: TypeAlias = tuple[Part, int]

_OVERHEAD = 200
"""Bytes that a page takes beyond its own, about."""


class PageCache:
    """Pages by the file they are from; belongs to one thread.

    As files never change, what is here is right at any later position as well.
    """

    def __init__(self, size: int) -> None:
        self._most = size
        self._size = 0
        self._pages: OrderedDict[_Key, bytes] = OrderedDict()

    def __contains__(self, key: _Key) -> bool:
        return key in self._pages

    def get(self, key: _Key) -> bytes | None:
        """Return a page, which is the one used last from now on."""
        page = self._pages.get(key)
        if page is not None:
            self._pages.move_to_end(key)
        return page

    def put(self, key: _Key, page: bytes) -> None:
        """Keep a page, and let go of the ones unused for longest."""
        if key in self._pages:
            return
        self._pages[key] = page
        self._size += len(page) + _OVERHEAD
        while self._size > self._most and len(self._pages) > 1:
            _, dropped = self._pages.popitem(last=False)
            self._size -= len(dropped) + _OVERHEAD

    def clear(self) -> None:
        """Let go of all."""
        self._pages.clear()
        self._size = 0
