"""``verify`` on what the real Litestream writes: no false alarm, no blind spot."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.litestream import Litestream
from support.places import Place, only_litestream_checkpoints
from support.replicas import flipped
from support.troubled import TroubledStore, overwrite

from sqlitereplica import VerifyReport, verify
from sqlitereplica.ltx import HEADER_SIZE, SNAPSHOT_LEVEL, Header, decode, encode

pytestmark = pytest.mark.interop

BUSY = {
    "levels": [{"interval": "1s"}, {"interval": "2s"}],
    "snapshot": {"interval": "2s", "retention": "3s"},
    "l0_retention": "1s",
    "l0_retention_check_interval": "500ms",
}
ENOUGH = 30.0


@pytest.fixture
def place(tmp_path: Path, litestream: Litestream) -> Place:
    """A database and its replica in a folder."""
    return Place.local(tmp_path, litestream)


def connect(place: Place) -> sqlite3.Connection:
    """The application's connection."""
    connection = sqlite3.connect(place.database, isolation_level=None, timeout=20)
    connection.execute("pragma journal_mode=wal")
    only_litestream_checkpoints(connection)
    connection.execute("create table if not exists t(id integer primary key, v)")
    return connection


def work(connection: sqlite3.Connection, rng: random.Random) -> None:
    """Write, delete, and now and then vacuum: pages move and the file shrinks."""
    connection.execute("begin immediate")
    for _ in range(rng.choice((1, 1, 5, 30))):
        row = (rng.randbytes(rng.randrange(10, 3000)),)
        connection.execute("insert into t(v) values(?)", row)
    if rng.random() < 0.3:
        some = "select id from t order by random() limit 40"
        connection.execute(f"delete from t where id in ({some})")
    connection.execute("commit")
    if rng.random() < 0.05:
        connection.execute("vacuum")


def sound(report: VerifyReport) -> bool:
    """True if nothing is wrong; else the report is shown."""
    assert report.ok, report
    return True


def test_living_replica_of_a_busy_daemon_raises_no_false_alarm(place: Place) -> None:
    """It compacts, takes snapshots and deletes while it is verified, at every level."""
    rng = random.Random(1)
    with closing(connect(place)) as connection:
        work(connection, rng)
        with place.theirs(**BUSY):
            deadline = time.monotonic() + ENOUGH
            levels: set[int] = set()
            rounds = pruned = 0
            while not (levels >= {0, 1, 2, 9} and pruned and rounds > 15):
                assert time.monotonic() < deadline, (levels, pruned, rounds)
                work(connection, rng)
                for level in ("listing", "checksums", "restore"):
                    assert sound(verify(place.replica, level))  # type: ignore[arg-type]
                levels |= place.levels()
                pruned += place.files()[0].min_txid > 1
                rounds += 1
        report = verify(place.replica, "restore", at_least=place.txid)
    assert sound(report)
    assert report.files_signed == 0
    assert report.restored is not None and report.restored.txid == place.txid


def test_damage_to_any_file_of_litestream_is_found(place: Place) -> None:
    """A wrong bit in each file in turn, and each file lost in turn."""
    rng = random.Random(2)
    with closing(connect(place)) as connection:
        with place.theirs() as daemon:
            for _ in range(5):
                work(connection, rng)
                daemon.sync()
    store = TroubledStore.at(place.folder / "replica")
    files = store.list_all()
    assert len(files) >= 5
    newest = files[-1].max_txid
    for file in files:
        data = store.get(file)
        # In a checksum: LZ4 may say the same page in another way.
        overwrite(store, file, flipped(data, len(data) - 1 - rng.randrange(7), 3))
        assert [f.name for f in verify(store).bad_files] == [file.name]
        store.delete([file])
        assert not verify(store, "listing", at_least=newest).ok
        store.put(0, file.min_txid, file.max_txid, data, timestamp=file.timestamp)
    assert sound(verify(store, "restore"))


def test_history_of_both_writers_is_one(place: Place) -> None:
    """Ours, theirs, ours again: files with and without checksums join."""
    rng = random.Random(3)
    with closing(connect(place)) as connection:
        for turn in range(3):
            if turn == 1:
                with place.theirs(**BUSY) as daemon:
                    deadline = time.monotonic() + ENOUGH
                    while 1 not in place.levels():
                        assert time.monotonic() < deadline
                        work(connection, rng)
                        daemon.sync()
                continue
            with place.ours() as replicator:
                for _ in range(3):
                    work(connection, rng)
                    replicator.sync()
                replicator.snapshot()
        report = verify(place.replica, "restore", at_least=place.txid)
    assert sound(report)
    assert 0 < report.files_signed < report.files


def test_snapshot_of_litestream_is_held_against_its_increments(place: Place) -> None:
    """It records no checksum; one of another moment is noticed all the same."""
    rng = random.Random(4)
    with closing(connect(place)) as connection:
        with place.theirs(snapshot={"interval": "1s", "retention": "1h"}) as daemon:
            deadline = time.monotonic() + ENOUGH
            while len(place.files(SNAPSHOT_LEVEL)) < 2:
                assert time.monotonic() < deadline
                work(connection, rng)
                daemon.sync()
    store = TroubledStore.at(place.folder / "replica")
    first, second = store.list_level(SNAPSHOT_LEVEL)[:2]
    assert sound(verify(store))
    header = Header.unpack(store.get(first, 0, HEADER_SIZE))
    assert header.post_checksum == 0
    overwrite(store, second, renamed(store.get(first), second.max_txid))
    report = verify(store)
    conflicts = [f for f in report.bad_files if f.kind == "conflict"]
    assert conflicts and all(f.max_txid == second.max_txid for f in conflicts[:1])


def renamed(data: bytes, txid: int) -> bytes:
    """The same pages as the snapshot of another transaction."""
    header, pages = decode(data)
    return encode(replace(header, max_txid=txid), pages)
