"""Frames of the WAL: the newest of each page, and nothing that does not fit."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.sqlite import WalIndex, last_frames, split

SIZE = 512
SALTS = b"saltsalt"


def frame(
    pgno: int, fill: int, *, salts: bytes = SALTS, checksum: bytes = b"c" * 8
) -> bytes:
    """One frame of a page filled with one byte."""
    return struct.pack(">II", pgno, 0) + salts + checksum + bytes([fill]) * SIZE


def index(mx_frame: int, checksum: bytes = b"c" * 8) -> WalIndex:
    """A wal-index header for that many frames."""
    return WalIndex(SALTS, mx_frame, 10, 0, SIZE, checksum)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 255)), min_size=1))
def test_newest_frame_of_each_page_wins(frames: list[tuple[int, int]]) -> None:
    """Offsets lead to the page bytes of the last frame of each number."""
    buffer = b"".join(frame(p, f) for p, f in frames)
    found = last_frames(buffer, SIZE, index(len(frames)), 1)
    pages = {p: buffer[at : at + SIZE] for p, at in found.items()}
    assert pages == {p: bytes([f]) * SIZE for p, f in frames}


@pytest.mark.parametrize(
    ("buffer", "kind"),
    [
        (frame(1, 1)[:-1], "wal-short"),
        (b"", "wal-short"),
        (frame(1, 1) + frame(2, 2, salts=b"othersal"), "wal-salts"),
        (frame(1, 1) + frame(2, 2, checksum=b"x" * 8), "wal-checksum"),
        (frame(1, 1) + frame(0, 2), "wal-pgno"),
    ],
)
def test_bytes_that_are_not_those_frames_are_refused(buffer: bytes, kind: str) -> None:
    """Short, of another WAL, not ending as the wal-index says, or without a number."""
    with pytest.raises(InvalidFileError) as caught:
        last_frames(buffer, SIZE, index(2), 1)
    assert caught.value.kind == kind


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 7))
def test_split_covers_every_frame_once(first: int, more: int, most: int) -> None:
    """Pieces are bounded, in order, and leave nothing out."""
    pieces = list(split(first, first + more - 1, most))
    frames = [f for start, count in pieces for f in range(start, start + count)]
    assert frames == list(range(first, first + more))
    assert all(0 < count <= most for _, count in pieces)
