"""Parts of a replica's files on the local disk, for as long as there is room.

Files of a replica never change, so a part of one that was fetched is good for ever: for
later connections, and for other processes that use the same folder at the same time.

``<folder>/<replica>/<file>/<number>`` is one piece of a file of the replica, with its
CRC-64 behind it. What stands for the replica and the file is in part the time and the size
of the file, so that a replica that was made anew is another one. A piece appears under its
name whole; one that is damaged or was deleted by another process is fetched again. Nothing
is synced: a cache may be lost.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

from fastcrc.crc64 import go_iso

from sqlitereplica.ltx import FileInfo

__all__ = ["DiskCache"]

PIECE_SIZE = 64 << 10
_CRC_SIZE = 8
_LEFT = 0.9
"""What is left of the room when the oldest pieces are deleted."""


class DiskCache:
    """Fetches ranges of files by way of a folder. Thread-safe.

    ``size`` bounds the folder, whatever else of ours is in it. The oldest pieces go first.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        size: int,
        replica: str,
        get: Callable[[FileInfo, int, int], bytes],
    ) -> None:
        """Use a folder, which is made if need be.

        Raises:
            OSError: It cannot be.
        """
        self._folder, self._most, self._get = Path(folder), size, get
        digest = hashlib.sha256(replica.encode()).hexdigest()[:16]
        self._replica = self._folder / digest
        self._replica.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._size = sum(size for _, size, _ in self._pieces())

    def get(self, info: FileInfo, start: int, end: int) -> bytes:
        """Bytes ``start..end`` of a file; raises StoreError as the store does."""
        end = min(end, info.size)
        if start >= end:
            return b""
        first, last = start // PIECE_SIZE, (end - 1) // PIECE_SIZE
        folder = (
            self._replica / f"{info.level}-{info.name}-{info.timestamp}-{info.size}"
        )
        found: dict[int, bytes | None] = {
            number: _read(folder / str(number), _length(info, number))
            for number in range(first, last + 1)
        }
        for number, data in self._missing(info, found):
            found[number] = data
            self._write(folder / str(number), data)
        parts = [found[number] or b"" for number in range(first, last + 1)]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        at = first * PIECE_SIZE
        return data[start - at : end - at]

    def _missing(
        self, info: FileInfo, found: dict[int, bytes | None]
    ) -> Iterator[tuple[int, bytes]]:
        """Fetch the pieces that are not there; neighbours with one request."""
        lacking = [number for number, data in found.items() if data is None]
        runs = groupby(enumerate(lacking), key=lambda item: item[1] - item[0])
        for numbers in ([n for _, n in run] for _, run in runs):
            begin = numbers[0] * PIECE_SIZE
            data = self._get(info, begin, (numbers[-1] + 1) * PIECE_SIZE)
            for number in numbers:
                at = number * PIECE_SIZE - begin
                yield number, data[at : at + PIECE_SIZE]

    def _write(self, path: Path, data: bytes) -> None:
        """Keep a piece if that is possible; without it, it is fetched another time."""
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(data + go_iso(data).to_bytes(_CRC_SIZE, "big"))
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            return
        with self._lock:
            self._size += len(data) + _CRC_SIZE
            if self._size > self._most:
                self._make_room()

    def _make_room(self) -> None:
        """Delete the oldest pieces, and the folders that have no more."""
        pieces = sorted(self._pieces())
        self._size = sum(size for _, size, _ in pieces)
        for _, size, path in pieces:
            if self._size <= _LEFT * self._most:
                return
            path.unlink(missing_ok=True)
            self._size -= size
            if not any(path.parent.iterdir()):
                path.parent.rmdir()

    def _pieces(self) -> Iterator[tuple[float, int, Path]]:
        """All pieces, with the time of their last use and their size."""
        for path in self._folder.glob("*/*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # deleted by another process
            yield status.st_mtime, status.st_size, path


def _length(info: FileInfo, number: int) -> int:
    return min(PIECE_SIZE, info.size - number * PIECE_SIZE)


def _read(path: Path, length: int) -> bytes | None:
    """Return a piece, None if it is not there or not what it was."""
    try:
        data = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    content, crc = data[:length], data[length:]
    if crc != go_iso(content).to_bytes(_CRC_SIZE, "big"):
        return None
    return content
