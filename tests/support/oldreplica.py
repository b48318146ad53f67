"""Replicas in the layout of Litestream 0.3, written step by step by the test itself."""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path

import cramjam

__all__ = ["OldReplica", "frame", "xxh32"]

START = 1_600_000_000_123
"""The time of the first file, in milliseconds; each further one is a second later."""


P1, P2, P3, P4, P5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393


def xxh32(data: bytes) -> int:
    """The xxHash-32 of bytes, slowly, from its definition."""

    def mix(value: int, word: int) -> int:
        value = value + word * P2 & 0xFFFFFFFF
        return _rotated(value, 13) * P1 & 0xFFFFFFFF

    at, value = 0, P5
    if len(data) >= 16:
        lanes = [P1 + P2, P2, 0, -P1]
        while at + 16 <= len(data):
            words = struct.unpack_from("<4I", data, at)
            lanes = [mix(*pair) for pair in zip(lanes, words, strict=True)]
            at += 16
        turns = zip(lanes, (1, 7, 12, 18), strict=True)
        value = sum(_rotated(lane, turn) for lane, turn in turns)
    value = value + len(data) & 0xFFFFFFFF
    while at + 4 <= len(data):
        word = int.from_bytes(data[at : at + 4], "little")
        value = _rotated(value + word * P3 & 0xFFFFFFFF, 17) * P4 & 0xFFFFFFFF
        at += 4
    for byte in data[at:]:
        value = _rotated(value + byte * P5 & 0xFFFFFFFF, 11) * P1 & 0xFFFFFFFF
    value = (value ^ value >> 15) * P2 & 0xFFFFFFFF
    value = (value ^ value >> 13) * P3 & 0xFFFFFFFF
    return value ^ value >> 16


def _rotated(value: int, turn: int) -> int:
    return (value << turn | value >> (32 - turn)) & 0xFFFFFFFF


def frame(content: bytes, *, block_size: int = 64 << 10) -> bytes:
    """An LZ4 frame as Litestream 0.3 wrote it, but for the size of its blocks."""
    code = {64 << 10: 4, 256 << 10: 5, 1 << 20: 6, 4 << 20: 7}[block_size]
    descriptor = bytes([0x64, code << 4])
    check = xxh32(descriptor) >> 8 & 0xFF
    parts = [b"\x04\x22\x4d\x18", descriptor, bytes([check])]
    for at in range(0, len(content), block_size):
        block = content[at : at + block_size]
        packed = bytes(cramjam.lz4.compress_block(block, store_size=False))
        size = len(packed)
        if size >= len(block):
            packed, size = block, len(block) | 1 << 31
        parts += [size.to_bytes(4, "little"), packed]
    encoder = cramjam.lz4.Compressor(level=0)  # ends its frames with the checksum
    encoder.compress(content)
    return b"".join([*parts, bytes(4), bytes(encoder.finish())[-4:]])


class OldReplica:
    """A database, and a replica that the test tells when to write what.

    ``states`` has the time in milliseconds of each file stored, and the image of the
    database as far as the files up to it go. Nothing is checkpointed but by
    ``checkpoint``.
    """

    def __init__(self, folder: Path, *, page_size: int = 1024, images: bool = True):
        """Begin with one generation and no file; the database has a table ``t(v)``."""
        self.database, self.replica = folder / "old.db", folder / "old"
        self.page_size = page_size
        self.generation = "00000000000000aa"
        self.index = self.offset = 0
        self.time = START
        self.states: list[tuple[int, bytes]] = []
        self._with_images = images
        self._images: dict[int, bytes] = {}  # by the frames in this WAL
        self._base = b""  # as this WAL began
        self._salts = b""
        self._connection = sqlite3.connect(
            self.database, isolation_level=None, check_same_thread=False
        )
        self._connection.execute(f"PRAGMA page_size={page_size}")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        self.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def commit(self, *statements: str) -> None:
        """Run statements; each is a transaction, or part of one that they begin."""
        for statement in statements:
            self._connection.execute(statement).fetchall()
            if self._wal_index[32:40] != self._salts:
                self._begin_wal()
            if self._with_images and not self._connection.in_transaction:
                self._images[self.frames] = self.image

    def checkpoint(self) -> None:
        """Store what is new and bring it into the database; the WAL begins anew."""
        self.segment()
        self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def backfill(self) -> None:
        """Bring what is in the WAL into the database, and go on in this WAL.

        A reader keeps it from beginning anew.
        """
        with closing(sqlite3.connect(self.database)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM t").fetchall()
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.commit("INSERT INTO t(v) VALUES ('after the backfill')")

    @property
    def image(self) -> bytes:
        """The database as it is now."""
        return self._connection.serialize()

    @property
    def frames(self) -> int:
        """The committed frames in the WAL."""
        return int.from_bytes(self._wal_index[16:20], sys.byteorder)

    def snapshot(self) -> Path:
        """Store the database file as it is."""
        return self._store(self.snapshot_path, self.database.read_bytes())

    def segment(self, frames: int | None = None) -> Path | None:
        """Store what is new in the WAL, up to a number of its frames, if that is some."""
        count = self.frames if frames is None else frames
        end = 32 + count * (self.page_size + 24)
        data = Path(f"{self.database}-wal").read_bytes()[self.offset : end]
        if not data:
            return None
        path = self.segment_path(self.index, self.offset)
        self.offset += len(data)
        return self._store(path, data)

    @property
    def snapshot_path(self) -> Path:
        """Where the snapshot of this WAL is."""
        folder = self.replica / "generations" / self.generation / "snapshots"
        return folder / f"{self.index:08x}.snapshot.lz4"

    def segment_path(self, index: int, offset: int) -> Path:
        """Where a segment is."""
        folder = self.replica / "generations" / self.generation / "wal"
        return folder / f"{index:08x}_{offset:08x}.wal.lz4"

    def begin_generation(self, name: str) -> None:
        """Go on in another generation, which needs a snapshot next."""
        self.generation = name
        self.index = self.offset = 0

    @property
    def _wal_index(self) -> bytes:
        return Path(f"{self.database}-shm").read_bytes()

    def _begin_wal(self) -> None:
        if self._salts:
            self.index, self.offset = self.index + 1, 0
            self._base = self._images[max(self._images)] if self._images else b""
            self._images = {}
        self._salts = self._wal_index[32:40]

    def _store(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(frame(data))
        self.time += 1000
        os.utime(path, ns=(self.time * 1_000_000, self.time * 1_000_000))
        frames = (self.offset - 32) // (self.page_size + 24)
        whole = [count for count in self._images if count <= frames]
        state = self._images[max(whole)] if whole else self._base
        self.states.append((self.time, state))
        return path
