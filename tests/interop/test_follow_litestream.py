"""A Follower on a replica that the real Litestream writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.litestream import Litestream

from sqlitereplica import Follower, Replicator
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.interop

INSERT = "INSERT INTO t SELECT randomblob(700) FROM generated LIMIT "
STEPS = [
    f"{INSERT} 300",
    "UPDATE t SET b = randomblob(800) WHERE rowid % 9 = 0",
    "DELETE FROM t WHERE rowid > 20",
    "VACUUM",
    f"{INSERT} 200",
    "CREATE INDEX i ON t(b)",
    "VACUUM",
]


def dump(path: Path) -> list[str]:
    """A database as SQL, without Litestream's own tables, whole."""
    with closing(sqlite3.connect(path, timeout=30)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        return [line for line in db.iterdump() if "_litestream" not in line]


def test_litestream_is_followed_live_after_an_absence_and_in_a_failover(
    litestream: Litestream, tmp_path: Path
) -> None:
    """Growth, VACUUM, shrinking; level 0 gone; then our Replicator goes on from there."""
    database, replica, copy = (tmp_path / n for n in ("a.db", "r", "f.db"))
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(b)")
        db.execute(
            "CREATE VIEW generated AS WITH RECURSIVE n(i) AS"
            " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n"
        )
        with Daemon(
            litestream, database, replica.as_uri(), levels=[{"interval": "1s"}]
        ) as daemon:
            daemon.sync()
            with Follower(replica, copy, interval=0.02) as follower:
                for step in STEPS:
                    db.execute(step)
                    daemon.sync()
                    follower.wait()
                    assert dump(copy) == dump(database)
            db.execute("DROP INDEX i")
            for step in STEPS:
                db.execute(step)
                daemon.sync()
        store = LTXStore.open(replica)
        with Follower(replica, copy, interval=0.02) as follower:
            follower.wait()
            assert dump(copy) == dump(database)
            txid = follower.promote().txid
    assert txid == store.list_level(0)[-1].max_txid
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        with Replicator(copy, [replica]) as replicator:
            db.execute("INSERT INTO t VALUES('ours')")
            replicator.sync()
    restored = tmp_path / "restored.db"
    litestream.run("restore", "-o", restored, replica.as_uri())
    assert dump(restored) == dump(copy)
    files = store.list_level(0, min_txid=txid + 1)
    assert sum(file.size for file in files) < 50_000
