"""The database that a restore is about to replace, as a place to take pages from.

Its file is only ever read, through a descriptor that is not closed while a connection of
this process could have locks on the file (design section 3, ``sqlite.descriptors``).
Nothing that is read is trusted to stay: somebody may open the database meanwhile. So what
was made of it is read again from the new file, page by page, before that one counts.

A WAL or a journal beside it is not looked at. What the file alone has may then be no state
of the database at all, but every page of it is judged by its own checksum.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Callable, Iterator
from typing import Self

from sqlitereplica.ltx import lock_pgno, page_checksums
from sqlitereplica.restore.mark import read_mark

__all__ = ["OldCopy", "UnfitCopyError", "page_sums"]

_MAGIC = b"SQLite format 3\0"
_PIECE = 1 << 20  # bytes read at a time
_STRETCH = 32 << 20  # bytes copied at a time
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UnfitCopyError(Exception):
    """The old copy is of no use; the message says why. Never leaves a restore."""


class OldCopy:
    """An open database file; a context manager that lets it go.

    ``is_moved`` is to be set when it has been given a new name.
    """

    def __init__(self, path: str) -> None:
        """Open it; raises UnfitCopyError if that cannot be done."""
        # Imported here: that part brings apsw with it.
        from sqlitereplica.sqlite import descriptors

        if not hasattr(os, "pread"):
            raise UnfitCopyError("this system cannot read it without a file position")
        try:
            self.fd, self._key = descriptors.acquire(path)
        except OSError as error:
            raise UnfitCopyError(f"it cannot be opened: {error}") from error
        self.is_moved = False
        self._descriptors = descriptors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_moved:
            self._descriptors.release_moved(self._key)
        else:
            self._descriptors.release(self._key)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.fd).st_size

    @property
    def mark(self) -> bytes:
        """The note that an earlier restore left on it, if any."""
        return read_mark(self.fd)

    def page_size(self) -> int | None:
        """Return the page size; None if this is no plain SQLite database.

        Raises:
            UnfitCopyError: It cannot be read.
        """
        try:
            head = os.pread(self.fd, 18, 0)
        except OSError as error:
            raise UnfitCopyError(f"it cannot be read: {error}") from error
        if len(head) < 18 or not head.startswith(_MAGIC):
            return None
        size = int.from_bytes(head[16:18], "big")
        return 65536 if size == 1 else size

    def sums(self, page_size: int) -> array[int]:
        """Return the checksums of all whole pages, 0 for the lock page.

        Raises:
            UnfitCopyError: It cannot be read.
        """
        result = array("Q")
        try:
            for block in page_sums(self.fd, page_size, self.size // page_size):
                result.extend(block)
        except OSError as error:
            raise UnfitCopyError(f"it cannot be read: {error}") from error
        return result

    def copy_into(self, target: int, size: int, wrote: Callable[[int], object]) -> None:
        """Copy the first bytes to the same place in another file, or all that there are.

        ``wrote`` is told how many were, now and then. Blocks are shared where the
        filesystem can do that.

        Raises:
            UnfitCopyError: The copy cannot be read.
            OSError: The other file cannot be written.
        """
        at = 0
        copy = _copy_range
        while at < size:
            count = copy(self.fd, target, at, min(_STRETCH, size - at))
            if count:
                wrote(count)
                at += count
            elif copy is _copy_plainly:
                return
            else:
                copy = _copy_plainly

    def sync(self) -> None:
        """Make the file durable."""
        os.fsync(self.fd)


def page_sums(fd: int, page_size: int, count: int) -> Iterator[array[int]]:
    """Yield the checksums of the first ``count`` pages of a file, some at a time.

    That of the lock page is 0. Ends early where the file does.

    Raises:
        OSError: The file cannot be read.
    """
    lock = lock_pgno(page_size)
    most = max(1, _PIECE // page_size)
    for first in range(1, count + 1, most):
        wanted = min(most, count + 1 - first)
        data = memoryview(os.pread(fd, wanted * page_size, (first - 1) * page_size))
        found = len(data) // page_size
        pages = [
            data[at : at + page_size] for at in range(0, found * page_size, page_size)
        ]
        block = page_checksums(first, pages)
        if first <= lock < first + found:
            block[lock - first] = 0
        yield block
        if found < wanted:
            return


def _copy_range(source: int, target: int, at: int, size: int) -> int:
    """Let the system copy some of the bytes; 0 if it does not."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        return 0  # not between these files: reading and writing says what is wrong


def _copy_plainly(source: int, target: int, at: int, size: int) -> int:
    """Copy some of the bytes; 0 at the end of the source."""
    try:
        data = memoryview(os.pread(source, min(size, _PIECE), at))
    except OSError as error:
        raise UnfitCopyError(f"it cannot be read: {error}") from error
    count = len(data)
    while data:
        written = os.pwrite(target, data, at)
        data, at = data[written:], at + written
    return count
