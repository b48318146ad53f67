"""``SteppedReplicator``: what happens, and when, is up to the test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sqlitereplica import Retention, SyncTimeoutError, restore, restore_points, verify
from sqlitereplica.testing import (
    FaultyStore,
    MemoryStore,
    SteppedReplicator,
    SteppingClock,
    only,
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The application's own connection to a WAL database."""
    with closing(
        sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    ) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table day(number integer)")
        yield connection


def test_two_months_of_history_pass_in_a_moment(
    connection: sqlite3.Connection, tmp_path: Path, replica_store: MemoryStore
) -> None:
    """A retention leaves the points that it says, and every one of them restores."""
    retention = Retention(window="3d", fine="1h", daily=10, weekly=0, monthly=0)
    clock = SteppingClock(datetime(2027, 1, 1, 12, tzinfo=UTC))
    done: set[str] = set()
    with SteppedReplicator(
        tmp_path / "a.db", replica_store.replica, clock=clock, retention=retention
    ) as replicator:
        for day in range(60):
            connection.execute("insert into day values(?)", (day,))
            replicator.sync()
            for _ in range(3):
                done.update(replicator.advance("8h"))
    assert {"snapshot", "retention"} <= done

    points = restore_points(replica_store.replica)
    assert points.earliest is not None and points.latest is not None
    age = clock.now() - points.earliest.time
    assert 9 <= age.days <= 12
    assert 10 <= len({point.time.date() for point in points}) <= 13
    assert verify(replica_store.replica).ok
    for point in points:
        copy = tmp_path / f"{point.txid}.db"
        restore(replica_store.replica, copy, txid=point.txid)
        with closing(sqlite3.connect(copy)) as restored:
            [last] = restored.execute("select max(number) from day").fetchone()
        born = datetime(2027, 1, 1, 12, tzinfo=UTC).toordinal() + last
        assert point.time.toordinal() == born


def test_store_that_is_away_is_told_at_once(
    connection: sqlite3.Connection, tmp_path: Path, faulty_store: FaultyStore
) -> None:
    """Nobody waits: the error comes at once, and what it was about comes later."""
    with SteppedReplicator(tmp_path / "a.db", faulty_store.replica) as replicator:
        replicator.sync()
        before = faulty_store.files(0)
        faulty_store.plan = only("write")
        connection.execute("insert into day values(1)")
        with pytest.raises(SyncTimeoutError, match="faulty"):
            replicator.sync()
        assert faulty_store.files(0) == before
        faulty_store.heal()
        replicator.advance("5m")
        assert len(faulty_store.files(0)) == len(before) + 1
        replicator.sync()


def test_killed_process_is_followed_by_one_that_goes_on(
    connection: sqlite3.Connection, tmp_path: Path, replica_store: MemoryStore
) -> None:
    """After a restart only what changed is uploaded, under the next number."""
    with SteppedReplicator(tmp_path / "a.db", replica_store.replica) as replicator:
        replicator.sync()
        first = replica_store.files(0)
        connection.execute("insert into day values(1)")
        replicator.restart()
        replicator.sync()
        new = replica_store.files(0)[len(first) :]
        assert [file.min_txid for file in new] == [first[-1].max_txid + 1]
        replicator.snapshot()
        assert [file.max_txid for file in replica_store.files(9)][-1] == new[
            -1
        ].max_txid
