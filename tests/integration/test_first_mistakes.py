"""What people pass wrong on the first day, to the library: each is told, and by its type."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sqlitereplica import DatabaseStateError, Replicator, restore


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["", ":memory:", "file:a.db?mode=rw", b"a.db"])
def test_restore_to_what_is_no_path_is_refused(folder: Path, path: Any) -> None:
    """Rather than made into a file of that name."""
    with pytest.raises(ValueError, match="path must be"):
        restore("backup", path)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("replicas", [None, 5, [None], [], "", [""], "app.db"])
def test_replicas_that_are_none_are_refused(folder: Path, replicas: Any) -> None:
    """When the Replicator is made, not when it has failed for a while."""
    with pytest.raises(ValueError, match="replica"):
        Replicator("app.db", replicas)


def test_intervals_may_be_text(folder: Path) -> None:
    """As all other durations; what is none is refused by name."""
    Replicator("app.db", "backup", sync_interval="100ms", stop_timeout="5s")
    for name in ("sync_interval", "stop_timeout"):
        with pytest.raises(ValueError, match=name):
            Replicator("app.db", "backup", **{name: "soon"})
        with pytest.raises(ValueError, match=name):
            Replicator("app.db", "backup", **{name: -1})
    with pytest.raises(ValueError, match="sync_interval"):
        Replicator("app.db", "backup", sync_interval=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "It is a folder"),
        (lambda path: path.write_text("no database " * 100), "If it is encrypted"),
    ],
)
def test_what_is_no_database_is_told_with_a_hint(
    folder: Path, make: Any, words: str
) -> None:
    """SQLite's own words do not say what to do."""
    make(folder / "app.db")
    with (
        pytest.raises(DatabaseStateError, match=words),
        Replicator("app.db", "backup") as replicator,
    ):
        replicator.sync(timeout=60)


PROGRAM = """
import sys
from sqlitereplica import DatabaseStateError, Replicator, restore

try:
    with Replicator("closed/app.db", "other", meta_path="meta") as replicator:
        replicator.sync(timeout=60)
except DatabaseStateError as error:
    print(error.kind, error)
try:
    restore("backup", "closed/copy.db")
except PermissionError as error:
    print(error.filename, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the rights of root are Linux's")
def test_folder_that_may_not_be_written_is_told(folder: Path) -> None:
    """Capture needs it for the WAL, a restore for its file."""
    (folder / "closed").mkdir()
    database = folder / "closed/app.db"
    with closing(sqlite3.connect(database)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(x)")
    with Replicator(database, "backup") as replicator:
        replicator.sync(timeout=60)
    shutil.rmtree(folder / "closed/.app.db-sqlitereplica")
    command = [sys.executable, "-c", PROGRAM]
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        rights = "-dac_override,-dac_read_search"
        drop = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
        if shutil.which("setpriv") is None:
            pytest.skip("root cannot give up its rights here")
        command = [*drop, *command]
    database.chmod(0o444)
    database.parent.chmod(0o555)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        database.parent.chmod(0o755)
    if done.returncode and done.stderr.startswith("setpriv"):
        pytest.skip("root cannot give up its rights here")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("cannot-open ") and "WAL mode needs" in first
    assert second.startswith(f"{folder}/closed ") and ".tmp" not in second


def test_database_in_another_journal_mode_is_switched(folder: Path) -> None:
    """Or refused, with what to do."""
    with closing(sqlite3.connect("app.db")) as db:
        db.execute("create table t(x)")
    with (
        pytest.raises(DatabaseStateError, match="WAL") as caught,
        Replicator("app.db", "backup", set_wal=False) as replicator,
    ):
        replicator.sync(timeout=60)
    assert caught.value.kind == "journal-mode"
    with Replicator("app.db", "backup") as replicator:
        replicator.sync(timeout=60)
    restore("backup", "copy.db")
