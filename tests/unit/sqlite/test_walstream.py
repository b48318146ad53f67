"""A WAL as a stream: frames of real SQLite, and each way in which they can be wrong."""

from __future__ import annotations

import random
import sqlite3
import struct
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.sqlite.walstream import WalStream

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


@cache
def real_wal(page_size: int) -> bytes:
    """A WAL that SQLite wrote, of some hundred frames."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.db")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("CREATE TABLE t(v)")
            for number in range(40):
                connection.execute(
                    "INSERT INTO t VALUES (randomblob(?))", [number * 80]
                )
            return Path(f"{path}-wal").read_bytes()


def big_endian(wal: bytes, page_size: int) -> bytes:
    """The same WAL as a machine of the other byte order writes it."""

    def add(sums: tuple[int, int], data: bytes) -> tuple[int, int]:
        s0, s1 = sums
        for x0, x1 in struct.iter_unpack(">II", data):
            s0 = (s0 + x0 + s1) % 2**32
            s1 = (s1 + x1 + s0) % 2**32
        return s0, s1

    header = struct.pack(">I", 0x377F0683) + wal[4:24]
    sums = add((0, 0), header)
    parts = [header + struct.pack(">II", *sums)]
    for at in range(32, len(wal), page_size + 24):
        frame = wal[at : at + page_size + 24]
        sums = add(add(sums, frame[:8]), frame[24:])
        parts.append(frame[:16] + struct.pack(">II", *sums) + frame[24:])
    return b"".join(parts)


def frames_of(wal: bytes, page_size: int, step: int) -> list[tuple[int, int, bytes]]:
    """All frames, when the WAL comes in pieces of some size."""
    stream, found = WalStream(page_size), []
    for at in range(0, len(wal), step):
        found += list(stream.feed(wal[at : at + step]))
    stream.end_segment()
    found += list(stream.flush())
    assert stream.size == len(wal)
    return [
        (pgno, commit, frames.page(number))
        for frames in found
        for number, (pgno, commit) in enumerate(
            zip(frames.pgnos, frames.commits, strict=True)
        )
    ]


def plain_frames(wal: bytes, page_size: int) -> list[tuple[int, int, bytes]]:
    """The frames as they stand there."""
    return [
        (*struct.unpack_from(">II", wal, at), wal[at + 24 : at + 24 + page_size])
        for at in range(32, len(wal), page_size + 24)
    ]


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_frames_of_sqlite_are_proven(page_size: int, order: str) -> None:
    """Each page size and both byte orders of the checksums, in pieces of any size."""
    wal = real_wal(page_size)
    expected = plain_frames(wal, page_size)
    if order == "big":
        wal = big_endian(wal, page_size)
    for step in (len(wal), 1 << 20, 4999, page_size + 24):
        assert frames_of(wal, page_size, step) == expected


def test_wal_of_many_batches_is_proven() -> None:
    """What one batch ends with is what the next begins with."""
    wal = real_wal(512)
    stream = WalStream(512)
    stream._batch = 3 * 536
    batches = [*stream.feed(wal), *stream.flush()]
    assert len(batches) > 20
    assert [p for batch in batches for p in batch.pgnos] == [
        pgno for pgno, _, _ in plain_frames(wal, 512)
    ]


@given(data=st.data())
def test_every_changed_byte_is_noticed(data: st.DataObject) -> None:
    """There is no byte in a WAL that its checksums or salts do not cover."""
    wal = bytearray(real_wal(512))
    at = data.draw(st.integers(0, len(wal) - 1))
    wal[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidFileError):
        frames_of(bytes(wal), 512, data.draw(st.sampled_from([700, 1 << 20])))


def test_frames_in_another_order_are_noticed() -> None:
    """Each frame follows from the one before, even if each is sound by itself."""
    wal = real_wal(512)
    header, first, second, rest = wal[:32], wal[32:568], wal[568:1104], wal[1104:]
    for changed in (header + second + first + rest, header + second + rest):
        with pytest.raises(ChecksumMismatchError):
            frames_of(changed, 512, len(changed))


def test_checksum_error_has_what_was_found() -> None:
    """Both numbers are those of the first frame that is wrong."""
    wal = bytearray(real_wal(512))
    at = 32 + 7 * 536
    stored = int.from_bytes(wal[at + 16 : at + 24], "big")
    wal[at + 16] ^= 1
    with pytest.raises(ChecksumMismatchError) as caught:
        frames_of(bytes(wal), 512, len(wal))
    assert caught.value.actual == stored
    assert caught.value.expected == stored ^ 1 << 56


@pytest.mark.parametrize("cut", [0, 1, 31, 33, 55, 56, 567, 569])
def test_end_within_a_frame_is_told(cut: int) -> None:
    """Segments hold whole frames; the header alone is a whole WAL."""
    stream = WalStream(512)
    assert list(stream.feed(real_wal(512)[:cut])) == []
    with pytest.raises(InvalidFileError) as caught:
        stream.end_segment()
    assert caught.value.kind == "wal-short"


def test_header_alone_is_a_wal() -> None:
    """The first segment may be only that."""
    stream = WalStream(512)
    assert list(stream.feed(real_wal(512)[:32])) == []
    stream.end_segment()
    assert list(stream.flush()) == [] and stream.size == 32


def signed(header: bytes) -> bytes:
    """A header with the checksum that it should have."""
    s0 = s1 = 0
    for x0, x1 in struct.iter_unpack("<II", header[:24]):
        s0 = (s0 + x0 + s1) % 2**32
        s1 = (s1 + x1 + s0) % 2**32
    return header[:24] + struct.pack(">II", s0, s1)


@pytest.mark.parametrize(
    ("at", "value", "kind"),
    [
        (0, 0x377F0684, "wal-magic"),
        (4, 3007001, "wal-magic"),
        (8, 1024, "page-size"),
        (8, 0, "page-size"),
    ],
)
def test_foreign_header_is_refused(at: int, value: int, kind: str) -> None:
    """Another file, another version, or the WAL of another database."""
    wal = bytearray(real_wal(512))
    struct.pack_into(">I", wal, at, value)
    with pytest.raises(InvalidFileError) as caught:
        list(WalStream(512).feed(signed(bytes(wal))))
    assert caught.value.kind == kind


def test_page_number_zero_is_refused() -> None:
    """There is no such page, however well it is signed."""
    frame = bytes(8) + bytes(16) + random.Random(2).randbytes(512)
    wal = signed(struct.pack(">IIII8x", 0x377F0682, 3007000, 512, 0)) + frame
    s0, s1 = struct.unpack_from(">II", wal, 24)
    for x0, x1 in struct.iter_unpack("<II", frame[:8] + frame[24:]):
        s0 = (s0 + x0 + s1) % 2**32
        s1 = (s1 + x1 + s0) % 2**32
    wal = wal[:48] + struct.pack(">II", s0, s1) + wal[56:]
    stream = WalStream(512)
    list(stream.feed(wal))
    with pytest.raises(InvalidFileError) as caught:
        list(stream.flush())
    assert caught.value.kind == "wal-pgno"
