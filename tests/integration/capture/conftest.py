"""A database of an application, and a capture that is attached to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.capturing import Captured, make_database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database of a test is."""
    return tmp_path / "a.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """The application's connection."""
    connection = make_database(path)
    yield connection
    connection.close()


@pytest.fixture
def captured(db: sqlite3.Connection, path: Path) -> Iterator[Captured]:
    """A capture that is attached."""
    found = Captured(path)
    yield found
    found.close()
