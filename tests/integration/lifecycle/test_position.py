"""Positions: taken at once, handed on as text, waited for elsewhere and later."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from support.lifetime import restored, write
from support.stepping import Stepped
from support.switchable import SwitchableFileSystem

from sqlitereplica import Position, Replica, Replicator, restore
from sqlitereplica.errors import (
    PosMismatchError,
    ReplicatorClosedError,
    StoreError,
    SyncTimeoutError,
)
from sqlitereplica.store import LTXStore


def puts(fs: SwitchableFileSystem) -> int:
    """Files in the store."""
    return len(fs.store)


def test_wait_returns_when_what_was_committed_before_is_durable(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """Each position, as a value or as its text, covers the commits made before it."""
    with Replicator(path, replica, sync_interval=3600) as replicator:
        for number in range(5):
            write(db)
            position = replicator.position()
            replicator.wait(str(position) if number % 2 else position)
            assert restored(replica) == db.serialize()
        asyncio.run(replicator.wait_async(position))


def test_position_that_is_durable_costs_nothing_and_waits_for_no_later_commit(
    path: Path, db: sqlite3.Connection
) -> None:
    """The store may be away by then: it is not asked."""
    fs = SwitchableFileSystem()
    with Replicator(path, Replica(fs, path="/r"), sync_interval=3600) as replicator:
        write(db)
        early = replicator.position()
        replicator.sync()
        before = puts(fs)
        fs.hang()
        write(db)
        late = replicator.position()
        assert early < late
        replicator.wait(early, timeout=30)
        with pytest.raises(SyncTimeoutError):
            replicator.wait(late, timeout=0.1)
        assert puts(fs) == before
        fs.heal()
        replicator.wait(late)


def test_position_is_taken_without_asking_anybody(
    path: Path, db: sqlite3.Connection
) -> None:
    """Capture does not move in between: each is what the next look will have seen."""
    fs = SwitchableFileSystem()
    stepped = Stepped(path, [lambda: LTXStore.open(fs, path="/r")], node_id=5)
    stepped.run()
    looks = stepped.engine.looks
    write(db)
    position = looks.position()
    write(db)
    assert looks.position() == position
    assert looks.state_of(position) is None
    stepped.step()
    assert looks.state_of(position) is None  # captured, but in no increment yet
    stepped.clock.advance(10)
    stepped.run()
    seq = looks.state_of(position)
    assert seq is not None and stepped.workers[0].acked >= seq
    waited = stepped.engine.wait_for(position, None)
    assert waited.future.result(0) is None
    stepped.engine.close()


def test_position_of_before_a_restart_is_waited_for_with_everything(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """Its number says nothing to the next life, so all that is committed is shipped."""
    with Replicator(path, replica, sync_interval=3600) as replicator:
        replicator.sync()
        write(db)
        position = replicator.position()
    with Replicator(path, replica, sync_interval=3600) as replicator:
        write(db)
        replicator.wait(position)
        assert restored(replica) == db.serialize()
        assert replicator.position() > position


def test_position_of_another_database_is_refused(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """Nobody is told that commits which are not here are durable."""
    with Replicator(path, replica) as replicator:
        own = replicator.position()
        foreign = Position(own.life, own.look, own.node ^ 1)
        with pytest.raises(PosMismatchError) as caught:
            replicator.wait(str(foreign))
        assert caught.value.kind == "position"
        with pytest.raises(ValueError, match="Position"):
            replicator.wait("not a position")
        replicator.wait(Position(own.life, own.look + 1_000_000, own.node))
    with pytest.raises(ReplicatorClosedError):
        replicator.position()


def test_quorum_holds_for_positions(path: Path, db: sqlite3.Connection) -> None:
    """``require`` means the same as with ``sync``; failures are the same, too."""
    good, bad = SwitchableFileSystem(), SwitchableFileSystem()
    replicas = [Replica(good, path="/r"), Replica(bad, path="/b")]
    with Replicator(path, replicas, sync_interval=3600) as replicator:
        replicator.sync()
        bad.fail(PermissionError("no"))
        write(db)
        position = replicator.position()
        replicator.wait(position, require="any")
        with pytest.raises(StoreError):
            replicator.wait(position)
        bad.heal()
    restore(LTXStore.open(bad, path="/b"), path.with_name("out.db"))
    assert path.with_name("out.db").read_bytes() == db.serialize()
