"""Waits that come while an upload is under way share the next one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from support.stepping import Stepped
from support.told import AWAY, MakeStepped, ToldStore, level0

from sqlitereplica.replicate.tickets import Ticket


def write_and_wait(db: sqlite3.Connection, stepped: Stepped) -> Ticket:
    """Commit, ask for durability, and let the engine look."""
    db.execute("insert into t(v) values(1)")
    ticket = stepped.engine.tickets.take(stepped.clock(), None)
    stepped.engine.step()
    return ticket


def test_waits_during_an_upload_cost_one_more_upload(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped
) -> None:
    """However many commits come meanwhile: the queue in front of a slow store stays short."""
    stepped = make()
    assert stepped.durable()
    [worker] = stepped.workers
    first = write_and_wait(db, stepped)
    others = [write_and_wait(db, stepped) for _ in range(50)]
    worker.advance()
    assert first.future.done()
    assert not any(ticket.future.done() for ticket in others)
    stepped.run()
    assert all(ticket.future.result(0) is None for ticket in others)
    assert [file.max_txid for file in level0(store)] == [1, 2, 3]


def test_upload_that_hangs_holds_flushes_back_for_an_interval_only(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped
) -> None:
    """Other replicas go on to get an increment every ``sync_interval``."""
    stepped = make(sync_interval=1.0)
    assert stepped.durable()
    write_and_wait(db, stepped)
    before = stepped.engine.capture.seq
    waiting = write_and_wait(db, stepped)
    assert (stepped.engine.capture.seq, waiting.seq) == (before, None)
    stepped.clock.advance(1)
    stepped.engine.step()
    assert (stepped.engine.capture.seq, waiting.seq) == (before + 1, before + 1)


def test_replica_that_fails_holds_no_flush_back(
    path: Path, db: sqlite3.Connection, store: ToldStore, tmp_path: Path
) -> None:
    """The replicas that work have a commit as soon as somebody waits for it."""
    other = ToldStore.open(tmp_path / "other")
    stepped = Stepped(path, [lambda: store, lambda: other], sync_interval=600)
    assert stepped.durable()
    store.error = AWAY
    for count in range(2, 6):
        db.execute("insert into t(v) values(1)")
        assert not stepped.sync().future.done()
        assert len(level0(other)) == count
    stepped.engine.close()
