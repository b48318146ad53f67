"""The file that a database is restored into: read and written page by page."""

from __future__ import annotations

import errno
import shutil
import sys
from io import FileIO

if sys.platform != "win32":
    import fcntl

__all__ = ["PageFile", "check_room", "try_lock"]


class PageFile:
    """A file that is open for reading and writing, and owned by this object."""

    def __init__(self, path: str, file: FileIO) -> None:
        """Begin with what is in the file."""
        self.path = path
        self._file = file

    def write(self, offset: int, pages: list[bytes]) -> None:
        """Write neighbouring pages."""
        self._file.seek(offset)
        data = memoryview(b"".join(pages))
        while data:
            data = data[self._file.write(data) :]

    def read(self, offset: int, size: int) -> bytes:
        """Return what was written; fewer bytes at the end of the file."""
        self._file.seek(offset)
        parts = []
        while size and (part := self._file.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def resize(self, size: int) -> None:
        """Cut the file, or extend it by zeros."""
        self._file.truncate(size)

    def clear(self) -> None:
        """Begin anew with an empty file."""
        self.resize(0)

    def reserve(self, size: int) -> None:
        """Raise OSError, ENOSPC, unless ``size`` more bytes have room."""
        check_room(self.path, size)


def check_room(path: str, size: int) -> None:
    """Raise OSError, ENOSPC, unless a file at a path has room for ``size`` more bytes."""
    usage = shutil.disk_usage(path)
    if usage.total and usage.free < size:
        raise OSError(
            errno.ENOSPC,
            f"the restored database needs {size} more bytes, {usage.free} are free",
            path,
        )


def try_lock(fd: int) -> bool:
    """Take the lock of a living process; False if another has it, or none can."""
    if sys.platform == "win32":  # what killed processes leave stays there
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
