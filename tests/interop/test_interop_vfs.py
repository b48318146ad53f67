"""Replicas read in place: Litestream's by us, ours by Litestream's VFS."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.lifetime import await_true
from support.litestream import Litestream
from support.litestreamvfs import query_by_litestream
from support.places import Place, only_litestream_checkpoints
from support.reading import masked, rows

from sqlitereplica import branch, connect, diff
from sqlitereplica.restore import reachable_txids

if TYPE_CHECKING:
    from support.servers import S3Server

pytestmark = pytest.mark.interop

DIGEST = "SELECT count(*), sum(length(b)), sum(unicode(hex(b))), max(id) FROM t"
STEPS = (
    "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
    "INSERT INTO t(b) SELECT randomblob(500) FROM generate",
    "UPDATE t SET b = randomblob(600) WHERE id % 9 = 0",
    "DELETE FROM t WHERE id > 1000",
    "VACUUM",
    "INSERT INTO t(b) SELECT randomblob(900) FROM t LIMIT 300",
)


@pytest.fixture(params=["folder", "s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, litestream: Litestream
) -> Place:
    """A database with a replica on which both work."""
    if request.param == "folder":
        return Place.local(tmp_path, litestream)
    server: S3Server = request.getfixturevalue("s3_server")
    return Place.on_s3(tmp_path, litestream, server, server.make_bucket(), "some/app")


@pytest.fixture
def app(place: Place) -> Iterator[sqlite3.Connection]:
    """The application's connection."""
    with closing(sqlite3.connect(place.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        only_litestream_checkpoints(connection)
        connection.execute(
            "CREATE VIEW generate AS WITH RECURSIVE n(i) AS"
            " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) SELECT i FROM n"
        )
        yield connection


def test_litestreams_vfs_reads_what_we_wrote(
    place: Place, app: sqlite3.Connection
) -> None:
    """The newest state, from snapshots, compacted and single files.

    (It takes the last page that any of the files has for the end of the database, so that
    one that shrank after its snapshot has pages too many there, whoever wrote it.)
    """
    with place.ours() as replicator:
        for step in STEPS[:5]:
            app.execute(step)
            replicator.sync()
        replicator.compact()
        replicator.snapshot()
        for step in STEPS[5:] + STEPS[2:3]:
            app.execute(step)
            replicator.sync()
        wanted = list(app.execute(DIGEST).fetchone())
        txid = place.txid
        found = query_by_litestream(
            place.url, DIGEST, "PRAGMA integrity_check", "PRAGMA litestream_txid",
            **place.env,
        )  # fmt: skip
    assert found == [[wanted], [["ok"]], [[f"{txid:016x}"]]]


def test_we_read_what_litestream_wrote(place: Place, app: sqlite3.Connection) -> None:
    """While its daemon writes, we follow; afterwards each transaction can be read."""
    seen: list[int] = []
    with place.theirs() as daemon:
        for step in STEPS:
            app.execute(step)
            daemon.sync()
            if not seen:
                following = connect(place.replica, refresh=0)
            table = "SELECT * FROM t ORDER BY id"
            assert rows(following, table) == app.execute(table).fetchall()
            seen += rows(following, "SELECT replica_txid()")[0]
        following.close()
    assert seen == sorted(set(seen))
    for txid in reachable_txids(place.files()):
        with closing(connect(place.replica, txid=txid)) as connection:
            assert masked(connection.serialize("main")) == masked(place.at_txid(txid))
            assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
    check_branch_and_difference(place, app)
    check_local_copies(place, app)


def check_local_copies(place: Place, app: sqlite3.Connection) -> None:
    """What is kept of it on the disk, pages or all, is the same database."""
    table = "SELECT * FROM t ORDER BY id"
    wanted = app.execute(table).fetchall()
    for _ in range(2):
        cache = place.folder / "cache"
        with closing(connect(place.replica, cache_dir=cache)) as connection:
            assert rows(connection, table) == wanted
    copy = place.folder / "hydrated.db"
    with closing(connect(place.replica, hydrate=copy)) as connection:
        status = "SELECT replica_hydration_status()"
        await_true(lambda: rows(connection, status) == [("complete",)])
        assert rows(connection, table) == wanted
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute(table).fetchall() == wanted


def check_branch_and_difference(place: Place, app: sqlite3.Connection) -> None:
    """A branch of what Litestream wrote is its state; differences lead from one to all."""
    table = "SELECT * FROM t ORDER BY id"
    with branch(place.replica, place.folder / "branch.db") as made:
        connection = made.connect()
        assert rows(connection, table) == app.execute(table).fetchall()
        connection.execute("DELETE FROM t WHERE id > 5")
        assert made.finish().is_file()
    txids = reachable_txids(place.files())
    with closing(connect(place.replica, txid=txids[2])) as connection:
        state = dict(rows(connection, table))
    for row in diff(place.replica, from_txid=txids[2], tables=["t"]):
        if row.old is not None:
            assert state.pop(row.old["id"]) == row.old["b"]
        if row.new is not None:
            state[row.new["id"]] = row.new["b"]
    assert sorted(state.items()) == app.execute(table).fetchall()
