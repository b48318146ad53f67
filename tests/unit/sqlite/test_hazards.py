"""Another copy of SQLite on a file is told from our own that is just being opened."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from support.capturing import make_database

from sqlitereplica.errors import MixedSQLiteCopiesError
from sqlitereplica.sqlite.hazards import check_before_open


def test_connection_that_another_thread_opens_is_not_another_copy(
    tmp_path: Path,
) -> None:
    """The file is open before apsw knows of the connection, and after it forgot it."""
    path = str(tmp_path / "a.db")
    make_database(tmp_path / "a.db").close()
    done = threading.Event()

    def open_and_close() -> None:
        while not done.is_set():
            connection = apsw.Connection(path)
            connection.execute("select * from t").fetchall()
            connection.close()

    thread = threading.Thread(target=open_and_close)
    thread.start()
    try:
        for _ in range(2000):
            check_before_open(path, "apsw")
    finally:
        done.set()
        thread.join()


def test_connection_of_the_other_copy_is_refused(tmp_path: Path) -> None:
    """It stays open, however often it is looked at."""
    path = tmp_path / "a.db"
    with (
        closing(make_database(path)),
        pytest.raises(MixedSQLiteCopiesError, match="another copy"),
    ):
        check_before_open(str(path), "apsw")
    with (
        closing(apsw.Connection(str(path))),
        pytest.raises(MixedSQLiteCopiesError, match="apsw"),
    ):
        check_before_open(str(path), "sqlite3")
    with closing(sqlite3.connect(path)):
        check_before_open(str(path), "sqlite3")
