"""A capture that is attached to the database of an application."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.capturing import Captured


@pytest.fixture
def captured(db: sqlite3.Connection, path: Path) -> Iterator[Captured]:
    """A capture that is attached."""
    found = Captured(path)
    yield found
    found.close()
