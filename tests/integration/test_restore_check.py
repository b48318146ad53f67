"""SQLite's own check of what was restored."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import apsw
import apsw.bestpractice
import pytest
from support.recording import START, Recording

from sqlitereplica import ltx
from sqlitereplica.errors import InvalidFileError
from sqlitereplica.restore import restore
from sqlitereplica.store import LTXStore

PAGE_SIZE = 4096


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    """A sound database with a table and an index of several pages."""
    made = Recording(tmp_path / "source.db", LTXStore.open(tmp_path / "source"))
    made.commit("CREATE TABLE t(b)", "CREATE INDEX i ON t(b)")
    made.commit(*["INSERT INTO t VALUES (randomblob(1500))"] * 20)
    made.close()
    return made.images[-1]


def leftovers(folder: Path) -> list[str]:
    """What a restore has left beside the databases."""
    return [name for name in os.listdir(folder) if name.startswith(".")]


def damaged(image: bytes) -> bytes:
    """A database image with a page of nonsense."""
    return (
        image[:PAGE_SIZE] + b"\x0d" + b"\xff" * (PAGE_SIZE - 1) + image[2 * PAGE_SIZE :]
    )


def publish_image(store: LTXStore, image: bytes, page_size: int = PAGE_SIZE) -> None:
    """Publish bytes as a snapshot of TXID 1."""
    pages = [image[at : at + page_size] for at in range(0, len(image), page_size)]
    header = ltx.Header(
        page_size=page_size,
        commit=len(pages),
        min_txid=1,
        max_txid=1,
        timestamp=START,
    )
    data = ltx.encode(header, enumerate(pages, 1))
    store.put(9, 1, 1, data, timestamp=START)


@pytest.mark.parametrize("verify", ["quick", "full"])
def test_database_that_was_damaged_before_is_refused_by_sqlites_check(
    image: bytes, tmp_path: Path, verify: Any
) -> None:
    """A replica of a corrupt database is restored only if asked not to look."""
    store = LTXStore.open(tmp_path / "corrupt")
    image = damaged(image)
    publish_image(store, image)
    target = tmp_path / "restored.db"
    with pytest.raises(InvalidFileError) as caught:
        restore(store, target, verify=verify)
    assert caught.value.kind == "integrity"
    assert not target.exists() and leftovers(tmp_path) == []
    restore(store, target, verify=None)
    assert target.read_bytes() == image


def test_what_is_no_database_is_refused_unless_not_checked(tmp_path: Path) -> None:
    """An encrypted database looks like noise: the error says how to restore it."""
    store = LTXStore.open(tmp_path / "replica")
    noise = os.urandom(3 * PAGE_SIZE)
    publish_image(store, noise)
    with pytest.raises(InvalidFileError, match="verify=None if it is encrypted"):
        restore(store, tmp_path / "restored.db")
    restore(store, tmp_path / "restored.db", verify=None)
    assert (tmp_path / "restored.db").read_bytes() == noise


def test_pages_of_another_size_than_the_databases_are_refused(
    image: bytes, tmp_path: Path
) -> None:
    """The pages of the files are those of the database that they hold."""
    store = LTXStore.open(tmp_path / "other")
    publish_image(store, image, page_size=1024)
    with pytest.raises(InvalidFileError) as caught:
        restore(store, tmp_path / "restored.db")
    assert caught.value.kind == "page-size"


def application_database(path: Path) -> None:
    """A database whose schema needs functions and collations of its application."""
    database = sqlite3.connect(path)
    database.create_collation("folded", lambda a, b: (a.lower() > b.lower()) - 1)
    database.create_function("double", 1, lambda x: x * 2, deterministic=True)
    database.executescript(
        """
        CREATE TABLE t(a TEXT COLLATE folded PRIMARY KEY) WITHOUT ROWID;
        CREATE TABLE u(a INT CHECK (double(a) > 0), b AS (double(a)) NOT NULL);
        CREATE INDEX i ON u(b);
        INSERT INTO t VALUES ('x');
        INSERT INTO u(a) VALUES (1);
        """
    )
    database.close()


def test_quick_check_does_without_the_applications_functions(tmp_path: Path) -> None:
    """Unknown functions and collations do not stand in the way of a restore."""
    application_database(tmp_path / "source.db")
    store = LTXStore.open(tmp_path / "replica")
    publish_image(store, (tmp_path / "source.db").read_bytes())
    restore(store, tmp_path / "restored.db")
    with pytest.raises(InvalidFileError, match="pass verify='quick'") as caught:
        restore(store, tmp_path / "other.db", verify="full")
    assert caught.value.kind == "unchecked"


def test_check_works_under_apsws_best_practice(
    image: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hooks that an application puts on every apsw connection do not disturb."""
    monkeypatch.setattr(apsw, "connection_hooks", [])
    apsw.bestpractice.apply(
        [p for p in apsw.bestpractice.recommended if p.__name__ != "library_logging"]
    )
    store = LTXStore.open(tmp_path / "replica")
    publish_image(store, image)
    restore(store, tmp_path / "restored.db", verify="full")
    assert (tmp_path / "restored.db").read_bytes() == image
