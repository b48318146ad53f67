"""The temporary files of restores: what they are, and what is left of killed ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.recording import Recording

from sqlitereplica.restore import restore
from sqlitereplica.restore.target import Scratch
from sqlitereplica.store import LTXStore

# The name of the module is also that of its function.
restore_module = sys.modules["sqlitereplica.restore.restore"]


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """A replica whose database has one table, ``fresh``."""
    folder = tmp_path / "replica"
    made = Recording(tmp_path / "source.db", LTXStore.open(folder))
    made.commit("CREATE TABLE fresh(a)")
    made.close()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The path to restore to, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "app.db"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of this process."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def scratch(target: Path, age: float) -> Path:
    """A temporary file of a restore to ``target``, changed ``age`` seconds ago."""
    path = target.with_name(f".{target.name}.{int(age):016x}.tmp")
    path.write_bytes(b"half")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_leftover_of_a_killed_restore_is_removed(replica: Path, target: Path) -> None:
    """Restores that are killed again and again do not fill the disk."""
    left = scratch(target, 3600)
    restore(replica, target)
    assert not left.exists()


def test_living_restores_are_left_alone(replica: Path, target: Path) -> None:
    """A temporary file that is locked or new belongs to another process."""
    locked, new = scratch(target, 3600), scratch(target, 1)
    others = scratch(target.parent / "x", 3600)
    no_restores = scratch(target, 3601).rename(target.with_name(".app.db.draft.tmp"))
    with locked.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        restore(replica, target)
    assert all(path.exists() for path in (locked, new, others, no_restores))


LOCK = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    sys.exit(error.sqlite_errorcode)
"""


def test_finished_file_counts_as_living_until_it_has_its_name(
    replica: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long SQLite's check took, the file is new when its lock ends."""

    def check_for_hours(path: str, *_: object) -> None:
        os.utime(path, (1, 1))

    monkeypatch.setattr(restore_module, "check_database", check_for_hours)
    restore(replica, target)
    assert time.time() - target.stat().st_mtime < 60


def test_scratch_gets_exactly_its_size(tmp_path: Path) -> None:
    """What is not written at the end is zero, what is too much goes."""
    for size in (8, 0, 8192):
        with Scratch(os.fspath(tmp_path), "app.db", 0o600) as file:
            file.write(4, [b"ab", b"cd"])
            file.finish(size)
            content = Path(file.path).read_bytes()
        assert content == (bytes(4) + b"abcd").ljust(size, b"\0")[:size]
        assert list(tmp_path.glob(".app.db.*")) == []


def test_second_link_to_a_database_is_removed_unopened(
    replica: Path, target: Path
) -> None:
    """A restore killed right after naming leaves a link: opening it would drop locks."""
    first = target.with_name("first.db")
    restore(replica, first)
    link = target.with_name(f".app.db.{0:016x}.tmp")
    os.link(first, link)
    with opened(first) as connection:
        # Without a WAL the locks are those of the database file itself.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN IMMEDIATE")
        then = time.time() - 3600
        os.utime(link, (then, then))
        restore(replica, target)
        assert not link.exists()
        other = subprocess.run([sys.executable, "-c", LOCK, first], check=False)
        assert other.returncode == 5, "the lock was lost"
