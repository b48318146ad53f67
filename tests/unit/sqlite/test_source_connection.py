"""A connection to the source is ours to set up, whatever the application's factory does."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from support.capturing import digest, make_database, serialized
from support.lifetime import restored

from sqlitereplica import Replicator


def as_dictionaries(path: str) -> sqlite3.Connection:
    """Rows as many applications like them, text as bytes."""
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    connection.row_factory = lambda cursor, row: {
        column[0]: value for column, value in zip(cursor.description, row, strict=True)
    }
    return connection


def as_named(path: str) -> sqlite3.Connection:
    """Rows of the standard library's own kind."""
    connection = sqlite3.connect(path, isolation_level="IMMEDIATE")
    connection.row_factory = sqlite3.Row
    return connection


def always_in_a_transaction(path: str) -> sqlite3.Connection:
    """PEP 249 to the letter, which Python knows from 3.12 on."""
    options: dict[str, Any] = {"autocommit": False}
    return sqlite3.connect(path, **options)


def by_apsw(path: str) -> apsw.Connection:
    """Rows as dictionaries, with the other module."""
    connection = apsw.Connection(path)
    connection.row_trace = lambda cursor, row: dict(
        zip([d[0] for d in cursor.description], row, strict=True)
    )
    return connection


@pytest.mark.parametrize(
    "connect",
    [
        as_dictionaries,
        as_named,
        by_apsw,
        pytest.param(
            always_in_a_transaction,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 12), reason="before Python 3.12"
            ),
        ),
    ],
)
def test_factory_may_shape_rows_and_transactions(connect: Any, tmp_path: Path) -> None:
    """What it sets for the application's convenience does not reach our own queries."""
    path, replica = tmp_path / "app.db", tmp_path / "replica"
    make_database(path).close()
    with Replicator(path, replica, connect=connect) as replicator:
        app = connect(str(path))
        app.execute("insert into t(v) values('one')")
        if isinstance(app, sqlite3.Connection):
            app.commit()
        app.close()
        replicator.sync()
    assert digest(restored(replica)) == digest(serialized(path))
