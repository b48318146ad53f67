"""Looks at the wal-index: equal when nothing was committed, and only then."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.capturing import make_database
from support.lifetime import write

from sqlitereplica import Replicator
from sqlitereplica.sqlite import CommitWatch


def test_commit_changes_the_look_and_nothing_else_does(
    tmp_path: Path, db: sqlite3.Connection
) -> None:
    """Reads, rolled back writes and passive checkpoints leave it as it is."""
    watch = CommitWatch(str(tmp_path / "app.db"))
    write(db)
    look = watch.look()
    assert look is not None
    db.execute("select count(*) from t").fetchone()
    db.execute("begin immediate")
    write(db)
    assert watch.look() == look
    db.execute("rollback")
    db.execute("pragma wal_checkpoint(passive)").fetchone()
    assert watch.look() == look
    write(db)
    assert watch.look() not in (look, None)


def test_commit_that_begins_the_wal_anew_is_seen(
    tmp_path: Path, db: sqlite3.Connection
) -> None:
    """Also when it ends at the frame at which the WAL before it ended."""
    watch = CommitWatch(str(tmp_path / "app.db"))
    seen = set()
    for _ in range(20):
        write(db)
        look = watch.look()
        assert look is not None and look not in seen
        seen.add(look)
        db.execute("pragma wal_checkpoint(restart)").fetchone()


def test_commits_of_other_processes_are_seen(
    tmp_path: Path, replicator: Replicator
) -> None:
    """Whoever commits: it is one wal-index."""
    watch = CommitWatch(replicator.database)
    before = watch.look()
    code = (
        "import sqlite3,sys;c=sqlite3.connect(sys.argv[1]);c.execute('delete from t');"
    )
    command = [sys.executable, "-c", code + "c.commit()", replicator.database]
    subprocess.run(command, check=True)
    assert before is not None and watch.look() != before


def test_database_that_is_closed_or_replaced_equals_nothing(tmp_path: Path) -> None:
    """With nobody there is no look; a new file is never taken for the old one."""
    path = tmp_path / "app.db"
    watch = CommitWatch(str(path))
    assert watch.look() is None
    with closing(make_database(path)) as connection:
        write(connection)
        first = watch.look()
    assert first is not None and watch.look() is None
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("select count(*) from t").fetchone()
        assert watch.look() not in (first, None)


def test_looking_drops_no_lock(tmp_path: Path, db: sqlite3.Connection) -> None:
    """The descriptor stays open: closing it would end this process's own locks."""
    watch = CommitWatch(str(tmp_path / "app.db"))
    db.execute("begin immediate")
    for _ in range(3):
        assert watch.look() is not None
    code = (
        "import sqlite3,sys;c=sqlite3.connect(sys.argv[1],timeout=0);"
        "c.execute('begin immediate')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "app.db")]
    other = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "locked" in other.stderr
    db.execute("rollback")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_header_that_is_being_written_is_no_look(tmp_path: Path) -> None:
    """A writer that died between its two copies: nobody is made to wait for it."""
    shm = tmp_path / "a-shm"
    shm.write_bytes(bytes(48) + b"\1" * 88)
    assert CommitWatch(str(tmp_path / "a")).look() is None
