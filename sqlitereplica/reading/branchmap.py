"""Which pages of a branch are in its local file: one byte a page, shared by processes.

``<database>-branch`` lies beside the local file for as long as pages are missing there::

    magic        8 bytes, SQLRBR01
    finished     1 byte, 1 once the file is a plain database
    (zeros)      7 bytes
    page size    u32
    pages        u32, of the state that the branch began with
    txid         u64, of that state
    timestamp    i64, of that state, milliseconds since the epoch
    replica      16 bytes, a digest of its name
    checksum     u64, CRC-64/GO-ISO of what is before but the second 8 bytes
    page map     a byte for each of the pages: 1 if it is in the local file, else 0

It is mapped into memory, so that what a process sets is seen by the others at once and
outlives it. A byte, not a bit: bytes are set by several processes without a lock.

Who writes to the local file holds a lock on the map (``flock``) from its look at the map to
its mark there: a shared one for what SQLite writes, which SQLite's own locks keep apart, one
alone for the pages that are fetched to finish the branch.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastcrc.crc64 import go_iso

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.sqlite import branch_map

try:
    import fcntl
except ImportError:  # Windows: finish a branch when nobody else uses it
    fcntl = None  # type: ignore[assignment]

__all__ = ["BranchMap", "Origin", "map_path"]

_HEAD = struct.Struct(">8s8sIIQq16s")
_MAGIC = b"SQLRBR01"
_FINISHED = 8
_SIZE = _HEAD.size + 8


@dataclass(frozen=True, slots=True)
class Origin:
    """The state that a branch began with."""

    page_size: int
    commit: int
    txid: int
    timestamp: int
    replica: str

    def pack(self) -> bytes:
        """Return the fixed part of the file."""
        digest = hashlib.sha256(self.replica.encode()).digest()[:16]
        head = _HEAD.pack(
            _MAGIC,
            bytes(8),
            self.page_size,
            self.commit,
            self.txid,
            self.timestamp,
            digest,
        )
        return head + go_iso(head[:8] + head[16:]).to_bytes(8, "big")


def map_path(path: str | os.PathLike[str]) -> Path:
    """Return where the map of a branch is."""
    return Path(branch_map(os.fspath(path)))


class BranchMap:
    """The map, open. Several may be open on one file, in any number of processes."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InvalidFileError: It is damaged.
            OSError: It cannot be opened.
        """
        self._file = path.open("r+b", buffering=0)
        try:
            head = self._file.read(_SIZE)
            self.page_size, self.commit, self.txid, self._replica = _unpack(head)
            size = os.fstat(self._file.fileno()).st_size
            if size != _SIZE + self.commit:
                raise InvalidFileError(f"{path} is cut short", kind="branch")
            self._map = mmap.mmap(self._file.fileno(), size)
        except BaseException:
            self._file.close()
            raise

    @staticmethod
    def write(path: Path, origin: Origin) -> None:
        """Write a map of a branch that has no pages yet."""
        with path.open("wb") as file:
            file.write(origin.pack() + bytes(origin.commit))
            file.flush()
            os.fsync(file.fileno())

    def is_of(self, replica: str) -> bool:
        """Whether the branch is one of that replica."""
        return self._replica == hashlib.sha256(replica.encode()).digest()[:16]

    def has(self, pgno: int) -> bool:
        """Whether a page is in the local file; those behind the state's end are."""
        return pgno > self.commit or self._map[_SIZE + pgno - 1] != 0

    def set(self, pgno: int) -> None:
        """Say that a page is in the local file."""
        if pgno <= self.commit:
            self._map[_SIZE + pgno - 1] = 1

    def set_from(self, pgno: int) -> None:
        """Say so of that page and all behind it."""
        if pgno <= self.commit:
            count = self.commit - pgno + 1
            self._map[_SIZE + pgno - 1 :] = b"\1" * count

    def missing(self, pgno: int = 1) -> int | None:
        """Return the first page from there on that is not in the file, None if all are."""
        at = self._map.find(b"\0", _SIZE + pgno - 1)
        return None if at < 0 else at - _SIZE + 1

    @property
    def count(self) -> int:
        """The number of pages of the state that are in the local file."""
        return self._map[_SIZE:].count(1)

    @property
    def is_finished(self) -> bool:
        """Whether the local file is a plain database by now."""
        return self._map[_FINISHED] == 1

    def finish(self) -> None:
        """Say that it is."""
        self._map[_FINISHED] = 1

    def sync(self) -> None:
        """Bring what was set to disk."""
        self._map.flush()

    @contextmanager
    def locked(self, *, alone: bool) -> Iterator[None]:
        """Hold the lock of who writes to the local file."""
        fd = self._file.fileno()
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            if fcntl is not None:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close it."""
        self._map.close()
        self._file.close()


def _unpack(head: bytes) -> tuple[int, int, int, bytes]:
    if len(head) < _SIZE or head[:8] != _MAGIC:
        raise InvalidFileError("this is no map of a branch", kind="branch")
    if head[-8:] != go_iso(head[:8] + head[16:-8]).to_bytes(8, "big"):
        raise InvalidFileError("the map of a branch is damaged", kind="branch")
    _, _, page_size, commit, txid, _, replica = _HEAD.unpack_from(head)
    return page_size, commit, txid, replica
