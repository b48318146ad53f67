"""What a followed file holds: beside the file, and never ahead of it or behind it.

Theory. The file moves from one state to the next at the instant at which its rollback
journal is dropped, and after a crash nobody but the file can tell on which side of that
instant it is. It does: page 1 has a counter that is another one in each state (SQLite's
change counter, for which any other value makes readers drop their caches). So before the
journal is dropped the next state is noted, beside the present one, each with its counter;
whichever has the counter of the file is the one. A counter that is in neither note belongs
to somebody else, who has written to the file.

Page 1 is not quite that of the source (see ``as_plain``). What was there before is noted as
well, so that the checksum of the database as it was replicated can be computed.

Readers keep the schema that they know until the schema cookie in page 1 is another one. In a
database that grows older it is, whenever the schema changes. But a source may be replaced, and
then another schema may come with the same cookie. So the file has a cookie of its own, which
moves along with that of the source, and on by one where that would not tell (``next_cookie``).

Format: two slots of 128 bytes, overwritten in turn; integers big-endian::

    magic(8) txid(u64) timestamp(i64) page size(u32) pages(u32) database checksum(u64)
    counter(u32) head(18) cookie(u32) source(8)  zeros  checksum of the slot(u64)
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from fastcrc.crc64 import go_iso

from sqlitereplica.restore.aside import sync_directory

__all__ = [
    "Goal",
    "Held",
    "HeldFile",
    "as_plain",
    "cookie_of",
    "counter_of",
    "head_of",
    "next_cookie",
]

_PIECES = ((18, 20), (24, 32), (40, 44), (92, 96))
_SLOT = 128
_FIELDS = struct.Struct(">8sQqIIQI18sI8s")
_MAGIC = b"SQLRHF01"
_U32 = struct.Struct(">I").pack


def head_of(page: bytes) -> bytes:
    """The bytes of page 1 that ``as_plain`` changes."""
    return b"".join(page[first:last] for first, last in _PIECES)


def with_head(page: bytes, head: bytes) -> bytes:
    """Page 1 with these bytes put back: as it was replicated."""
    changed = bytearray(page)
    at = 0
    for first, last in _PIECES:
        changed[first:last] = head[at : at + last - first]
        at += last - first
    return bytes(changed)


def as_plain(page: bytes, commit: int, counter: int, cookie: int) -> bytes:
    """Page 1 for a file in rollback mode, of ``commit`` pages, with this counter and cookie.

    Format versions 1 instead of 2 (WAL), the counter twice, which makes the size valid.
    """
    count = _U32(counter)
    return with_head(page, b"\1\1" + count + _U32(commit) + _U32(cookie) + count)


def cookie_of(page: bytes) -> int:
    """The schema cookie in page 1."""
    return int.from_bytes(page[40:44], "big")


def next_cookie(old: Held, before: bytes | None, after: bytes) -> int:
    """The cookie to show with page 1 ``after``; ``before`` is what the state had there.

    Another one than before wherever the schema may be: None for an unknown state.
    """
    if before is None:
        return (old.cookie + 1) % (1 << 32)
    moved = cookie_of(after) - cookie_of(before)
    if moved < 0 or (moved == 0 and before[100:] != after[100:]):
        moved = 1
    return (old.cookie + moved) % (1 << 32)


def counter_of(page: bytes) -> int | None:
    """The counter of a page 1 that ``as_plain`` made; None if it is another one."""
    if len(page) < 100 or page[18:20] != b"\1\1" or page[24:28] != page[92:96]:
        return None
    return int.from_bytes(page[24:28], "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A state to bring a file to; ``checksum`` is that of the database, 0 if unknown."""

    txid: int
    timestamp: int
    page_size: int
    commit: int
    checksum: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Goal):
    """A state that a file holds, with its counter and what page 1 had before."""

    counter: int
    head: bytes
    cookie: int
    source: bytes = bytes(8)

    def pack(self) -> bytes:
        """One slot."""
        fields = _FIELDS.pack(
            _MAGIC,
            self.txid,
            self.timestamp,
            self.page_size,
            self.commit,
            self.checksum,
            self.counter,
            self.head,
            self.cookie,
            self.source,
        ).ljust(_SLOT - 8, b"\0")
        return fields + go_iso(fields).to_bytes(8, "big")

    @classmethod
    def unpack(cls, slot: bytes) -> Held | None:
        """What a slot says; None for one that is empty, torn or foreign."""
        body, crc = slot[: _SLOT - 8], slot[_SLOT - 8 :]
        if len(slot) != _SLOT or go_iso(body) != int.from_bytes(crc, "big"):
            return None
        magic, txid, timestamp, size, commit, checksum, *rest = _FIELDS.unpack_from(
            body
        )
        if magic != _MAGIC:
            return None
        return cls(
            txid=txid,
            timestamp=timestamp,
            page_size=size,
            commit=commit,
            checksum=checksum,
            counter=rest[0],
            head=rest[1],
            cookie=rest[2],
            source=rest[3],
        )


def source_of(name: str) -> bytes:
    """Eight bytes that tell replicas apart."""
    return hashlib.sha256(name.encode()).digest()[:8]


class HeldFile:
    """The two notes on a file. Whoever uses it is alone with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slot = 0

    def find(self, counter: int | None) -> Held | None:
        """The note with this counter, None if there is none."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        for slot in (0, 1):
            held = Held.unpack(data[slot * _SLOT : (slot + 1) * _SLOT])
            if held is not None and held.counter == counter:
                self._slot = slot
                return held
        return None

    def note(self, held: Held) -> None:
        """Note the state that comes next; durable when this returns."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(self._path, flags, 0o644)
        try:
            os.pwrite(fd, held.pack(), (1 - self._slot) * _SLOT)
            os.fsync(fd)
            is_new = os.fstat(fd).st_size < 2 * _SLOT
        finally:
            os.close(fd)
        if is_new:
            sync_directory(str(self._path.parent))

    def arrived(self) -> None:
        """The state noted last is the present one."""
        self._slot = 1 - self._slot

    def forget(self) -> None:
        """Drop both notes, durably: the file is nobody's copy any more."""
        self._path.unlink(missing_ok=True)
        sync_directory(str(self._path.parent))
