"""A large database is read at the attach in turns, between which others have theirs."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from support.capturing import digest, make_database, serialized
from support.stepping import Stepped
from support.told import MakeStepped, ToldStore, fill, level0, restored

from sqlitereplica import ReplicatorClosedError
from sqlitereplica.capture import capture as capture_module
from sqlitereplica.replicate import engine as engine_module


@pytest.fixture
def stepped(
    db: sqlite3.Connection, make: MakeStepped, monkeypatch: pytest.MonkeyPatch
) -> Stepped:
    """One whose turns are as short as can be, of a database of about 2 MB."""
    monkeypatch.setattr(engine_module, "_SCAN_SLICE", 0.0)
    fill(db, 500)
    return make()


def attach(stepped: Stepped) -> int:
    """Step until it is attached; returns the steps."""
    for step in range(1, 1000):
        assert stepped.engine.step() == 0.0
        if stepped.engine.capture.attached:
            return step
    raise AssertionError("it never ends")


def test_commits_between_the_turns_are_captured(
    db: sqlite3.Connection, stepped: Stepped, store: ToldStore, tmp_path: Path
) -> None:
    """Of pages that were read already, of others and of new ones; checkpoints go on, too."""
    ticket = stepped.engine.tickets.take(stepped.clock(), None)
    turns = 0
    while True:
        turns += 1
        assert stepped.engine.step() == 0.0
        if stepped.engine.capture.attached:
            break
        assert stepped.engine.capture.attaching
        for at in (1, 250, 499):
            db.execute("update t set v = randomblob(4000) where id = ?", (at,))
        fill(db, 3)
        db.execute("pragma wal_checkpoint(passive)").fetchall()
    assert turns > 5
    assert not ticket.future.done()
    assert stepped.durable()
    assert ticket.future.exception(0) is None
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    fill(db, 1)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
    assert [f.max_txid for f in level0(store)] == [1, 2]


def test_stop_between_the_turns_lets_the_database_go(
    db: sqlite3.Connection, stepped: Stepped
) -> None:
    """Nothing is held then, and who waits is told."""
    ticket = stepped.engine.tickets.take(stepped.clock(), None)
    for _ in range(3):
        stepped.engine.step()
    assert stepped.engine.capture.attaching
    fill(db, 1)
    db.execute("pragma busy_timeout=0")
    busy, _, _ = db.execute("pragma wal_checkpoint(truncate)").fetchone()
    assert busy  # the state that is being read is held
    stepped.engine.close()
    assert isinstance(ticket.future.exception(0), ReplicatorClosedError)
    busy, frames, _ = db.execute("pragma wal_checkpoint(truncate)").fetchone()
    assert (busy, frames) == (0, 0)


def test_failure_between_the_turns_begins_anew(
    db: sqlite3.Connection,
    stepped: Stepped,
    store: ToldStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is told, nothing of the database is held, and the next attach is whole."""
    for _ in range(3):
        stepped.engine.step()

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(capture_module, "page_checksums", fail)
        stepped.engine.step()
    assert isinstance(stepped.engine.error, MemoryError)
    assert not stepped.engine.capture.attaching
    fill(db, 1)
    busy, _, _ = db.execute("pragma wal_checkpoint(truncate)").fetchone()
    assert not busy
    stepped.clock.advance(1)
    assert attach(stepped) > 5
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_database_replaced_between_the_turns_is_compared_anew(
    db: sqlite3.Connection, stepped: Stepped, store: ToldStore, tmp_path: Path
) -> None:
    """What was read of the old one is not taken for the new one."""
    for _ in range(3):
        stepped.engine.step()
    with make_database(tmp_path / "other.db") as other:
        fill(other, 60)
    other.close()
    db.close()
    os.replace(tmp_path / "other.db", stepped.path)
    attach(stepped)
    stepped.clock.advance(10)
    stepped.run()
    stepped.clock.advance(10)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))
