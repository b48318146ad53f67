"""The diary's own tests, which use the fixtures of the plugin."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from diary import Diary, NotSafeError

from sqlitereplica import restore
from sqlitereplica.testing import only


def test_entry_is_in_the_backup_when_write_returns(tmp_path, replica_store):
    """The backup has the entry at once."""
    with Diary(tmp_path / "diary.db", replica_store.replica) as diary:
        diary.write("monday", "rain")
        restore(replica_store.replica, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("select * from entry").fetchall() == [("monday", "rain")]


def test_diary_is_the_same_on_a_new_machine(tmp_path, replica_store):
    """A diary whose file is lost comes back."""
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    with Diary(tmp_path / "old" / "diary.db", replica_store.replica) as diary:
        diary.write("monday", "rain")
    with Diary(tmp_path / "new" / "diary.db", replica_store.replica) as diary:
        assert diary.read("monday") == ["rain"]


def test_entry_that_is_not_safe_is_told(tmp_path, faulty_store):
    """While the backup is away, write says so; later the entry is there all the same."""
    with Diary(tmp_path / "diary.db", faulty_store.replica) as diary:
        diary.write("monday", "rain")
        faulty_store.plan = only("write")
        with pytest.raises(NotSafeError):
            diary.write("tuesday", "sun", patience=0.1)
        faulty_store.heal()
        diary.write("tuesday", "clouds")
        assert diary.read("tuesday") == ["sun", "clouds"]
    files = faulty_store.files(0)
    assert [file.max_txid for file in files] == list(range(1, len(files) + 1))


def test_database_of_the_fixture_survives_its_machine(replicated_db):
    """The fixture's database is lost and recovered."""
    replicated_db.execute("create table t(x)")
    replicated_db.execute("insert into t values(?)", ["kept"])
    replicated_db.sync()
    replicated_db.lose()
    assert not replicated_db.path.exists()
    replicated_db.recover()
    assert replicated_db.execute("select x from t") == [("kept",)]
    replicated_db.execute("insert into t values('new')")
    replicated_db.sync()
    with closing(sqlite3.connect(replicated_db.restored())) as copy:
        assert copy.execute("select x from t").fetchall() == [("kept",), ("new",)]
