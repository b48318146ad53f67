"""Branches: writable copies of a state whose pages are fetched when they are needed."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from fsspec.callbacks import Callback
from support.reading import rows
from support.recording import Recording
from support.troubled import TroubledStore

from sqlitereplica import (
    InvalidFileError,
    NotRestorableError,
    Replicator,
    StoreError,
    TargetExistsError,
    branch,
    connect,
    restore,
)
from sqlitereplica.reading.branchmap import map_path
from sqlitereplica.store import LTXStore

TESTS = Path(__file__).parents[2]
FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1500)"
    " INSERT INTO t(b) SELECT randomblob(700) FROM n"
)


@pytest.fixture(params=["wal", "delete"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recording]:
    """A replica; branches of it begin in one of the journal modes."""
    made = Recording(tmp_path / "source.db", LTXStore.open(tmp_path / "replica"))
    made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    made.commit(FILL)
    made.commit("CREATE INDEX i ON t(b)", "DELETE FROM t WHERE id % 10 = 3")
    if request.param == "delete":
        made.commit("PRAGMA journal_mode = delete")
    yield made
    made.close()


def test_branch_is_the_state_and_its_changes_are_its_own(
    recording: Recording, tmp_path: Path
) -> None:
    """It is read and written like any database; the replica stays as it is."""
    files = {f.name: recording.store.get(f) for f in recording.store.list_all()}
    with branch(tmp_path / "replica", tmp_path / "b.db") as made:
        connection = made.connect()
        assert rows(connection, "SELECT count(*) FROM t") == [(1350,)]
        with connection:
            connection.execute("DELETE FROM t WHERE id > 100")
            connection.execute("ALTER TABLE t ADD COLUMN c DEFAULT 5")
        connection.execute("BEGIN; DELETE FROM t; ROLLBACK")
        assert rows(connection, "SELECT count(*), sum(c) FROM t") == [(90, 450)]
        assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
    assert files == {f.name: recording.store.get(f) for f in recording.store.list_all()}


def test_branch_is_compared_with_its_replica(
    recording: Recording, tmp_path: Path
) -> None:
    """Attached to a connection on the replica, in one statement."""
    with branch(tmp_path / "replica", tmp_path / "b.db") as made:
        made.connect().execute("UPDATE t SET b = 'mine' WHERE id < 10")
        with closing(connect(tmp_path / "replica")) as connection:
            connection.execute("ATTACH ? AS b", (made.uri(),))
            mine = "SELECT id FROM b.t EXCEPT SELECT id FROM main.t WHERE b <> 'mine'"
            assert rows(connection, mine) == []
            changed = "SELECT count(*) FROM (SELECT * FROM b.t EXCEPT SELECT * FROM t)"
            assert rows(connection, changed) == [(8,)]


def test_only_pages_that_are_needed_are_fetched(
    recording: Recording, tmp_path: Path
) -> None:
    """Opening and one query leave nearly all of it in the replica."""
    with branch(tmp_path / "replica", tmp_path / "b.db") as made:
        with closing(made.connect()) as connection:
            rows(connection, "SELECT b FROM t WHERE id = 700")
        here, total = made.pages
        assert total == len(recording.pages(recording.txid)) > 200
        assert 1 < here < 10
        status = os.stat(made.path)
        assert status.st_size == total * 4096
        assert status.st_blocks * 512 < total * 2048


def test_branch_is_opened_again_with_what_was_done(
    recording: Recording, tmp_path: Path
) -> None:
    """Written pages stay, and so do those that were cut off and grew again."""
    for number in range(4):
        with branch(tmp_path / "replica", tmp_path / "b.db") as made:
            connection = made.connect()
            assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
            if number:
                count = rows(connection, "SELECT count(*) FROM t WHERE id < 100")
                assert count == [(number,)]
            connection.execute("DELETE FROM t")
            connection.execute("VACUUM")
            connection.execute(FILL)
            connection.execute("DELETE FROM t WHERE id > ?", (number + 1,))


def test_branch_in_a_notebook_says_how_much_is_here(
    recording: Recording, tmp_path: Path
) -> None:
    """Its file, the transaction, and the pages that are local, escaped."""
    with branch(tmp_path / "replica", tmp_path / "<b>.db") as made:
        html = made._repr_html_()
        assert "&lt;b&gt;.db" in html and f"{made.pages[0]} of {made.pages[1]}" in html
        made.finish()
        assert "all: it is a plain database" in made._repr_html_()


def test_time_of_a_branch_is_given_as_for_restore(
    recording: Recording, tmp_path: Path
) -> None:
    """An earlier state can be changed, too."""
    with branch(tmp_path / "replica", tmp_path / "b.db", txid=2) as made:
        assert made.txid == 2
        assert rows(made.connect(), "SELECT count(*) FROM t") == [(1500,)]
    at = "2023-11-14T22:13:22.5Z"
    with branch(tmp_path / "replica", tmp_path / "c.db", at) as made:
        assert made.txid == 2


def test_same_statements_make_the_same_database(
    recording: Recording, tmp_path: Path
) -> None:
    """Whatever is done in whatever order, the bytes are those of a restored copy."""
    for seed in range(3):
        rng = random.Random(seed)
        path, copy = tmp_path / f"b{seed}.db", tmp_path / f"c{seed}.db"
        restore(tmp_path / "replica", copy)
        plain = apsw.Connection(str(copy))
        made = branch(tmp_path / "replica", path)
        connection = made.connect()
        for _ in range(40):
            what, values = statement(rng)
            for each in (connection, plain):
                each.execute(what, values)
            if rng.random() < 0.2 and connection.in_transaction is False:
                connection.close()
                made.close()
                made = branch(tmp_path / "replica", path)
                connection = made.connect()
                plain.close()
                plain = apsw.Connection(str(copy))
            if rng.random() < 0.2 and connection.in_transaction is False:
                assert connection.serialize("main") == plain.serialize("main")
        for each in (connection, plain):
            if each.in_transaction:
                each.execute("COMMIT")
        plain.close()
        made.finish()
        made.close()
        assert path.read_bytes() == copy.read_bytes()


def test_what_was_cut_off_is_gone(recording: Recording, tmp_path: Path) -> None:
    """Pages that grow again and are never written are empty, as in any database."""
    path, copy = tmp_path / "b.db", tmp_path / "copy.db"
    recording.commit("DELETE FROM t WHERE id > 300")  # pages that nobody reads again
    restore(tmp_path / "replica", copy)
    with (
        branch(tmp_path / "replica", path) as made,
        closing(apsw.Connection(str(copy))) as plain,
    ):
        for each in (made.connect(), plain):
            each.execute("DELETE FROM t")
            each.execute("VACUUM")
            each.execute("BEGIN")
            each.execute("INSERT INTO t VALUES (1, zeroblob(400000)), (2, 'end')")
            each.execute("CREATE TABLE behind AS SELECT * FROM t WHERE id = 2")
            each.execute("DELETE FROM t WHERE id = 1")
            each.execute("COMMIT")
        made.finish()
    assert path.read_bytes() == copy.read_bytes()


def statement(rng: random.Random) -> tuple[str, tuple[object, ...]]:
    """Something to do, the same whoever does it."""
    number = rng.randrange(1, 2000)
    return rng.choice(
        [
            ("INSERT INTO t(b) VALUES (?)", (rng.randbytes(rng.randrange(20_000)),)),
            ("DELETE FROM t WHERE id BETWEEN ? AND ?", (number, number + 200)),
            ("UPDATE t SET b = ? WHERE id % 97 = ?", (rng.randbytes(300), number % 97)),
            ("SELECT sum(length(b)) FROM t WHERE id < ?", (number,)),
            (
                "SAVEPOINT s; DELETE FROM t WHERE id % 3 = 0; ROLLBACK TO s; RELEASE s",
                (),
            ),
            ("BEGIN IMMEDIATE; DELETE FROM t; ROLLBACK", ()),
            ("VACUUM", ()),
            ("PRAGMA wal_checkpoint(TRUNCATE)", ()),
            ("REINDEX", ()),
        ]
    )


def test_other_page_size_is_written_in_parts(
    recording: Recording, tmp_path: Path
) -> None:
    """Pages smaller or larger than those of the replica are right, also when opened anew."""
    recording.commit("DELETE FROM t WHERE id < 700")  # pages that nobody reads again
    for size in (1024, 16384):
        path = tmp_path / f"b{size}.db"
        with branch(tmp_path / "replica", path) as made:
            connection = made.connect()
            connection.execute("PRAGMA journal_mode = delete")
            connection.execute(f"PRAGMA page_size = {size}")
            connection.execute("VACUUM")
        with branch(tmp_path / "replica", path) as made:
            connection = made.connect()
            assert rows(connection, "PRAGMA page_size") == [(size,)]
            assert rows(connection, "SELECT count(*) FROM t") == [(721,)]
            assert rows(connection, "PRAGMA integrity_check") == [("ok",)]


def test_no_other_sqlite_takes_it_for_a_database(
    recording: Recording, tmp_path: Path
) -> None:
    """Until it is finished, the file with holes is refused."""
    path = tmp_path / "b.db"
    with branch(tmp_path / "replica", path) as made:
        made.connect().execute("UPDATE t SET b = 1 WHERE id = 1")
    with closing(sqlite3.connect(path)) as connection:
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            connection.execute("SELECT * FROM t")
    uri = f"file:{path}?vfs=sqlitereplica-branch"
    with pytest.raises(ValueError, match="is a branch"):
        apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI)


def test_finished_branch_is_a_database_that_can_be_replicated(
    recording: Recording, tmp_path: Path
) -> None:
    """It has nothing of ours any more, and a replica of its own if wanted."""
    path, told = tmp_path / "b.db", Callback()
    with branch(tmp_path / "replica", path) as made:
        made.connect().execute("UPDATE t SET b = 'mine' WHERE id = 1")
        assert made.finish(told) == path
        assert made.is_finished
        assert made.finish() == path
    assert 0 < told.value <= told.size
    assert not map_path(path).exists()
    with pytest.raises(TargetExistsError):
        branch(tmp_path / "replica", path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with Replicator(path, tmp_path / "own") as replicator:
            replicator.sync()
        found = "SELECT b FROM t WHERE id = 1"
        assert connection.execute(found).fetchone() == ("mine",)
    restore(tmp_path / "own", tmp_path / "restored.db")
    with closing(sqlite3.connect(tmp_path / "restored.db")) as connection:
        assert connection.execute(found).fetchone() == ("mine",)


def test_what_is_there_is_not_replaced(recording: Recording, tmp_path: Path) -> None:
    """Another file, a branch of another state, one of another replica."""
    path = tmp_path / "b.db"
    with pytest.raises(TargetExistsError):
        branch(tmp_path / "replica", tmp_path / "source.db")
    wal = tmp_path / "moved.db-wal"
    wal.write_bytes(b"of a database that was moved away")
    with pytest.raises(TargetExistsError, match="move it away"):
        branch(tmp_path / "replica", tmp_path / "moved.db")
    assert wal.exists()
    branch(tmp_path / "replica", path, txid=2)
    assert branch(tmp_path / "replica", path).txid == 2
    assert branch(tmp_path / "replica", path, txid=2).txid == 2
    with pytest.raises(TargetExistsError, match="of transaction 2"):
        branch(tmp_path / "replica", path, txid=3)
    other = LTXStore.open(tmp_path / "other")
    for file in recording.store.list_level(0):
        data = recording.store.get(file)
        other.put(0, file.min_txid, file.max_txid, data, timestamp=file.timestamp)
    with pytest.raises(TargetExistsError, match="another replica"):
        branch(tmp_path / "other", path)


def test_branch_that_was_not_made_to_the_end_is_made_anew(
    recording: Recording, tmp_path: Path
) -> None:
    """Killed before there was a map, the file is nobody's."""
    path = tmp_path / "b.db"
    branch(tmp_path / "replica", path)
    map_path(path).rename(f"{map_path(path)}.tmp")
    with branch(tmp_path / "replica", path) as made:
        assert rows(made.connect(), "SELECT count(*) FROM t") == [(1350,)]


def test_damaged_map_is_refused(recording: Recording, tmp_path: Path) -> None:
    """What the map says is believed only with its checksum and its size."""
    path = tmp_path / "b.db"
    branch(tmp_path / "replica", path)
    data = map_path(path).read_bytes()
    for bad in (data[:40], data[:-1], b"x" + data[1:], data[:20] + b"x" + data[21:]):
        map_path(path).write_bytes(bad)
        with pytest.raises(InvalidFileError) as caught:
            branch(tmp_path / "replica", path)
        assert caught.value.kind == "branch"


def test_errors_of_the_replica_come_out_and_the_branch_stays(
    recording: Recording, tmp_path: Path
) -> None:
    """A page that cannot be fetched fails the statement, and nothing else."""
    store = TroubledStore.at(tmp_path / "replica")
    with branch(store, tmp_path / "b.db") as made:
        connection = made.connect()
        store.down = True
        with pytest.raises(StoreError):
            connection.execute("UPDATE t SET b = 2")
        store.down = False
        connection.execute("UPDATE t SET b = 2 WHERE id < 50")
        assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
    store.delete(store.list_all())
    with branch(store, tmp_path / "b.db") as made:
        with pytest.raises(NotRestorableError):
            made.connect()


WORK = """
import sys
from sqlitereplica import branch
made = branch(sys.argv[1], sys.argv[2])
connection = made.connect()
connection.execute("PRAGMA synchronous = %s" % sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
number = connection.execute("SELECT coalesce(max(n), 0) FROM done").get
while True:
    number += 1
    with connection:
        connection.execute("INSERT INTO done VALUES (?)", (number,))
        connection.execute(
            "UPDATE t SET b = randomblob(2000 * (random() & 3)) WHERE id % 50 = ?",
            (number % 50,),
        )
        if number % 7 == 0:
            connection.execute("DELETE FROM t WHERE id > 1400 - ?", (number,))
    if number % 11 == 0:
        connection.execute("VACUUM")
    print(number, flush=True)
"""


def test_killed_process_leaves_a_whole_branch(
    recording: Recording, tmp_path: Path
) -> None:
    """What was committed is there after SIGKILL at any moment, and nothing by halves."""
    is_wal = recording.images[-1][18] == 2
    synchronous = "full" if is_wal else "off"  # as safe, unless the power is cut
    path, rng = tmp_path / "b.db", random.Random(5)
    with branch(tmp_path / "replica", path) as made:
        made.connect().execute("CREATE TABLE done(n)")
    for _ in range(3):
        arguments = [str(tmp_path / "replica"), str(path), synchronous]
        with subprocess.Popen(
            [sys.executable, "-c", WORK, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS.parent,
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.stdin.write("go\n")
            child.stdin.flush()
            last = ""
            for _ in range(rng.randrange(1, 30)):
                last = child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            last = (child.stdout.read().splitlines() or [last])[-1]
        with branch(tmp_path / "replica", path) as made:
            connection = made.connect()
            assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
            ((found, count),) = rows(connection, "SELECT max(n), count(*) FROM done")
            assert found == count
            assert found in (int(last), int(last) + 1)


def test_processes_write_to_one_branch_in_turn(
    recording: Recording, tmp_path: Path
) -> None:
    """Each sees what the others wrote; no fetched page takes the place of a written one."""
    path = tmp_path / "b.db"
    count = """
import sys
from sqlitereplica import branch
with branch(sys.argv[1], sys.argv[2]) as made:
    connection = made.connect()
    connection.set_busy_timeout(60_000)
    for number in range(30):
        with connection:
            connection.execute("UPDATE done SET n = n + 1")
        grow = "UPDATE t SET b = CAST(b || 'x' AS BLOB) WHERE id = ?"
        connection.execute(grow, (number * 40 + 1,))
        connection.execute("SELECT sum(length(b)) FROM t WHERE id < ?", (number * 40,))
"""
    with branch(tmp_path / "replica", path) as made:
        made.connect().execute("CREATE TABLE done(n); INSERT INTO done VALUES (0)")
    command = [sys.executable, "-c", count, str(tmp_path / "replica"), str(path)]
    children = [subprocess.Popen(command, cwd=TESTS.parent) for _ in range(3)]
    assert [child.wait(120) for child in children] == [0, 0, 0]
    with branch(tmp_path / "replica", path) as made:
        connection = made.connect()
        assert rows(connection, "SELECT n FROM done") == [(90,)]
        assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
        lengths = "SELECT length(b), count(*) FROM t GROUP BY 1"
        grown = sum(1 for n in range(30) if (n * 40 + 1) % 10 != 3)
        assert rows(connection, lengths) == [(700, 1350 - grown), (703, grown)]
