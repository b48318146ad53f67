"""A WAL that something cut: what is missing in it is missed, wherever the cut is."""

from __future__ import annotations

import os
import sqlite3

import pytest
from support.capturing import Captured

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.sqlite.wal import frame_offset


@pytest.mark.parametrize("left", [1, 2, 2.5])
@pytest.mark.parametrize("buffer_size", [1 << 20, 4096])
def test_wal_cut_behind_a_frame_is_not_taken_for_all_of_it(
    db: sqlite3.Connection, captured: Captured, left: float, buffer_size: int
) -> None:
    """The wal-index counts more frames than there are: none is passed over in silence."""
    captured.capture._buffer_size = buffer_size
    begin = captured.capture.frame
    for _ in range(4):
        db.execute("insert into t(v) values(randomblob(100))")
    page_size = captured.capture.table.page_size
    end = frame_offset(begin + 1, page_size) + int(left * (page_size + 24))
    os.truncate(f"{captured.path}-wal", end)
    with pytest.raises(InvalidFileError) as caught:
        captured.capture.step()
    assert caught.value.kind == "wal-short"
    assert not captured.increments
