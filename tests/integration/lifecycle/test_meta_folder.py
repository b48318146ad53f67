"""The metadata folder is ours, and nothing that is not ours is deleted for it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sqlitereplica import DatabaseStateError, Replicator
from sqlitereplica.replicate import forget_metadata


def test_folder_with_other_files_is_refused(
    path: Path, db: sqlite3.Connection, replica: Path, tmp_path: Path
) -> None:
    """Such as that of the database: its ``spool`` would be emptied, ``reset`` delete all."""
    (tmp_path / "spool").mkdir()
    mail = tmp_path / "spool/mail"
    mail.write_text("precious")
    for use in (
        Replicator(path, replica, meta_path=tmp_path).start,
        lambda: forget_metadata(path, meta_path=tmp_path),
    ):
        with pytest.raises(DatabaseStateError, match="a folder of its own") as caught:
            use()
        assert caught.value.kind == "meta-folder"
    assert mail.read_text() == "precious" and path.exists()


@pytest.mark.parametrize("name", [None, "ltx", "lost+found"])
def test_folder_that_is_empty_or_as_good_is_used(
    path: Path, db: sqlite3.Connection, replica: Path, tmp_path: Path, name: str | None
) -> None:
    """A new filesystem, and the folder that Litestream's configuration names."""
    folder = tmp_path / "meta"
    folder.mkdir()
    if name is not None:
        (folder / name).mkdir()
    for _ in range(2):
        with Replicator(path, replica, meta_path=folder) as replicator:
            replicator.sync(timeout=60)


def test_what_somebody_put_there_outlives_a_reset(
    path: Path, db: sqlite3.Connection, replica: Path, tmp_path: Path
) -> None:
    """Only what is ours is deleted, and the folder if nothing is left."""
    folder = tmp_path / "meta"
    with Replicator(path, replica, meta_path=folder) as replicator:
        replicator.sync(timeout=60)
    (folder / "notes.txt").write_text("mine")
    assert forget_metadata(path, meta_path=folder) == (folder, True)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    with Replicator(path, replica, meta_path=folder) as replicator:
        replicator.sync(timeout=60)
    assert forget_metadata(path, meta_path=folder) == (folder, True)
    assert not folder.exists()
