"""A branch becomes a plain database while it is used, and is replicated like one."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from support.reading import rows
from support.recording import Recording
from support.troubled import TroubledStore
from support.workers import until

from sqlitereplica import (
    DatabaseStateError,
    Replicator,
    StoreError,
    TargetExistsError,
    branch,
    restore,
)
from sqlitereplica.reading.branchmap import map_path
from sqlitereplica.reading.view import View
from sqlitereplica.store import LTXStore

TESTS = Path(__file__).parents[2]
FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 400)"
    " INSERT INTO t(b) SELECT randomblob(3000) FROM n"
)


@pytest.fixture(params=["wal", "delete"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recording]:
    """A replica; branches of it begin in one of the journal modes."""
    made = Recording(tmp_path / "source.db", LTXStore.open(tmp_path / "replica"))
    made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    made.commit(FILL)
    if request.param == "delete":
        made.commit("PRAGMA journal_mode = delete")
    yield made
    made.close()


def test_pages_that_are_written_while_they_are_fetched_stay(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a connection that changes and checkpoints them at that very moment."""
    with branch(tmp_path / "replica", tmp_path / "b.db") as made:
        with branch(tmp_path / "replica", tmp_path / "b.db") as other:
            connection, real, done = other.connect(), View.read, list[int]()

            def read(view: View, pgno: int) -> bytes:
                page = real(view, pgno)
                # Any page of the table; and nothing of it is left in the WAL.
                by_finisher = threading.current_thread() is finisher
                if by_finisher and pgno == 100 and not done:
                    done.append(pgno)
                    connection.execute("UPDATE t SET b = 'mine'")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return page

            monkeypatch.setattr(View, "read", read)
            finisher = threading.Thread(target=made.finish)
            finisher.start()
            finisher.join()
            assert done
            count = "SELECT count(*) FROM t WHERE b = 'mine'"
            assert rows(connection, count) == [(400,)]
            assert made.is_finished
            connection.execute("INSERT INTO t(b) VALUES ('mine')")
            assert rows(made.connect(), count) == [(401,)]
            assert rows(made.connect(), "PRAGMA integrity_check") == [("ok",)]
    with closing(sqlite3.connect(tmp_path / "b.db")) as plain:
        assert plain.execute(count).fetchone() == (401,)
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)


WRITER = """
import sys, json, random
from sqlitereplica import branch
made = branch(sys.argv[1], sys.argv[2])
connection = made.connect()
connection.set_busy_timeout(60000)
rng, n = random.Random("writer"), 0
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0)[0] or n < 20:
    n += 1
    with connection:
        connection.execute("INSERT INTO mine VALUES (?, randomblob(?))", (n, rng.randrange(9000)))
        connection.execute("UPDATE t SET b = ? WHERE id % 40 = ?", (f"{n}", n % 40))
    connection.execute("PRAGMA wal_checkpoint(" + rng.choice(("PASSIVE", "TRUNCATE")) + ")").get
print(json.dumps([n, made.is_finished]), flush=True)
"""


def test_another_process_goes_on_writing_while_it_is_finished(
    recording: Recording, tmp_path: Path
) -> None:
    """Nothing of what it commits before, meanwhile and after is lost."""
    path = tmp_path / "b.db"
    with branch(tmp_path / "replica", path) as made:
        made.connect().execute("CREATE TABLE mine(n INTEGER PRIMARY KEY, v)")
        command = [sys.executable, "-c", WRITER, str(tmp_path / "replica"), str(path)]
        writer = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=TESTS
        )
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            made.finish()
            told, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
    count, finished = json.loads(told)
    assert finished and not map_path(path).exists()
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = plain.execute("SELECT count(*), max(n) FROM mine").fetchone()
        assert found == (count, count)
        found = plain.execute("SELECT count(*) FROM t WHERE b = ?", (f"{count}",))
        assert found.fetchone() == (10,)


def test_replicator_of_a_branch_finishes_it_first(
    recording: Recording, tmp_path: Path
) -> None:
    """With connections of the branch at work; its replica is one of its own."""
    path, own = tmp_path / "b.db", tmp_path / "own"
    with branch(tmp_path / "replica", path) as made:
        connection = made.connect()
        connection.execute("UPDATE t SET b = 'mine' WHERE id = 1")
        assert made.pages[0] < made.pages[1]
        with Replicator(made, own, connect=apsw.Connection) as replicator:
            assert made.is_finished
            connection.execute("UPDATE t SET b = 'mine' WHERE id = 2")
            replicator.sync(60)
            made.connect().execute("UPDATE t SET b = 'mine' WHERE id = 3")
            replicator.sync(60)
            assert replicator.database == str(path)
    restore(own, tmp_path / "restored.db")
    with closing(sqlite3.connect(tmp_path / "restored.db")) as plain:
        found = plain.execute("SELECT id FROM t WHERE b = 'mine' ORDER BY id")
        assert found.fetchall() == [(1,), (2,), (3,)]
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(LTXStore.open(tmp_path / "replica").list_all()) == recording.txid


def test_replicator_of_a_branch_whose_replica_is_away_does_not_start(
    recording: Recording, tmp_path: Path
) -> None:
    """Start raises, the branch stays as it is, and the next start goes on."""
    store = TroubledStore.at(tmp_path / "replica")
    made = branch(store, tmp_path / "b.db")
    replicator = Replicator(made, tmp_path / "own")
    store.down = True
    with pytest.raises(StoreError):
        replicator.start()
    assert replicator.status().state == "stopped"
    assert not made.is_finished
    store.down = False
    with replicator:
        replicator.sync(60)
    restore(tmp_path / "own", tmp_path / "restored.db")


def test_replicator_of_its_path_says_what_to_do_and_goes_on_when_it_is_finished(
    recording: Recording, tmp_path: Path
) -> None:
    """A file with holes is never replicated; no state of it is taken for the database."""
    made = branch(tmp_path / "replica", tmp_path / "b.db")
    with Replicator(
        tmp_path / "b.db", tmp_path / "own", connect=apsw.Connection
    ) as replicator:
        with pytest.raises(DatabaseStateError, match=r"finish\(\)") as caught:
            replicator.sync(30)
        assert caught.value.kind == "branch"
        assert not (tmp_path / "own" / "ltx").exists()
        made.finish()
        until(lambda: replicator.status().error is None)
        replicator.sync(60)
    restore(tmp_path / "own", tmp_path / "restored.db")
    with closing(sqlite3.connect(tmp_path / "restored.db")) as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (400,)


LOOK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
try:
    db.execute("begin immediate")
except sqlite3.OperationalError:
    print("locked")
"""


def test_database_at_the_path_is_refused_without_harm_to_its_locks(
    recording: Recording, tmp_path: Path
) -> None:
    """The application has it open here, and is in the middle of a transaction."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("create table t(v)")
        db.execute("begin immediate")
        with pytest.raises(TargetExistsError):
            branch(tmp_path / "replica", path)
        command = [sys.executable, "-c", LOOK, str(path)]
        assert subprocess.check_output(command) == b"locked\n"
        db.execute("rollback")


def test_page_map_that_was_just_taken_away_is_no_error(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one finishes the branch between two looks of who opens it."""
    made = branch(tmp_path / "replica", tmp_path / "b.db")
    real: Any = Path.exists

    def exists(path: Path) -> bool:
        found = bool(real(path))
        if found and path == map_path(made.path) and not finished:
            finished.append(True)
            made.finish()
        return found

    finished: list[bool] = []
    uri = made.uri()
    monkeypatch.setattr(Path, "exists", exists)
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(uri, flags=flags)) as connection:
        assert rows(connection, "SELECT count(*) FROM t") == [(400,)]
    assert finished and os.path.exists(made.path)
