"""Durable in how many replicas: any, all, or a number."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lifetime import await_true, write
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replica, Replicator, Require, restore
from sqlitereplica.errors import StoreError, SyncTimeoutError
from sqlitereplica.store import LTXStore

# A store in memory that hangs keeps all others in memory waiting, so these fail instead.


@pytest.fixture
def stores() -> list[SwitchableFileSystem]:
    """Three stores."""
    return [SwitchableFileSystem() for _ in range(3)]


@pytest.fixture
def replicator(
    path: Path, db: sqlite3.Connection, stores: list[SwitchableFileSystem]
) -> Iterator[Replicator]:
    """One that has all three up to date."""
    replicas = [Replica(fs, path="/r", name=f"r{i}") for i, fs in enumerate(stores)]
    with Replicator(path, replicas, sync_interval=3600) as replicator:
        replicator.sync()
        yield replicator
        for fs in stores:
            fs.heal()


def test_quorum_is_reached_without_the_store_that_is_away(
    replicator: Replicator,
    stores: list[SwitchableFileSystem],
    db: sqlite3.Connection,
    tmp_path: Path,
) -> None:
    """Two of three have the commit when ``sync`` returns; for all it takes the third."""
    stores[0].fail()
    write(db)
    replicator.sync(require=2)
    for number, fs in enumerate(stores[1:]):
        restore(LTXStore.open(fs, path="/r"), tmp_path / f"{number}.db")
        assert (tmp_path / f"{number}.db").read_bytes() == db.serialize()
    with pytest.raises(SyncTimeoutError) as caught:
        replicator.sync(timeout=0.1, require="all")
    assert caught.value.pending == ("r0",)
    stores[0].heal()
    replicator.sync(require="all")


def test_any_needs_one_and_names_all_when_there_is_none(
    replicator: Replicator, stores: list[SwitchableFileSystem], db: sqlite3.Connection
) -> None:
    """With every store away nobody is told that a commit is durable."""
    for fs in stores:
        fs.fail()
    write(db)
    with pytest.raises(SyncTimeoutError) as caught:
        replicator.sync(timeout=0.1, require="any")
    assert caught.value.pending == ("r0", "r1", "r2")
    stores[2].heal()
    replicator.sync(require="any")
    assert asyncio.run(replicator.sync_async(require=1)) is None


def test_stores_that_fail_for_good_end_the_wait_when_too_many_do(
    replicator: Replicator, stores: list[SwitchableFileSystem], db: sqlite3.Connection
) -> None:
    """Two of three refuse: "any" goes on, two cannot be had any more."""
    for fs in stores[:2]:
        fs.fail(PermissionError("no"))
    write(db)
    replicator.sync(require="any")
    with pytest.raises(StoreError):
        replicator.sync(require=2)


def test_row_of_quorum_waits_leaves_a_slow_store_a_few_increments_behind(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """It sets the pace in the end, or its backlog would grow for ever."""
    slow = SwitchableFileSystem()
    replicas = [Replica(slow, path="/r"), Replica(replica)]
    with Replicator(path, replicas, sync_interval=3600) as replicator:
        replicator.sync()
        slow.latency = 0.03
        most = 0
        for _ in range(30):
            write(db)
            replicator.sync(require="any")
            behind, ahead = (r.txid for r in replicator.status().replicas)
            most = max(most, ahead - behind)
        assert most <= 5


def test_default_is_the_replicators_and_a_call_may_differ(
    path: Path, db: sqlite3.Connection
) -> None:
    """``require=`` of the Replicator holds for ``sync`` and for blocks."""
    good, bad = SwitchableFileSystem(), SwitchableFileSystem()
    replicas = [Replica(good, path="/r"), Replica(bad, path="/b")]
    with Replicator(path, replicas, require="any") as replicator:
        bad.fail()
        replicator.sync()
        with replicator.durable():
            write(db)
        with pytest.raises(SyncTimeoutError), replicator.durable(0.1, require=2):
            write(db)
        bad.heal()


@pytest.mark.parametrize("require", ["some", 0, 3, -1, True, False, 1.0, "1", None])
def test_require_that_cannot_be_meant_is_refused(
    tmp_path: Path, require: Require
) -> None:
    """With two replicas: a number beyond them, none, or something else."""
    with pytest.raises(ValueError, match="from 1 to 2"):
        Replicator(tmp_path / "a.db", [tmp_path / "1", tmp_path / "2"], require=require)


# -- blocks ----------------------------------------------------------------------------


def test_block_ends_when_its_commits_are_durable(
    path: Path, db: sqlite3.Connection
) -> None:
    """``with`` and ``async with``."""
    fs = SwitchableFileSystem()

    async def block(replicator: Replicator) -> None:
        async with replicator.durable():
            write(db)

    with Replicator(path, Replica(fs, path="/r"), sync_interval=3600) as replicator:
        for number in range(2):
            if number:
                asyncio.run(block(replicator))
            else:
                with replicator.durable(timeout=30):
                    write(db)
            out = path.with_name(f"{number}.db")
            restore(LTXStore.open(fs, path="/r"), out)
            assert out.read_bytes() == db.serialize()


def test_block_that_raises_waits_for_nothing(
    path: Path, db: sqlite3.Connection
) -> None:
    """Its own exception goes on, although the store would never answer."""
    fs = SwitchableFileSystem()

    async def block(replicator: Replicator) -> None:
        async with replicator.durable(timeout=None):
            raise KeyError

    with Replicator(path, Replica(fs, path="/r")) as replicator:
        replicator.sync()
        fs.hang()
        write(db)
        with pytest.raises(KeyError), replicator.durable(timeout=None):
            raise KeyError
        with pytest.raises(KeyError):
            asyncio.run(block(replicator))
        fs.heal()


def test_block_of_a_store_that_is_away_ends_in_a_timeout(
    path: Path, db: sqlite3.Connection
) -> None:
    """Also as a coroutine; the commits have happened all the same."""
    fs = SwitchableFileSystem()

    async def block(replicator: Replicator) -> None:
        async with replicator.durable(timeout=0.05):
            write(db)

    with Replicator(path, Replica(fs, path="/r")) as replicator:
        replicator.sync()
        fs.hang()
        with pytest.raises(SyncTimeoutError):
            asyncio.run(block(replicator))
        await_true(lambda: db.execute("select count(*) from t").fetchone()[0])
        fs.heal()
