"""The lock on the WAL goes from one reader to the next without a gap."""

from __future__ import annotations

import sqlite3

import pytest
from support.capturing import Captured, same

from sqlitereplica.sqlite.connection import SourceConnection


def test_nothing_gets_between_two_readers(
    db: sqlite3.Connection, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done just before the second begins: the first still holds the WAL."""
    db.execute("pragma busy_timeout=0")
    begin_read, meddling = SourceConnection.begin_read, [True]

    def begin(connection: SourceConnection) -> None:
        if meddling:
            meddling.pop()
            for _ in range(3):
                db.execute("insert into t(v) values(2)")
                db.execute("pragma wal_checkpoint(restart)").fetchall()
        begin_read(connection)

    monkeypatch.setattr(SourceConnection, "begin_read", begin)
    db.execute("insert into t(v) values(1)")
    captured.capture.step()
    assert not meddling
    db.execute("insert into t(v) values(3)")
    assert same(captured)
