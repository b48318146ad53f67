"""Starts on an empty disk: restored once, whoever starts, however often it is killed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import await_true, library_threads, restored, unusable, write
from support.workers import Refused, WorkerProcess, elected_of

from sqlitereplica import Replicator, StoreError

ROWS = 5


@pytest.fixture
def backup(path: Path, replica: Path) -> int:
    """A backup of a database that is gone; its newest transaction."""
    db = make_database(path)
    with Replicator(path, replica) as replicator:
        for _ in range(ROWS):
            write(db)
            replicator.sync()
        db.close()
        txid = replicator.status().txid
    lose(path)
    return txid


def lose(path: Path) -> None:
    """The machine is gone, and with it all but the replica."""
    for left in path.parent.glob("app.db*"):
        left.unlink()
    folder = path.parent / ".app.db-sqlitereplica"
    for left in folder.rglob("*"):
        if not left.is_dir():
            left.unlink()


@pytest.fixture
def pair(path: Path, replica: Path) -> Iterator[list[WorkerProcess]]:
    """Two processes that have not started."""
    with ExitStack() as stack:
        made = [WorkerProcess(path, [replica], restore="if-missing") for _ in "12"]
        yield [stack.enter_context(worker) for worker in made]


def start(workers: list[WorkerProcess]) -> list[str]:
    """Start all at once; what came of all looks for a database."""
    for worker in workers:
        worker.begin("start")
    for worker in workers:
        worker.end()
    return sorted(reason for worker in workers for reason in worker("booted"))


def test_missing_database_is_restored_and_its_history_goes_on(
    path: Path, replica: Path, backup: int
) -> None:
    """It is there when ``start`` returns; the next transaction is the next number."""
    with Replicator(path, replica, restore="if-missing") as replicator:
        db = sqlite3.connect(path, isolation_level=None)
        assert db.execute("select count(*) from t").fetchone() == (ROWS,)
        write(db)
        replicator.sync()
        assert replicator.status().txid == backup + 1
        db.close()
    assert restored(replica) == serialized(path)


def test_database_that_is_there_is_carried_on(
    path: Path, replica: Path, backup: int
) -> None:
    """Whatever the backup has."""
    db = make_database(path)
    db.execute("insert into t(v) values('mine')")
    with Replicator(path, replica, restore="if-missing") as replicator:
        replicator.sync()
        assert db.execute("select v from t").fetchall() == [("mine",)]
    db.close()
    assert restored(replica) == serialized(path)


def test_start_without_a_backup_is_empty(path: Path, replica: Path) -> None:
    """Nothing is made: the application makes its database, and it is replicated."""
    with Replicator(path, replica, restore="if-missing") as replicator:
        assert not path.exists()
        db = make_database(path)
        write(db)
        replicator.sync()
        db.close()
    assert restored(replica) == serialized(path)


def test_best_of_several_replicas_is_restored(
    path: Path, replica: Path, backup: int, tmp_path: Path
) -> None:
    """One of them knows nothing, one is older."""
    empty, older = tmp_path / "empty", tmp_path / "older"
    shutil.copytree(replica, older)
    max((older / "ltx" / "0").iterdir()).unlink()
    replicas = [empty, older, replica]
    with Replicator(path, replicas, restore="if-missing") as replicator:
        with sqlite3.connect(path) as db:
            assert db.execute("select count(*) from t").fetchone() == (ROWS,)
        db.close()
        replicator.sync()
    assert restored(empty) == restored(older) == serialized(path)


def test_replica_that_cannot_be_read_is_an_error_and_no_empty_database(
    path: Path, tmp_path: Path
) -> None:
    """Nothing is started, and it can be tried again."""
    replicator = Replicator(path, unusable(tmp_path), restore="if-missing")
    for _ in range(2):
        with pytest.raises(StoreError):
            replicator.start()
        assert replicator.status().state == "stopped"
        assert not path.exists()
    assert library_threads() == set()


def test_nonsense_is_refused(path: Path, replica: Path) -> None:
    """By ValueError, when it is made."""
    with pytest.raises(ValueError, match="restore"):
        Replicator(path, replica, restore="always")  # type: ignore[arg-type]


def test_of_two_that_boot_at_once_one_restores(
    pair: list[WorkerProcess], path: Path, replica: Path, backup: int
) -> None:
    """The other waits: both find the database when ``start`` has returned."""
    assert start(pair) == ["restored"]
    for number, worker in enumerate(pair):
        assert worker("count") == ROWS + number
        worker("write")
        worker("sync")
    assert restored(replica) == serialized(path)
    assert elected_of(pair)("status")["txid"] == backup + 2


def test_killed_while_it_restores(
    pair: list[WorkerProcess], path: Path, replica: Path, backup: int
) -> None:
    """The one that waited does it again; nothing is left of the first try."""
    first, second = pair
    first("hang")
    first.begin("start")
    assert first.end() == "hangs"
    second.begin("start")
    assert not path.exists()
    (left,) = path.parent.glob(".app.db.*.tmp")
    os.utime(left, (time.time() - 3600,) * 2)  # a young one might be somebody's
    first.kill()
    second.end()
    assert second("booted") == ["restored"]
    assert second("count") == ROWS
    second("sync")
    names = {n for n in os.listdir(path.parent) if not n.startswith("app.db")}
    assert names == {".app.db-sqlitereplica", "replica"}


def test_new_container_waits_for_the_lease_and_has_all_that_the_old_one_wrote(
    tmp_path: Path, replica: Path
) -> None:
    """What was restored before the old one ends would be stale by then."""
    old, new = tmp_path / "old" / "app.db", tmp_path / "new" / "app.db"
    for path in (old, new):
        path.parent.mkdir()
    db = make_database(old)
    first = Replicator(old, replica, lease=True)
    second = Replicator(new, replica, lease=True, restore="if-missing")
    with first, ThreadPoolExecutor(1) as pool:
        write(db)
        first.sync()
        starting = pool.submit(second.start)
        await_true(lambda: second.status().state == "standby")
        write(db)
        db.close()
        first.stop()
        starting.result(60)
    with second:
        with sqlite3.connect(new) as copy:
            assert copy.execute("select count(*) from t").fetchone() == (2,)
            copy.execute("insert into t(v) values('by the new one')")
        copy.close()
    assert restored(replica) == serialized(new)


def test_all_fail_if_none_can_restore(path: Path, tmp_path: Path) -> None:
    """Who waits is not left waiting: it tries, too, and says what is wrong."""
    where = unusable(tmp_path)
    with ExitStack() as stack:
        made = [WorkerProcess(path, [where], restore="if-missing") for _ in "12"]
        pair = [stack.enter_context(worker) for worker in made]
        for worker in pair:
            worker.begin("start")
        for worker in pair:
            with pytest.raises(Refused) as caught:
                worker.end()
            assert caught.value.answer["error"] == "StoreError"
            assert worker("status")["state"] == "stopped"
    assert not path.exists()
