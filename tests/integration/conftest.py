"""A database of an application and the folder of its replica; folders below may differ."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.capturing import make_database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "app.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """The application's connection."""
    connection = make_database(path)
    yield connection
    connection.close()


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """Where the replica is."""
    return tmp_path / "replica"
