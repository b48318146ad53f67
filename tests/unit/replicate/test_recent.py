"""The cache of files put lately."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlitereplica.ltx import FileInfo
from sqlitereplica.replicate.recent import Recent


def info(txid: int, size: int = 10, level: int = 0) -> FileInfo:
    """A file of one transaction."""
    return FileInfo(level, txid, txid, size, 0)


def content(recent: Recent, file: FileInfo) -> bytes | None:
    """What is kept of a file."""
    opened = recent.open(file)
    if opened is None:
        return None
    with opened:
        return opened.read()


def test_what_was_added_can_be_read(tmp_path: Path) -> None:
    """Bytes and local files are kept alike; the file itself may go."""
    recent = Recent(tmp_path, "recent", 1000)
    made = tmp_path / "made.ltx"
    made.write_bytes(b"from a file")
    recent.add(info(1), b"from memory")
    recent.add(info(2), made)
    made.unlink()
    assert content(recent, info(1)) == b"from memory"
    assert content(recent, info(2)) == b"from a file"
    assert content(recent, info(3)) is None


def test_oldest_goes_when_there_is_no_room(tmp_path: Path) -> None:
    """The bound holds, on disk too; large files and snapshots are not kept at all."""
    recent = Recent(tmp_path, "recent", 100)
    for txid in range(1, 8):
        recent.add(info(txid, 20), b"x" * 20)
    recent.add(info(8, 26), b"x" * 26)
    recent.add(info(9, 10, level=9), b"x" * 10)
    kept = [txid for txid in range(1, 10) if content(recent, info(txid, 20))]
    assert kept == [3, 4, 5, 6, 7]
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) == 100


def test_discarded_files_leave_the_disk(tmp_path: Path) -> None:
    """Also all of them at the end; again it is fine."""
    recent = Recent(tmp_path, "recent", 1000)
    files = [info(txid) for txid in range(1, 5)]
    for file in files:
        recent.add(file, b"x" * 10)
    recent.discard(files[:2])
    recent.discard(files[:2])
    assert len(list(tmp_path.iterdir())) == 2
    recent.clear()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_only_means_that_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that cannot write is an empty cache, and says why."""
    recent = Recent(tmp_path, "recent", 1000)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    recent.add(info(1), b"x" * 10)
    assert recent.open(info(1)) is None
    assert recent.error is not None and recent.error.errno == 28
    assert list(tmp_path.iterdir()) == []
