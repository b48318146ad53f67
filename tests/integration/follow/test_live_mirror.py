"""A Mirror beside a live application, as its other readers see it."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.ledger import StateLog, Writer, connect, digest_of, image_of
from support.ledger_reader import Reader

from sqlitereplica import Mirror, MixedSQLiteCopiesError, Replicator


def digest(path: Path) -> str:
    """The digest of a database as the log has them."""
    with closing(connect(path)) as db:
        db.execute("begin")
        return digest_of(image_of(db))


@pytest.mark.slow
def test_every_reader_sees_states_of_the_source_only(tmp_path: Path) -> None:
    """A ledger read all the time in other processes; after a sync it is the present."""
    path, copy = tmp_path / "app.db", tmp_path / "backups" / "app.db"
    rng = random.Random("mirror")
    log = StateLog(tmp_path / "log", exact=False)
    with closing(connect(path)) as db:
        db.execute("pragma journal_mode=wal").fetchall()
        writer = Writer(db, log, rng)
        writer.set_up()
        mirrors = [tmp_path / "replica", Mirror(copy)]
        with Replicator(path, mirrors, sync_interval=0.02) as replicator:
            replicator.sync(timeout=120)
            readers = [Reader(copy, module) for module in ("sqlite3", "apsw")]
            try:
                for number in range(250):
                    writer.change()
                    if number % 50 == 25:
                        replicator.sync(timeout=120)
                        assert digest(copy) == log.states()[-1][1]
                    if number == 120:
                        replicator.stop()
                        writer.change()
                        replicator.start()
                replicator.sync(timeout=120)
                assert digest(copy) == log.states()[-1][1]
                for states, last in [reader.finish() for reader in readers]:
                    assert states > 0
                    assert last > 0
            finally:
                for reader in readers:
                    reader.kill()
            status = replicator.status().replicas[1]
            assert (status.name, status.state) == (str(copy), "streaming")
    if shutil.which("sqlite3"):
        done = subprocess.run(
            ["sqlite3", str(copy), ".tables"], check=True, stdout=subprocess.PIPE
        )
        assert b"ledger" in done.stdout


def test_mirror_alone_is_a_replica(tmp_path: Path) -> None:
    """A Replicator needs no store; snapshots, compaction and pins are not a mirror's."""
    copy = tmp_path / "copy.db"
    with (
        closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as db,
        Replicator(tmp_path / "app.db", Mirror(copy)) as replicator,
    ):
        db.execute("create table t(v)")
        replicator.sync()
        replicator.snapshot()
        replicator.compact()
        with pytest.raises(ValueError):
            replicator.pin("nothing")
        assert replicator.status().ok
        with closing(sqlite3.connect(copy)) as reader:
            assert reader.execute("select count(*) from t").fetchone() == (0,)


def test_application_factory_that_sets_wal_does_not_reach_the_mirror(
    tmp_path: Path,
) -> None:
    """The mirror is opened plainly, with the copy of SQLite that the application has."""
    import apsw

    copy = tmp_path / "copy.db"

    def factory(path: str) -> Any:
        made = apsw.Connection(path)
        made.execute("pragma journal_mode=wal")
        return made

    db = factory(str(tmp_path / "app.db"))
    with Replicator(tmp_path / "app.db", [Mirror(copy)], connect=factory) as replicator:
        db.execute("create table t(v)")
        replicator.sync()
        with pytest.raises(MixedSQLiteCopiesError):
            sqlite3.connect(copy)
        reader = apsw.Connection(str(copy))
        assert reader.execute("pragma journal_mode").fetchall() == [("delete",)]
        assert reader.execute("select count(*) from t").fetchall() == [(0,)]
        db.execute("insert into t values(1)")
        replicator.sync()
        assert reader.execute("select count(*) from t").fetchall() == [(1,)]
        reader.close()
    db.close()
