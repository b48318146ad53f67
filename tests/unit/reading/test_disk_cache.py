"""Pieces of files on the disk: what is fetched, what is kept, what is trusted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sqlitereplica.ltx import FileInfo
from sqlitereplica.reading.diskcache import PIECE_SIZE, DiskCache

DATA = random.Random(1).randbytes(5 * PIECE_SIZE + 1000)
FILE = FileInfo(0, 1, 1, len(DATA), 12345)


class Origin:
    """Where files are fetched; says which ranges were."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def get(self, info: FileInfo, start: int, end: int) -> bytes:
        """A range, which may go beyond the end."""
        self.asked.append((start // PIECE_SIZE, -(-min(end, info.size) // PIECE_SIZE)))
        return DATA[start:end]


@pytest.fixture
def origin() -> Origin:
    """Counts what is fetched."""
    return Origin()


def cache(folder: Path, origin: Origin, size: int = 1 << 30) -> DiskCache:
    """A cache of one replica."""
    return DiskCache(folder, size, "s3://bucket/app", origin.get)


def test_any_range_is_right(tmp_path: Path, origin: Origin) -> None:
    """Whatever is there already, the bytes are those of the file."""
    rng, disk = random.Random(2), cache(tmp_path, origin)
    for _ in range(60):
        start, end = sorted(rng.sample(range(len(DATA) + 1), 2))
        assert disk.get(FILE, start, end) == DATA[start:end]
    assert disk.get(FILE, len(DATA) - 5, len(DATA) + 99) == DATA[-5:]
    assert disk.get(FILE, 7, 7) == b""


def test_what_is_there_is_not_fetched_again(tmp_path: Path, origin: Origin) -> None:
    """Only lacking pieces are, neighbours together, also by another process."""
    cache(tmp_path, origin).get(FILE, PIECE_SIZE * 2, PIECE_SIZE * 2 + 1)
    assert origin.asked == [(2, 3)]
    other = cache(tmp_path, origin)
    assert other.get(FILE, 0, len(DATA)) == DATA
    assert origin.asked == [(2, 3), (0, 2), (3, 6)]
    assert other.get(FILE, 0, len(DATA)) == DATA
    assert len(origin.asked) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damaged_piece_is_fetched_again(
    tmp_path: Path, origin: Origin, damage: str
) -> None:
    """What is on the disk is believed only with its checksum."""
    disk = cache(tmp_path, origin)
    disk.get(FILE, 0, len(DATA))
    (piece,) = tmp_path.glob("*/*/3")
    data = bytearray(piece.read_bytes())
    data[1000] ^= 1
    contents = {"flip": data, "cut": data[:-1], "empty": b""}
    if damage == "gone":
        piece.unlink()
    else:
        piece.write_bytes(contents[damage])
    assert disk.get(FILE, 0, len(DATA)) == DATA
    assert origin.asked[1:] == [(3, 4)]


def test_folder_stays_within_its_size(tmp_path: Path, origin: Origin) -> None:
    """The oldest pieces go, whatever replica they are of; nothing else does."""
    disk = cache(tmp_path, origin, 4 * PIECE_SIZE)
    other = DiskCache(tmp_path, 4 * PIECE_SIZE, "s3://bucket/other", origin.get)
    for number in range(20):
        info = FileInfo(0, number + 1, number + 1, len(DATA), 0)
        for which in (disk, other):
            assert which.get(info, 0, 100) == DATA[:100]
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 0 < size <= 8 * PIECE_SIZE
    assert not list(tmp_path.rglob("*.tmp"))


def test_file_that_was_made_anew_is_another_one(tmp_path: Path, origin: Origin) -> None:
    """The time and the size of a file are part of what it is known by."""
    disk = cache(tmp_path, origin)
    disk.get(FILE, 0, 10)
    disk.get(FileInfo(0, 1, 1, len(DATA), 12346), 0, 10)
    assert len(origin.asked) == 2


def test_folder_that_cannot_be_written_is_no_failure(
    tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs only the use of the cache."""

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    disk = cache(tmp_path, origin)
    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        assert disk.get(FILE, 0, 100) == DATA[:100]
    assert len(origin.asked) == 2
