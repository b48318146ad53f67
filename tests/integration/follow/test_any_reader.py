"""Any SQLite in any process reads a followed file while it is updated."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.ledger import StateLog, Writer, connect
from support.ledger_reader import KINDS, Reader, lacks

from sqlitereplica import Follower, Replicator

STATES = 25


@pytest.mark.parametrize("kind", KINDS)
def test_program_of_another_kind_reads_it_while_it_is_updated(
    tmp_path: Path, kind: str
) -> None:
    """A chain of hashes in each of its transactions, whole, and never an older one."""
    if why := lacks(kind):
        pytest.skip(why)
    path, copy = tmp_path / "app.db", tmp_path / "copy" / "f.db"
    log = StateLog(tmp_path / "log", exact=False)
    with closing(connect(path)) as db:
        db.execute("pragma journal_mode=wal").fetchall()
        writer = Writer(db, log, random.Random(kind))
        writer.set_up()
        with (
            Replicator(path, [tmp_path / "replica"], sync_interval=0.02),
            Follower(tmp_path / "replica", copy, interval=0.01) as follower,
        ):
            follower.wait(1, timeout=120)
            reader = Reader(copy, kind)
            try:
                deadline = time.monotonic() + 120
                while reader.moves < STATES and reader.is_running:
                    writer.change()
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                (newest,) = db.execute("select max(seq) from ledger").fetchone()
                while reader.last < newest and reader.is_running:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                assert reader.finish()[1] == newest
            finally:
                reader.kill()
            assert follower.status().error is None
