"""T10: whatever happens to the database while nobody replicates, the next start ships what
differs, under the next TXID, and the states before stay what they were."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.capturing import serialized
from support.killed import Left, pages_of, replicate_and_die

from sqlitereplica import Replicator, restore
from sqlitereplica.ltx import SNAPSHOT_LEVEL

pytestmark = pytest.mark.crash

SIDECARS = ("-wal", "-shm", "-journal")

CHECKPOINT = """
import os, sqlite3, sys

def write():
    for i in range(3):
        db.execute("insert into t(v) values(randomblob(3000))")
        db.execute("update t set v = 'changed' where id = ?", (50 + i,))

db = sqlite3.connect(sys.argv[1], isolation_level=None)
write()
assert db.execute(f"pragma wal_checkpoint({sys.argv[2]})").fetchone()[0] == 0
write()
os._exit(0)  # without closing, so that the WAL stays
"""

SOCKET = shutil.ignore_patterns("socket")
"""A killed process leaves it, and it cannot be copied."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A killed process's leavings, to be copied by each test."""
    return replicate_and_die(tmp_path_factory.mktemp("original"))


@pytest.fixture
def left(original: Left, tmp_path: Path) -> Left:
    """A copy of them, with the WAL as the kill left it."""
    folder = tmp_path / "place"
    shutil.copytree(original.database.parent, folder, ignore=SOCKET)
    return Left(folder / "app.db", folder / "replica", original.digests)


def write(db: sqlite3.Connection) -> None:
    """A few commits."""
    for i in range(3):
        db.execute("insert into t(v) values(randomblob(3000))")
        db.execute("update t set v = 'changed' where id = ?", (50 + i,))


def in_mode(mode: str) -> Callable[[Path], None]:
    """Write, checkpoint in a mode, write more, and leave the WAL behind."""

    def run(path: Path) -> None:
        subprocess.run([sys.executable, "-c", CHECKPOINT, path, mode], check=True)
        assert path.with_name("app.db-wal").stat().st_size > 0

    return run


def opened(path: Path) -> sqlite3.Connection:
    """A connection of the application."""
    return sqlite3.connect(path, isolation_level=None, timeout=30)


def closed_cleanly(path: Path) -> None:
    """The last connection to close checkpoints and deletes the WAL."""
    db = opened(path)
    write(db)
    db.close()
    assert not path.with_name("app.db-wal").exists()


def vacuumed(path: Path) -> None:
    """VACUUM shrinks the database and moves its pages."""
    db = opened(path)
    db.execute("delete from t where id % 3 = 0")
    db.execute("vacuum")
    db.close()


def left_in_delete_mode(path: Path) -> None:
    """Another tool switched the journal mode, and wrote."""
    db = opened(path)
    assert db.execute("pragma journal_mode=delete").fetchone() == ("delete",)
    write(db)
    db.close()


def restored_older(path: Path) -> None:
    """The administrator put back the database of an hour ago."""
    for suffix in ("", *SIDECARS):
        path.with_name(f"app.db{suffix}").unlink(missing_ok=True)
    restore(path.parent / "replica", path, txid=2)


def replaced(path: Path) -> None:
    """Another database altogether has the name."""
    for suffix in ("", *SIDECARS):
        path.with_name(f"app.db{suffix}").unlink(missing_ok=True)
    db = opened(path)
    db.execute("create table other(v)")
    db.execute("insert into other values(randomblob(50000))")
    db.close()


def left_alone(path: Path) -> None:
    """Only the commit that the killed process had not shipped."""


HAPPENINGS = [
    *(
        pytest.param(in_mode(m), id=m)
        for m in ("passive", "full", "restart", "truncate")
    ),
    *(
        pytest.param(f, id=f.__name__)
        for f in (
            closed_cleanly,
            vacuumed,
            left_in_delete_mode,
            restored_older,
            replaced,
            left_alone,
        )
    ),
]


@pytest.mark.parametrize("happen", HAPPENINGS)
def test_restart_ships_exactly_the_pages_that_differ(
    left: Left, happen: Callable[[Path], None]
) -> None:
    """One increment brings the replica up; older states restore as before."""
    before = pages_of(left.image(), 4096)
    happen(left.database)
    with Replicator(left.database, [left.replica], sync_interval=60) as replicator:
        replicator.sync()
        now = pages_of(serialized(left.database), 4096)
        (delta,) = left.files_after(left.txid)
        assert (delta.min_txid, delta.max_txid) == (left.txid + 1, left.txid + 1)
        differing = {p for p, page in now.items() if before.get(p) != page}
        assert left.decoded(delta).keys() == differing
        assert len(differing) < len(now) or happen in (vacuumed, replaced)
        assert left.image() == b"".join(now.values())

        db = opened(left.database)
        db.execute("create table afterwards(v)")
        replicator.sync()
        assert [f.min_txid for f in left.files_after(delta.max_txid)] == [left.txid + 2]
        assert left.image() == db.serialize()
        db.close()
    assert left.files_after(left.txid, SNAPSHOT_LEVEL) == []
    left.check_old_states()


def test_restart_with_nothing_changed_ships_nothing(left: Left) -> None:
    """What the replica holds is compared, not uploaded; then an idle restart costs no put."""
    for _ in range(2):
        with Replicator(left.database, [left.replica], sync_interval=60) as replicator:
            replicator.sync()
    assert [f.max_txid for f in left.files_after(left.txid)] == [left.txid + 1]
    assert left.image() == serialized(left.database)


@pytest.mark.parametrize("size", [1024, 8192])
def test_page_size_changed_while_down_goes_on_with_a_snapshot(
    left: Left, size: int
) -> None:
    """Another page size cannot be an increment: a snapshot and the next TXID, no restart
    of the numbers."""
    db = opened(left.database)
    db.execute("pragma journal_mode=delete")
    db.execute(f"pragma page_size={size}")
    db.execute("vacuum")
    db.close()
    with Replicator(left.database, [left.replica], sync_interval=60) as replicator:
        replicator.sync()
        assert left.image() == serialized(left.database)
        (snapshot,) = left.files_after(left.txid, SNAPSHOT_LEVEL)
        assert (snapshot.min_txid, snapshot.max_txid) == (1, left.txid + 1)
        (step,) = left.files_after(left.txid)
        assert step.min_txid == left.txid + 1
        assert left.decoded(step) == left.decoded(snapshot)
        db = opened(left.database)
        write(db)
        replicator.sync()
        assert left.files_after(left.txid + 1)
        assert left.image() == db.serialize()
        db.close()
    left.check_old_states()
