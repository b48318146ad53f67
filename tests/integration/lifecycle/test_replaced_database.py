"""A database that is replaced by ``mv`` while it is replicated, WAL and all.

SQLite keeps a WAL as long as anybody has the database open, and a Replicator always has. A
file that is moved over the database is then beside the WAL of the old one, whose pages SQLite
would take for the new one's. So the Replicator, which is why it is there, takes it away.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.capturing import digest, serialized
from support.commandline import eventually

from sqlitereplica import DatabaseStateError, Replicator, restore
from sqlitereplica.events import Event

WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("begin"); db.execute("select * from t").fetchall()
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a database."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as db, db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(id integer primary key, v)")
    return tmp_path


@pytest.fixture
def events() -> list[Event]:
    """What the Replicator told."""
    return []


@pytest.fixture
def replicator(folder: Path, events: list[Event]) -> Iterator[Replicator]:
    """Of that."""
    replicator = Replicator(
        folder / "app.db",
        folder / "replica",
        sync_interval=0.02,
        observer=events.append,
    )
    replicator.start()
    yield replicator
    replicator.stop()


def fill(path: Path, rows: int) -> None:
    """Commit rows, one by one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for _ in range(rows):
            db.execute("insert into t(v) values(hex(randomblob(1500)))")


def migrated(folder: Path) -> Path:
    """What is in the replica, changed on every page, with other pages than before."""
    new = folder / "new.db"
    restore(folder / "replica", new, if_exists="replace")
    with closing(sqlite3.connect(new)) as db:
        with db:
            db.execute("update t set v = 'x' || rowid")
            db.execute("create table u as select id, hex(randomblob(900)) as w from t")
            db.execute("create index ui on u(w)")
        db.execute("pragma wal_checkpoint(truncate)")
    return new


def is_sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong."""
    with closing(sqlite3.connect(path)) as db:
        return bool(db.execute("pragma integrity_check").fetchall() == [("ok",)])


def let_it_be_noticed(events: list[Event]) -> None:
    """Wait until the Replicator has the new file, without opening that."""

    def attached() -> bool:
        return sum(event.action == "attach" for event in events) > 1

    eventually(attached, "the new file")


@pytest.mark.parametrize("rows", [1, 200])
def test_moved_over_the_database_at_rest(
    folder: Path, replicator: Replicator, events: list[Event], rows: int
) -> None:
    """Nobody else has it open: as simple as it looks, and the chain goes on."""
    database = folder / "app.db"
    fill(database, rows)
    replicator.sync()
    before = replicator.status().txid
    new = migrated(folder)
    expected = digest(new.read_bytes())
    os.replace(new, database)
    let_it_be_noticed(events)
    assert is_sound(database) and digest(serialized(database)) == expected
    fill(database, 3)
    replicator.sync()
    assert is_sound(database)
    restore(folder / "replica", folder / "copy.db")
    assert digest((folder / "copy.db").read_bytes()) == digest(serialized(database))
    levels = sorted((folder / "replica/ltx/0").iterdir())
    assert replicator.status().txid > before
    assert levels[-1].name.startswith(f"{replicator.status().txid:016x}")


def test_moved_over_a_database_that_others_still_read(
    folder: Path, replicator: Replicator, events: list[Event]
) -> None:
    """They go on with the old file, undisturbed; who opens it now gets the new one."""
    database = folder / "app.db"
    fill(database, 50)
    replicator.sync()
    new = migrated(folder)
    expected = digest(new.read_bytes())
    reader = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        os.replace(new, database)
        let_it_be_noticed(events)
        assert is_sound(database) and digest(serialized(database)) == expected
        fill(database, 3)
        replicator.sync()
        reader.communicate("\n", timeout=60)
    assert reader.returncode == 0
    assert is_sound(database)
    restore(folder / "replica", folder / "copy.db")
    assert digest((folder / "copy.db").read_bytes()) == digest(serialized(database))


def test_sync_after_a_move_is_of_the_new_file(
    folder: Path, replicator: Replicator
) -> None:
    """One that was on its way may fail by name; the next is of what is there now."""
    database = folder / "app.db"
    fill(database, 20)
    replicator.sync()
    new = migrated(folder)
    expected = digest(new.read_bytes())
    os.replace(new, database)

    kinds: set[str] = set()

    def durable() -> bool:
        try:
            replicator.sync()
        except DatabaseStateError as error:
            kinds.add(error.kind)
            return False
        return True

    eventually(durable, "sync")
    assert kinds <= {"replaced", "busy"}
    restore(folder / "replica", folder / "copy.db")
    assert digest((folder / "copy.db").read_bytes()) == expected
    assert is_sound(database)
