"""Reading one stored file from beginning to end, in ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

__all__ = ["StoreReader"]

_FETCH_BYTES = 4 << 20


class StoreReader:
    """A sequential reader over range requests. Belongs to one thread."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size = fetch, size
        self._at = 0
        self._block = memoryview(b"")

    def read(self, n: int, /) -> bytes:
        """Up to ``n`` bytes, all that is left if negative; ``b""`` at the end."""
        if n < 0:
            left = len(self._block) + self._size - self._at
            return b"".join(iter(lambda: self.read(left), b""))
        if not self._block and self._at < self._size:
            end = min(self._size, self._at + max(_FETCH_BYTES, n))
            self._block = memoryview(self._fetch(self._at, end))
            self._at = end
        found, self._block = self._block[:n], self._block[n:]
        return bytes(found)

    def close(self) -> None:
        """Let the buffer go."""
        self._block, self._at = memoryview(b""), self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
