"""Which names of a folder are databases."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from sqlitereplica.group.folder import Folder

HOUR = 3_600_000_000_000


def touch(folder: Path, *names: str) -> None:
    """Make files, and the folders that they are in."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def look(folder: Path, pattern: str = "*.db", *, recursive: bool = False) -> list[str]:
    """What one look finds."""
    return sorted(Folder(str(folder), pattern, recursive=recursive).look().names)


def test_sidecars_hidden_files_and_folders_are_no_databases(tmp_path: Path) -> None:
    """By a pattern that matches all of them."""
    touch(tmp_path, "a.db", "a.db-wal", "a.db-shm", "a.db-journal", ".b.db.tmp")
    touch(tmp_path, ".a.db-sqlitereplica/lock", "sub/c.db")
    assert look(tmp_path, "*") == ["a.db"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.db", ["a.db", "ab.db"]),
        ("?.db", ["a.db"]),
        ("[^b]*.sqlite", ["a.sqlite"]),
        ("*", ["B.DB", "a.db", "a.sqlite", "ab.db", "b.sqlite"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, found: list[str]) -> None:
    """As Litestream's: of the file name, upper and lower case differ, ^ negates."""
    touch(tmp_path, "a.db", "ab.db", "a.sqlite", "b.sqlite", "B.DB")
    assert look(tmp_path, pattern) == found


def test_folders_below(tmp_path: Path) -> None:
    """Only if asked for; hidden ones and links to folders never."""
    touch(tmp_path, "a.db", "eu/b.db", "eu/fr/c.db", ".git/d.db", "x.db/e.db")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert look(tmp_path) == ["a.db"]
    assert look(tmp_path, recursive=True) == [
        "a.db",
        "eu/b.db",
        "eu/fr/c.db",
        "x.db/e.db",
    ]


def test_links_and_special_files(tmp_path: Path) -> None:
    """A link to a file counts, one to nothing is said, what is no file is left alone."""
    touch(tmp_path, "a.db")
    (tmp_path / "b.db").symlink_to("a.db")
    (tmp_path / "c.db").symlink_to("nowhere")
    (tmp_path / "d.db").symlink_to("d.db")
    (tmp_path / "f.db").mkdir()
    os.mkfifo(tmp_path / "g.db")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "h.db"))
        found = Folder(str(tmp_path), "*.db", recursive=False).look()
    assert sorted(found.names) == ["a.db", "b.db"]
    assert sorted(found.errors) == ["c.db", "d.db"]
    assert getattr(found.errors["c.db"], "kind", "") == "link"


def test_a_folder_that_did_not_change_is_not_listed_again(tmp_path: Path) -> None:
    """Once its time is old enough to tell a change."""
    touch(tmp_path, "a.db", "eu/b.db")
    now = os.stat(tmp_path).st_mtime_ns + HOUR
    folder = Folder(str(tmp_path), "*.db", recursive=True, now=lambda: now)
    assert sorted(folder.look().names) == ["a.db", "eu/b.db"]
    assert folder.look().names == []
    touch(tmp_path, "eu/c.db")
    assert sorted(folder.look().names) == ["eu/b.db", "eu/c.db"]


def test_a_folder_with_a_fresh_time_is_listed_again(tmp_path: Path) -> None:
    """A file that came in the same tick of the clock is not overlooked."""
    touch(tmp_path, "a.db")
    now = os.stat(tmp_path).st_mtime_ns
    folder = Folder(str(tmp_path), "*.db", recursive=False, now=lambda: now)
    assert folder.look().names == ["a.db"]
    touch(tmp_path, "b.db")
    os.utime(tmp_path, ns=(now, now))
    assert sorted(folder.look().names) == ["a.db", "b.db"]


def test_folders_of_a_look(tmp_path: Path) -> None:
    """All that were gone through, also those that were not listed again; a list each time."""
    touch(tmp_path, "a.db", "eu/fr/b.db", ".git/c.db")
    folder = Folder(str(tmp_path), "*.db", recursive=True)
    folder.look()
    first = folder.folders
    assert sorted(first) == ["", "eu", "eu/fr"]
    shutil.rmtree(tmp_path / "eu" / "fr")
    folder.look()
    assert sorted(first) == ["", "eu", "eu/fr"]
    assert sorted(folder.folders) == ["", "eu"]


def test_a_folder_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    """It is said of the folder itself; one below has simply no databases any more."""
    path = tmp_path / "dbs"
    touch(path, "a.db", "eu/b.db")
    folder = Folder(str(path), "*.db", recursive=True)
    assert sorted(folder.look().names) == ["a.db", "eu/b.db"]
    path.rename(tmp_path / "away")
    assert isinstance(folder.look().errors[""], FileNotFoundError)
    (tmp_path / "away").rename(path)
    (path / "eu/b.db").unlink()
    (path / "eu").rmdir()
    found = folder.look()
    assert (found.names, found.errors) == (["a.db"], {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    """It is named, and the rest is found."""
    touch(tmp_path, "a.db", "eu/b.db")
    (tmp_path / "eu").chmod(0)
    try:
        found = Folder(str(tmp_path), "*.db", recursive=True).look()
    finally:
        (tmp_path / "eu").chmod(0o755)
    assert found.names == ["a.db"]
    assert isinstance(found.errors["eu"], PermissionError)
