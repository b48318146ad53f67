"""SQL on a replica in place: what queries see, and what they cannot do."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from support.reading import masked, rows
from support.recording import START, Recording
from support.troubled import TroubledStore

from sqlitereplica import (
    NotRestorableError,
    Replica,
    Replicator,
    StoreError,
    connect,
    replica_uri,
)
from sqlitereplica.store import LTXStore


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """A database of several thousand pages' worth of rows in a few transactions."""
    made = Recording(tmp_path / "source.db", LTXStore.open(tmp_path / "replica"))
    made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    made.commit(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)"
        " INSERT INTO t(b) SELECT randomblob(700) FROM n"
    )
    made.commit("UPDATE t SET b = randomblob(800) WHERE id % 7 = 0")
    made.commit("DELETE FROM t WHERE id > 1500", "CREATE INDEX i ON t(b)")
    made.commit("VACUUM")
    return made


def test_every_state_is_the_database_then(recording: Recording, tmp_path: Path) -> None:
    """A connection on each transaction shows the image of that transaction."""
    for txid in range(1, recording.txid + 1):
        with closing(connect(tmp_path / "replica", txid=txid)) as connection:
            image = connection.serialize("main")
            assert masked(image) == masked(recording.images[txid])
            assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
            assert rows(connection, "PRAGMA journal_mode") == [("delete",)]


def test_time_is_given_as_for_restore(recording: Recording, tmp_path: Path) -> None:
    """By text, seconds, and the name of a pin; the state is never later."""
    replica = Replica(tmp_path / "replica")
    replica.pin("before-update", txid=2)
    for at, txid in (
        ("2023-11-14T22:13:22.500Z", 2),
        (START / 1000 + 3.001, 3),
        ("before-update", 2),
    ):
        with closing(connect(replica, at)) as connection:
            assert rows(connection, "SELECT replica_txid()") == [(txid,)]
    with pytest.raises(NotRestorableError):
        connect(replica, "520 weeks ago")
    with pytest.raises(ValueError, match="no time zone"):
        connect(replica, "2023-11-14T22:13:22")


def test_transaction_sees_one_state(recording: Recording, tmp_path: Path) -> None:
    """Within it the state stays; the next one has what came meanwhile."""
    count = "SELECT count(*) FROM t"
    with closing(connect(tmp_path / "replica", refresh=0)) as connection:
        connection.execute("BEGIN")
        assert rows(connection, count) == [(1500,)]
        recording.commit("DELETE FROM t WHERE id > 10", "VACUUM")
        assert rows(connection, count) == [(1500,)]
        assert rows(connection, "SELECT replica_txid()") == [(5,)]
        connection.execute("COMMIT")
        assert rows(connection, count) == [(10,)]
        assert rows(connection, "SELECT replica_txid()") == [(6,)]
        assert rows(connection, "PRAGMA integrity_check") == [("ok",)]


def test_change_that_leaves_the_size_is_seen(
    recording: Recording, tmp_path: Path
) -> None:
    """Pages that SQLite holds in memory are dropped, whatever else stays the same."""
    with closing(connect(tmp_path / "replica", refresh=0)) as connection:
        value = "SELECT b FROM t WHERE id = 3"
        for number in (5, 6, 7):
            recording.commit(f"UPDATE t SET b = {number} WHERE id = 3")
            assert rows(connection, value) == [(number,)]


def test_change_of_the_schema_reaches_prepared_statements(
    recording: Recording, tmp_path: Path
) -> None:
    """A statement in the cache is prepared anew when a table is another one."""
    with closing(connect(tmp_path / "replica", refresh=0)) as connection:
        everything = "SELECT * FROM t WHERE id < 3"
        assert len(rows(connection, everything)[0]) == 2
        recording.commit("ALTER TABLE t ADD COLUMN c DEFAULT 7")
        assert rows(connection, everything)[0][2] == 7
        recording.commit("DROP TABLE t", "CREATE TABLE t(id, x, y, z)")
        assert rows(connection, everything) == []


def test_two_schemas_with_one_cookie_are_told_apart(
    recording: Recording, tmp_path: Path
) -> None:
    """A database that went back and on from there has the cookie twice."""
    with closing(connect(tmp_path / "replica", refresh=0)) as connection:
        recording.commit("CREATE TABLE x(a, b)", "INSERT INTO x VALUES (1, 2)")
        assert rows(connection, "SELECT * FROM x") == [(1, 2)]
        (cookie,) = recording._database.execute("PRAGMA schema_version").fetchone()
        recording.commit(
            "DROP TABLE x",
            "CREATE TABLE other(a)",
            "CREATE TABLE x(c)",
            "INSERT INTO x VALUES (3)",
            f"PRAGMA schema_version = {cookie}",
        )
        assert rows(connection, "SELECT * FROM x") == [(3,)]


def test_difference_of_two_times_is_one_statement(
    recording: Recording, tmp_path: Path
) -> None:
    """Another time is attached by a URI, of which the replica may be in the URI."""
    where = tmp_path / "replica"
    uris = [
        replica_uri(where, txid=2),
        f"file:x?vfs=sqlitereplica&replica={where}&at=2023-11-14T22:13:22.9Z",
        f"file:y?vfs=sqlitereplica&replica={where}&txid=2&refresh=none&cache_size=99",
        f"file:z?vfs=sqlitereplica&replica={where.as_uri()}&at={START / 1000 + 2.5}",
    ]
    with closing(connect(where)) as connection:
        for number, uri in enumerate(uris):
            name = f"old{number}"
            connection.execute(f"ATTACH ? AS {name}", (uri,))
            gone = f"SELECT id FROM {name}.t EXCEPT SELECT id FROM t"
            assert len(rows(connection, gone)) == 500
            changed = f"SELECT * FROM t EXCEPT SELECT * FROM {name}.t"
            assert len(rows(connection, changed)) == 1500 // 7
            asked = f"SELECT replica_txid(), replica_txid('{name}')"
            assert rows(connection, asked) == [(5, 2)]


def test_names_of_litestream_work(recording: Recording, tmp_path: Path) -> None:
    """Pragmas and functions under both names, also for an attached schema."""
    with closing(connect(tmp_path / "replica", refresh=0)) as connection:
        connection.execute(
            "ATTACH ? AS old", (replica_uri(tmp_path / "replica", txid=2),)
        )
        assert rows(connection, "PRAGMA litestream_txid") == [("0000000000000005",)]
        assert rows(connection, "PRAGMA old.litestream_txid") == [("0000000000000002",)]
        assert rows(connection, "PRAGMA old.replica_txid") == [("2",)]
        now = "2023-11-14T22:13:25.000Z"
        names = ("litestream_txid()", "litestream_time()", "litestream_time('old')")
        got = rows(connection, f"SELECT {', '.join(names)}, replica_time()")
        assert got == [
            ("0000000000000005", now, now.replace("25.", "22."), now),
        ]
        (lag,) = rows(connection, "SELECT replica_lag(), litestream_lag()")
        assert isinstance(lag[0], float)
        assert isinstance(lag[1], int)
        connection.execute("PRAGMA litestream_time = '2023-11-14T22:13:23.5Z'")
        assert rows(connection, "SELECT replica_txid(), count(*) FROM t") == [(3, 2000)]
        rows(connection, "SELECT litestream_set_time('latest')")
        assert rows(connection, "SELECT replica_txid(), count(*) FROM t") == [(5, 1500)]
        rows(connection, "SELECT litestream_set_time('latest', 'old')")
        assert rows(connection, "SELECT replica_txid('old')") == [(5,)]
        with pytest.raises(ValueError, match="cannot be set"):
            connection.execute("PRAGMA replica_txid = 3")
        with pytest.raises(ValueError, match="no replica"):
            rows(connection, "SELECT replica_txid('temp')")


def test_time_stays_within_a_transaction(recording: Recording, tmp_path: Path) -> None:
    """A pragma cannot take a transaction to another state."""
    with closing(connect(tmp_path / "replica")) as connection:
        connection.execute("BEGIN")
        rows(connection, "SELECT count(*) FROM t")
        with pytest.raises(ValueError, match="within a transaction"):
            connection.execute("PRAGMA replica_time = '2023-11-14T22:13:23.5Z'")
        assert rows(connection, "SELECT replica_txid() FROM t LIMIT 1") == [(5,)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t(b) VALUES (1)",
        "CREATE TABLE x(a)",
        "DROP TABLE t",
        "VACUUM",
        "PRAGMA user_version = 3",
        "PRAGMA journal_mode = wal",
    ],
)
def test_writing_is_refused(recording: Recording, tmp_path: Path, sql: str) -> None:
    """SQLite says that the database is read-only, and it stays as it is."""
    with closing(connect(tmp_path / "replica")) as connection:
        if sql.endswith("wal"):
            assert rows(connection, sql) == [("delete",)]
        else:
            with pytest.raises(apsw.ReadOnlyError):
                connection.execute(sql)
        assert masked(connection.serialize("main")) == masked(recording.images[-1])


def test_large_sort_spills_to_the_disk(recording: Recording, tmp_path: Path) -> None:
    """Temporary files are real ones."""
    with closing(connect(tmp_path / "replica")) as connection:
        connection.execute("PRAGMA temp_store = file; PRAGMA cache_size = 5")
        connection.execute(
            "CREATE TEMP TABLE doubled AS SELECT * FROM t, (VALUES (1), (2))"
        )
        ordered = rows(connection, "SELECT b FROM doubled ORDER BY b, random()")
        assert len(ordered) == 3000
        assert ordered == sorted(ordered)


def test_other_databases_can_be_beside_it(recording: Recording, tmp_path: Path) -> None:
    """One in memory and a local file are written; a replica copies itself."""
    vfs = apsw.vfs_names()[0]
    local, copy = tmp_path / "local.db", tmp_path / "copy.db"
    with closing(connect(tmp_path / "replica")) as connection:
        connection.execute(
            "ATTACH ':memory:' AS m; CREATE TABLE m.x AS SELECT * FROM t"
        )
        assert rows(connection, "SELECT count(*) FROM m.x") == [(1500,)]
        connection.execute(f"ATTACH 'file:{local}?vfs={vfs}' AS l")
        connection.execute("CREATE TABLE l.x AS SELECT * FROM t")
        connection.execute(f"VACUUM main INTO 'file:{copy}?vfs={vfs}'")
        with pytest.raises(ValueError, match="needs &replica="):
            connection.execute("ATTACH ? AS bad", (str(local),))
    for path, table in ((local, "x"), (copy, "t")):
        with closing(apsw.Connection(str(path))) as connection:
            assert rows(connection, f"SELECT count(*) FROM {table}") == [(1500,)]


def test_two_local_databases_are_not_written_in_one_transaction(
    recording: Recording, tmp_path: Path
) -> None:
    """What would hold the two together, a super-journal, belongs beside the main database."""
    vfs = apsw.vfs_names()[0]
    with closing(connect(tmp_path / "replica")) as connection:
        for name in "ab":
            path = tmp_path / f"{name}.db"
            connection.execute(f"ATTACH 'file:{path}?vfs={vfs}' AS {name}")
            connection.execute(f"CREATE TABLE {name}.x(y)")
        before = sorted(os.listdir(tmp_path))
        connection.execute("BEGIN; INSERT INTO a.x VALUES (1)")
        connection.execute("INSERT INTO b.x VALUES (1)")
        with pytest.raises(apsw.CantOpenError, match="one database in a transaction"):
            connection.execute("COMMIT")
        for name in "ab":
            assert rows(connection, f"SELECT count(*) FROM {name}.x") == [(0,)]
            connection.execute(f"INSERT INTO {name}.x VALUES (1)")
        assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("page_size", [512, 8192])
def test_page_size_may_change_under_a_connection(
    tmp_path: Path, page_size: int
) -> None:
    """Who changes it begins anew with a snapshot, and an open connection goes on there."""
    path, replica = tmp_path / "app.db", tmp_path / "replica"
    with closing(sqlite3.connect(path, isolation_level=None)) as app:
        app.execute("PRAGMA journal_mode = WAL")
        app.execute("CREATE TABLE t AS SELECT randomblob(700) AS b")
        with Replicator(path, [replica]) as replicator:
            replicator.sync()
        with closing(connect(replica, refresh=0)) as connection:
            assert rows(connection, "SELECT count(*) FROM t") == [(1,)]
            app.execute("PRAGMA journal_mode = DELETE")
            app.execute(f"PRAGMA page_size = {page_size}")
            app.execute("VACUUM")
            app.execute("PRAGMA journal_mode = WAL")
            app.execute("INSERT INTO t SELECT randomblob(700) FROM t")
            with Replicator(path, [replica]) as replicator:
                replicator.sync()
            assert rows(connection, "SELECT count(*) FROM t") == [(2,)]
            assert rows(connection, "PRAGMA page_size") == [(page_size,)]
            assert rows(connection, "PRAGMA integrity_check") == [("ok",)]


def test_data_version_tells_that_the_state_moved(
    recording: Recording, tmp_path: Path
) -> None:
    """The pragma by which applications find out whether to look again."""
    with closing(connect(tmp_path / "replica", refresh=0)) as connection:
        versions = []
        for _ in range(2):
            for _ in range(2):
                rows(connection, "SELECT count(*) FROM t")
                versions += rows(connection, "PRAGMA data_version")
            recording.commit("UPDATE t SET b = 1 WHERE id = 1")
        assert versions[0] == versions[1] != versions[2] == versions[3]


def test_errors_of_the_store_come_out_as_they_are(
    recording: Recording, tmp_path: Path
) -> None:
    """Whoever queries gets the typed error, and can go on when the store is back."""
    store = TroubledStore.at(tmp_path / "replica")
    with closing(connect(store, cache_size=1)) as connection:
        rows(connection, "SELECT count(*) FROM sqlite_schema")
        store.down = True
        with pytest.raises(StoreError, match="is down"):
            rows(connection, "SELECT sum(length(b)) FROM t")
        store.down = False
        assert rows(connection, "SELECT count(*) FROM t") == [(1500,)]


def test_attaching_what_is_not_there_tells_why(tmp_path: Path) -> None:
    """The error is the one that connect raises."""
    uri = f"file:x?vfs=sqlitereplica&replica={tmp_path / 'nothing'}"
    with pytest.raises(NotRestorableError) as caught:
        connect(tmp_path / "nothing")
    assert caught.value.kind == "empty"
    connection = apsw.Connection(
        ":memory:", flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
    )
    with closing(connection), pytest.raises(NotRestorableError):
        connection.execute("ATTACH ? AS x", (uri,))


@pytest.mark.parametrize(
    "options", [{"refresh": -1}, {"cache_size": 0}, {"txid": 0}, {"at": 3, "txid": 1}]
)
def test_arguments_that_cannot_be_meant_are_refused(
    tmp_path: Path, options: dict[str, int]
) -> None:
    """Before the replica is asked."""
    with pytest.raises(ValueError):
        connect(tmp_path, **options)  # type: ignore[arg-type]


def test_nothing_is_left_when_connections_are_closed(
    recording: Recording, tmp_path: Path
) -> None:
    """Threads end, and descriptors are closed."""

    def mine() -> list[str]:
        names = [thread.name for thread in threading.enumerate()]
        return [name for name in names if name.startswith("replica-read")]

    before = len(os.listdir("/proc/self/fd"))
    connection = connect(tmp_path / "replica")
    rows(connection, "SELECT sum(length(b)) FROM t")
    connection.close()
    deadline = time.monotonic() + 60
    while mine() or len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < deadline, mine()
        time.sleep(0.01)


def test_threads_read_each_with_a_connection_of_its_own(
    recording: Recording, tmp_path: Path
) -> None:
    """Connections at all times, used at once, do not disturb each other."""
    wanted = [1, 2, 3, 4, 5] * 4

    def image(txid: int) -> bytes:
        with closing(connect(tmp_path / "replica", txid=txid)) as connection:
            assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
            return connection.serialize("main")

    with ThreadPoolExecutor(4) as pool:
        for txid, found in zip(wanted, pool.map(image, wanted), strict=True):
            assert masked(found) == masked(recording.images[txid])
