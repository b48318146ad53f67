"""The wal-index header, against bytes that SQLite wrote and bytes that are broken."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from support.capturing import make_database

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.sqlite.walindex import HEADER_SIZE, parse_wal_index, read_wal_index


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_fields_are_those_of_the_wal(tmp_path: Path, page_size: int) -> None:
    """mxFrame, page size, salts and checksum agree with the WAL file."""
    path = tmp_path / "a.db"
    db = make_database(path, page_size=page_size)
    db.execute("insert into t(v) values(zeroblob(?))", (page_size * 3,))
    shm = os.open(f"{path}-shm", os.O_RDONLY)
    index = read_wal_index(shm)
    wal = Path(f"{path}-wal").read_bytes()
    assert index is not None
    assert index.page_size == page_size
    assert len(wal) == 32 + index.mx_frame * (page_size + 24)
    assert index.salts == wal[16:24]
    last = wal[-(page_size + 24) :]
    assert struct.unpack(">I", last[4:8]) == (index.n_page,)
    assert last[16:24] == index.frame_checksum
    assert index.n_backfill == 0
    db.execute("pragma wal_checkpoint(passive)").fetchall()
    after = read_wal_index(shm)
    assert after is not None
    assert after.fully_backfilled
    db.close()
    os.close(shm)


def test_header_between_its_two_copies_is_not_believed(tmp_path: Path) -> None:
    """A writer that is between the copies, or has not begun, gives None."""
    path = tmp_path / "a.db"
    db = make_database(path)
    raw = Path(f"{path}-shm").read_bytes()[:HEADER_SIZE]
    db.close()
    assert parse_wal_index(raw) is not None
    for at in range(48):
        torn = bytearray(raw)
        torn[at] ^= 1
        assert parse_wal_index(bytes(torn)) is None
    assert parse_wal_index(raw[:100]) is None
    assert parse_wal_index(bytes(HEADER_SIZE)) is None


def test_other_version_is_refused_by_name(tmp_path: Path) -> None:
    """WAL2 and whatever else comes: not taken for what it is not."""
    path = tmp_path / "a.db"
    db = make_database(path)
    raw = bytearray(Path(f"{path}-shm").read_bytes()[:HEADER_SIZE])
    db.close()
    raw[0:4] = raw[48:52] = struct.pack("=I", 3021000)
    with pytest.raises(InvalidFileError) as caught:
        parse_wal_index(bytes(raw))
    assert caught.value.kind == "wal-index-version"


def test_unsettled_header_is_waited_for_a_bounded_time(tmp_path: Path) -> None:
    """A writer that died between the copies does not hang us."""
    path = tmp_path / "shm"
    path.write_bytes(b"\1" * 48 + b"\2" * 200)
    pauses: list[float] = []
    fd = os.open(path, os.O_RDONLY)
    assert read_wal_index(fd, pauses.append) is None
    assert 0.05 < sum(pauses) < 1
    os.close(fd)
