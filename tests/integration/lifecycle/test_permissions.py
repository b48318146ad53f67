"""Nobody gets to read through us what they may not read in the database."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from sqlitereplica import Mirror, Replicator


def mode_of(path: Path) -> int:
    """Its permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(not hasattr(os, "fchmod"), reason="a system without permissions")
@pytest.mark.parametrize(
    ("mode", "folder", "file"),
    [(0o600, 0o700, 0o600), (0o640, 0o750, 0o640), (0o644, 0o755, 0o644)],
)
def test_copies_are_as_private_as_the_database(
    tmp_path: Path, mode: int, folder: int, file: int
) -> None:
    """The metadata, a replica in a folder, a mirror: each has parts of it."""
    database = tmp_path / "data/app.db"
    database.parent.mkdir()
    with closing(sqlite3.connect(database)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(x)")
    database.chmod(mode)
    replica, mirror = tmp_path / "backups/app", tmp_path / "mirrors/app.db"
    before = os.umask(0o022)
    try:
        with Replicator(database, [replica, Mirror(mirror)]) as replicator:
            replicator.sync(timeout=60)
    finally:
        os.umask(before)
    meta = database.with_name(".app.db-sqlitereplica")
    assert [mode_of(path) for path in (meta, replica)] == [folder, folder]
    assert mode_of(replica / "ltx/0") == folder
    assert mode_of(mirror) == file
    assert mode_of(replica.parent) == 0o755  # not ours alone
