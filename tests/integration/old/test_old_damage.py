"""Gaps and damage in replicas in the layout of Litestream 0.3."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.oldreplica import OldReplica, frame
from support.oldstates import (
    INSERT,
    after,
    fill,
    refusal,
    restored,
    rewrite,
    segments,
    snapshots,
)

from sqlitereplica import restore
from sqlitereplica.errors import (
    ChecksumMismatchError,
    InvalidFileError,
    NotRestorableError,
)

# -- gaps and damage -------------------------------------------------------------------


def state_before(old: OldReplica, error: Exception) -> bytes:
    """The state at the time that an error names."""
    assert isinstance(error, NotRestorableError) and error.kind == "gap"
    assert isinstance(error.latest, datetime)
    return restored(old.replica, at=error.latest)


@pytest.mark.parametrize("number", [1, 3, 4, 6])
def test_missing_segment_is_a_gap(old: OldReplica, number: int) -> None:
    """Within a WAL or at its beginning; the state before can be had."""
    fill(old)
    snapshots(old)[1].unlink()
    path = segments(old)[number]
    time = path.stat().st_mtime_ns // 1_000_000
    image = [image for other, image in old.states if other < time][-1]
    path.unlink()
    assert state_before(old, refusal(old.replica)) == image


def test_missing_wal_is_a_gap(old: OldReplica) -> None:
    """All segments of an index."""
    fill(old)
    snapshots(old)[1].unlink()
    for path in segments(old):
        if path.name.startswith("00000001_"):
            path.unlink()
    assert state_before(old, refusal(old.replica)) in dict(old.states).values()


def test_generation_without_a_snapshot_is_a_gap(old: OldReplica) -> None:
    """That is no missing backup: something is wrong with it."""
    fill(old)
    for path in snapshots(old):
        path.unlink()
    error = refusal(old.replica, missing="skip")
    assert isinstance(error, NotRestorableError) and error.kind == "gap"


@pytest.mark.parametrize("kind", ["cut", "flipped", "trailing", "empty", "foreign"])
def test_damaged_segment_is_an_error_that_names_it(old: OldReplica, kind: str) -> None:
    """No part of it is used; a time before it can be restored."""
    fill(old)
    changes: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda data: data[:-9],
        "flipped": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
        "trailing": lambda data: data + b"\0",
        "empty": lambda data: b"",
        "foreign": lambda data: frame(b"no WAL" * 90),
    }
    path = segments(old)[-1]
    rewrite(path, changes[kind])
    error = refusal(old.replica)
    assert isinstance(error, InvalidFileError)
    assert path.name in error.__notes__[0]
    time, image = old.states[-2]
    assert restored(old.replica, at=after(time)) == image


def test_segments_of_another_wal_are_noticed(old: OldReplica) -> None:
    """Sound by itself, but not what follows: SQLite's checksums tell."""
    fill(old)
    snapshots(old)[1].unlink()
    last = segments(old)[-1]
    content = [p for p in segments(old) if p.name.startswith("00000001_")][
        1
    ].read_bytes()
    rewrite(last, lambda _: content)
    error = refusal(old.replica)
    assert isinstance(error, InvalidFileError) and error.kind == "wal-salts"


def test_wal_of_another_page_size_is_refused(old: OldReplica, tmp_path: Path) -> None:
    """It belongs to another database."""
    (tmp_path / "other").mkdir()
    other = OldReplica(tmp_path / "other", page_size=2048)
    other.segment()
    other.close()
    old.snapshot()
    old.segment()
    content = segments(other)[0].read_bytes()
    rewrite(segments(old)[0], lambda _: content)
    error = refusal(old.replica)
    assert isinstance(error, InvalidFileError) and error.kind == "page-size"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "base"),
        (b"x" * 4096, "base"),
        (b"SQLite format 3\0\x04\1" + bytes(4078), "base"),
        (b"SQLite format 3\0\x04\0" + bytes(2000), "truncated"),
    ],
)
def test_snapshot_that_is_no_database_is_refused(
    old: OldReplica, content: bytes, kind: str
) -> None:
    """The frame may be sound, but not what is in it."""
    old.segment()
    rewrite(old.snapshot(), lambda _: frame(content))
    error = refusal(old.replica)
    assert isinstance(error, InvalidFileError) and error.kind == kind


def test_damaged_snapshot_is_replaced_by_an_older_one(
    old: OldReplica, caplog: pytest.LogCaptureFixture
) -> None:
    """The WALs since then lead to the same state."""
    fill(old)
    rewrite(snapshots(old)[1], lambda data: data[:-1] + b"\0")
    assert restored(old.replica) == old.image
    assert "restore-avoid" in [record.__dict__["action"] for record in caplog.records]
    rewrite(snapshots(old)[0], lambda data: data[:-1] + b"\0")
    error = refusal(old.replica)
    assert isinstance(error, ChecksumMismatchError)


def test_damaged_snapshot_is_not_replaced_by_another_generation(
    old: OldReplica,
) -> None:
    """That one would be silently older."""
    fill(old)
    old.checkpoint()
    old.begin_generation("0000000000000011")
    rewrite(old.snapshot(), lambda data: data[:-1] + b"\0")
    assert isinstance(refusal(old.replica), ChecksumMismatchError)


# -- hostile sizes -----------------------------------------------------------------------


def test_room_is_asked_for_before_the_snapshot_is_written(
    old: OldReplica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header says how large the database is, if it can be that large."""
    old.commit(INSERT.format(300_000))
    old.checkpoint()
    rewritten = old.snapshot()
    sizes = []

    def disk_usage(path: str) -> Any:
        sizes.append(os.stat(path).st_size)
        return SimpleNamespace(total=1 << 30, free=200_000)

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    size = old.database.stat().st_size
    with pytest.raises(OSError, match=f"needs {size} more bytes"):
        restore(old.replica, tmp_path / "a.db")
    assert sizes == [0] and not list(tmp_path.glob(".a.db*"))
    content = bytearray(old.database.read_bytes())
    content[28:32] = b"\xff" * 4  # a lie is no reason to refuse
    rewrite(rewritten, lambda _: frame(bytes(content)))
    restore(old.replica, tmp_path / "b.db", verify=None)
    assert (tmp_path / "b.db").stat().st_size == size


def test_frames_cannot_make_a_database_of_any_size(old: OldReplica) -> None:
    """A size or a page number that is stated is not believed, however well signed."""
    old.snapshot()
    for at, value, kind in ((4, 2**32 - 2, "commit"), (0, 2**32 - 2, "wal-pgno")):
        old.offset = 0
        path = old.segment()
        assert path is not None
        wal = bytearray(Path(f"{old.database}-wal").read_bytes()[: 32 + 1048])
        wal[32 + 4 : 32 + 8] = (1).to_bytes(4, "big")
        wal[32 + at : 36 + at] = value.to_bytes(4, "big")
        signed = bytes(wal[:48]) + sums_of(bytes(wal)) + bytes(wal[56:])
        rewrite(path, lambda _, content=signed: frame(content))  # type: ignore[misc]
        error = refusal(old.replica)
        assert isinstance(error, InvalidFileError) and error.kind == kind


def sums_of(wal: bytes) -> bytes:
    """The checksum of the first frame of a WAL."""
    s0, s1 = struct.unpack_from(">II", wal, 24)
    for x0, x1 in struct.iter_unpack("<II", wal[32:40] + wal[56:]):
        s0 = (s0 + x0 + s1) % 2**32
        s1 = (s1 + x1 + s0) % 2**32
    return struct.pack(">II", s0, s1)
