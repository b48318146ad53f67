"""A database, a store that can be made to fail, and the Replicator between them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.capturing import make_database
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replica, Replicator


@pytest.fixture
def store() -> SwitchableFileSystem:
    """The store."""
    return SwitchableFileSystem()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The application's connection; coroutines run in other threads."""
    make_database(tmp_path / "app.db").close()
    connection = sqlite3.connect(
        tmp_path / "app.db", isolation_level=None, check_same_thread=False
    )
    yield connection
    connection.close()


@pytest.fixture
def replicator(
    tmp_path: Path, db: sqlite3.Connection, store: SwitchableFileSystem
) -> Iterator[Replicator]:
    """One that uploads only when asked."""
    with Replicator(
        tmp_path / "app.db", Replica(store, path="/r"), sync_interval=3600
    ) as replicator:
        replicator.sync()
        yield replicator
        store.heal()
