"""Checkpoints of ours that fail do not end capture, and are said."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.capturing import digest, make_database, serialized
from support.stepping import Stepped

from sqlitereplica import DatabaseStateError, restore
from sqlitereplica.sqlite import SourceConnection
from sqlitereplica.store import LTXStore


def test_full_disk_under_the_database_is_said_and_capture_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint needs room in the database file; frames are captured without it."""
    path = tmp_path / "a.db"
    db = make_database(path)
    db.execute("pragma wal_autocheckpoint=0")
    store = LTXStore.open(tmp_path / "replica")
    stepped = Stepped(path, [lambda: store])
    assert stepped.durable()

    def full(connection: SourceConnection, mode: str) -> bool:
        raise DatabaseStateError("disk is full", path=connection.path, kind="sqlite")

    monkeypatch.setattr(SourceConnection, "checkpoint", full)
    for i in range(700):
        db.execute("insert into t(v) values(randomblob(4000))")
        if i % 50 == 0:
            stepped.clock.advance(2)
            assert stepped.durable()
    assert str(stepped.engine.error) == "disk is full"
    assert "checkpoint-error" in {e.action for e in stepped.events}
    monkeypatch.undo()
    stepped.clock.advance(2)
    db.execute("insert into t(v) values('after')")
    assert stepped.durable()
    assert stepped.engine.error is None
    restore(store, tmp_path / "b.db")
    assert digest((tmp_path / "b.db").read_bytes()) == digest(serialized(path))
    stepped.engine.close()
    db.close()
