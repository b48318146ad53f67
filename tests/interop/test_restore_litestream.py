"""Our restores against ``litestream restore``: the same bytes, or both refuse."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.bothrestore import Both
from support.daemon import Daemon
from support.litestream import Litestream
from support.recording import START, Recording

from sqlitereplica.restore import reachable_txids, restore
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.interop


def test_what_litestream_wrote_is_restored_as_litestream_restores_it(
    litestream: Litestream, tmp_path: Path
) -> None:
    """Growth, VACUUM, shrinking and regrowth: the latest state and every TXID."""
    database, replica = tmp_path / "source.db", tmp_path / "replica"
    insert = "INSERT INTO t SELECT randomblob(700) FROM generated LIMIT "
    steps = [
        f"{insert} 300",
        "UPDATE t SET b = randomblob(800) WHERE rowid % 9 = 0",
        "DELETE FROM t WHERE rowid > 20",
        "VACUUM",
        f"{insert} 5",
        f"{insert} 200",
        "CREATE INDEX i ON t(b)",
        "DELETE FROM t WHERE rowid % 2 = 0",
        "VACUUM",
        f"{insert} 40",
    ]
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t(b)")
        connection.execute(
            "CREATE VIEW generated AS WITH RECURSIVE n(i) AS"
            " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n"
        )
        with Daemon(litestream, database, replica.as_uri()) as daemon:
            for step in steps:
                connection.execute(step)
                daemon.sync()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        content = list(connection.iterdump())
    files = LTXStore.open(replica).list_all()
    assert max(file.max_txid for file in files) > len(steps)

    both = Both(litestream, replica, tmp_path / "out")
    latest = both.latest()
    sizes = set()
    for txid in range(1, max(file.max_txid for file in files) + 2):
        image = both.at_txid(txid)
        assert (image is not None) == (txid in reachable_txids(files))
        sizes.add(len(image or b""))
    assert len(sizes) > 5, "the database grew and shrank"
    assert latest is not None
    restored = tmp_path / "latest.db"
    restored.write_bytes(latest)
    with closing(sqlite3.connect(restored)) as connection:
        assert list(connection.iterdump()) == content


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Twelve small transactions, to be arranged in levels."""
    folder = tmp_path_factory.mktemp("recorded")
    made = Recording(folder / "source.db", LTXStore.open(folder / "x"), page_size=1024)
    made.commit("CREATE TABLE t(b)", "INSERT INTO t VALUES (zeroblob(30000))")
    for number in range(10):
        made.commit(f"INSERT INTO t VALUES (randomblob({number * 900}))")
        if number == 5:
            made.commit("DELETE FROM t WHERE rowid < 4", "VACUUM")
    made.close()
    return made


@pytest.mark.parametrize("seed", range(6))
def test_any_arrangement_of_files_is_restored_as_litestream_restores_it(
    litestream: Litestream, recorded: Recording, tmp_path: Path, seed: int
) -> None:
    """Overlaps, duplicates in several levels and gaps: the same states, same refusals."""
    rng = random.Random(seed)
    replica = tmp_path / "replica"
    recorded.store = LTXStore.open(replica)
    arrange(recorded, rng)
    files = recorded.store.list_all(accurate=True)
    both = Both(litestream, replica, tmp_path / "out")
    image = both.latest()
    assert image is None or image in recorded.images
    for txid in range(1, recorded.txid + 1):
        image = both.at_txid(txid)
        assert image in (None, recorded.images[txid])
        assert (image is not None) == (txid in reachable_txids(files))
    first, last = (f(file.timestamp for file in files) for f in (min, max))
    for timestamp in range(first + 1, last, 500):
        image = both.before(timestamp)
        assert (
            image is None or image in recorded.images[: (timestamp - START) // 1000 + 1]
        )


def arrange(recorded: Recording, rng: random.Random) -> None:
    """Publish some of all files that there could be, with a base among them."""
    recorded.publish(9, 1, rng.randint(1, 5))
    for txid in range(1, recorded.txid + 1):
        if rng.random() < 0.7:
            recorded.publish(0, txid, txid)
    for _ in range(7):
        first = rng.randint(1, recorded.txid - 1)
        last = rng.randint(first + 1, min(recorded.txid, first + 5))
        recorded.publish(rng.randint(1, 3), first, last)


def test_copy_over_what_litestream_wrote_is_restored_in_full(
    litestream: Litestream, tmp_path: Path
) -> None:
    """Its files have no database checksum to prove the result by: no page is reused."""
    database, replica = tmp_path / "source.db", tmp_path / "replica"
    ours = tmp_path / "ours.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t(b)")
        with Daemon(litestream, database, replica.as_uri()) as daemon:
            daemon.sync()
            restore(replica, ours)
            connection.execute("INSERT INTO t VALUES (randomblob(200000))")
            daemon.sync()
    theirs = tmp_path / "theirs.db"
    litestream.run("restore", "-o", theirs, replica.as_uri())
    for _ in range(2):
        result = restore(replica, ours, if_exists="replace")
        assert result.restored and result.pages_reused == 0
        assert ours.read_bytes() == theirs.read_bytes()


def test_page_checksums_beside_the_levels_are_nothing_to_litestream(
    litestream: Litestream, tmp_path: Path
) -> None:
    """It restores the same bytes from such a replica, and we do over any copy."""
    made = Recording(tmp_path / "source.db", LTXStore.open(tmp_path / "replica"))
    made.commit("CREATE TABLE t(b)", "INSERT INTO t VALUES (randomblob(900000))")
    made.commit("UPDATE t SET b = randomblob(900000)")
    made.publish(9, 1, 2)
    made.publish_sums(2)
    made.commit("INSERT INTO t VALUES (1)")
    made.close()
    theirs, ours = tmp_path / "theirs.db", tmp_path / "ours.db"
    litestream.run("restore", "-o", theirs, (tmp_path / "replica").as_uri())
    ours.write_bytes(made.images[2])
    result = restore(made.store, ours, if_exists="replace")
    assert ours.read_bytes() == theirs.read_bytes() == made.images[3]
    assert result.pages_reused > 200
