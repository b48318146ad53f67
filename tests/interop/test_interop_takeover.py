"""One database, one replica, and two tools that take turns on it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.histories import fill
from support.litestream import Litestream
from support.places import Place
from support.servers import S3Server

from sqlitereplica import AnotherWriterError, Replicator, restore

pytestmark = pytest.mark.interop

TURNS = int(os.environ.get("INTEROP_TURNS", "5"))

WRITER = """
import random, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
c.execute("pragma wal_autocheckpoint=0")
r = random.Random(int(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        c.execute("begin immediate")
        for _ in range(r.choice((1, 1, 5, 40))):
            c.execute("insert into t(v) values(?)", (r.randbytes(r.randrange(900)),))
        c.execute("delete from t where id % 50 = ?", (r.randrange(50),))
        c.execute("commit")
        time.sleep(r.random() / 200)
    print("done", flush=True)
"""


class App:
    """Another process that writes when told."""

    def __init__(self, database: Path, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, database, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer("ready")

    def begin(self, transactions: int) -> None:
        """Let it write, and go on at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{transactions}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Return when it has written."""
        self._answer("done")

    def write(self, transactions: int) -> None:
        """Let it write."""
        self.begin(transactions)
        self.end()

    def _answer(self, expected: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == expected

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


@contextmanager
def app(place: Place, seed: int = 1) -> Iterator[App]:
    """An application that has the database open for the time being."""
    writer = App(place.database, seed)
    try:
        yield writer
    finally:
        writer.close()


@pytest.fixture
def local(tmp_path: Path, litestream: Litestream) -> Place:
    """A database with a table and 100 rows; its replica is a folder, and empty."""
    return with_rows(Place.local(tmp_path, litestream))


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, litestream: Litestream
) -> Place:
    """As ``local``, and also with a replica on S3."""
    if request.param == "file":
        return with_rows(Place.local(tmp_path, litestream))
    server: S3Server = request.getfixturevalue("s3_server")
    if not server.filesystem().exists("takeover"):
        server.make_bucket("takeover")
    path = f"{tmp_path.name}/app"
    return with_rows(Place.on_s3(tmp_path, litestream, server, "takeover", path))


def with_rows(place: Place) -> Place:
    """Make the database."""
    with closing(make_database(place.database)) as connection:
        fill(connection, 100)
    return place


def test_litestream_takes_over_from_us(place: Place) -> None:
    """It goes on with the next TXID; what we wrote stays as it was."""
    images = {}
    with app(place) as writer, place.ours() as replicator:
        for _ in range(3):
            writer.write(10)
            replicator.sync()
            images[place.txid] = serialized(place.database)
    before, last = place.contents(), place.txid
    with app(place) as writer, place.theirs() as daemon:
        writer.write(10)
        daemon.sync()
        writer.write(10)
    place.agree()
    assert place.txid > last + 1
    after = place.contents()
    assert after.items() >= before.items()
    assert sorted(n for level, n, _ in after if level == 0) == [
        *range(1, place.txid + 1)
    ]
    for txid, image in images.items():
        assert place.at_txid(txid) == image


def test_we_take_over_from_litestream_and_ship_what_differs(place: Place) -> None:
    """Its files record no checksum, so we read the replica once, and write little."""
    with closing(sqlite3.connect(place.database)) as connection:
        fill(connection, 3000)
        connection.commit()
    with app(place) as writer, place.theirs() as daemon:
        writer.write(5)
        daemon.sync()
        writer.write(5)
    place.agree()
    before, last = place.contents(), place.txid
    with closing(sqlite3.connect(place.database)) as connection:
        connection.execute("update t set v = 7 where id = (select min(id) from t)")
        connection.commit()
    with place.ours() as replicator:
        replicator.sync()
        assert replicator.status().txid == last + 1
        place.agree()
    new = {key: data for key, data in place.contents().items() if key not in before}
    assert list(new) == [(0, last + 1, last + 1)]
    assert len(new[0, last + 1, last + 1]) < 3 * 4200
    assert place.contents().items() >= before.items()


def test_we_take_over_from_litestream_and_nothing_changed(place: Place) -> None:
    """In step already: no file is written until there is something to write."""
    place.once()
    before = place.contents()
    with app(place) as writer, place.ours() as replicator:
        replicator.sync()
        assert place.contents() == before
        writer.write(3)
        replicator.sync()
        assert replicator.status().txid == place.txid == max(before)[2] + 1
    place.agree()


def test_tools_that_alternate_leave_no_gap(local: Place) -> None:
    """Ours, nobody, theirs, nobody, and so on, while the application writes."""
    images = {}
    seen: dict[tuple[int, int, int], bytes] = {}
    with app(local) as writer:
        for turn in range(TURNS):
            if turn % 2 == 0:
                with local.ours() as replicator:
                    writer.write(8)
                    replicator.sync()
                    writer.write(8)
            else:
                with local.theirs() as daemon:
                    writer.write(8)
                    daemon.sync()
                    writer.write(8)
            images[local.txid] = serialized(local.database)
            assert local.latest() == images[local.txid]
            contents = local.contents()
            assert contents.items() >= seen.items()
            seen = contents
            if turn % 3 != 2:
                writer.write(10)
            if turn % 3 == 1:
                with closing(sqlite3.connect(local.database)) as connection:
                    connection.execute("vacuum")
                    connection.execute("pragma wal_checkpoint(truncate)")
    for txid, image in images.items():
        assert local.at_txid(txid) == image
    assert [n for level, n, _ in sorted(seen) if level == 0] == [
        *range(1, local.txid + 1)
    ]


def test_turn_in_which_nothing_happened_is_no_gap(local: Place) -> None:
    """A tool that comes back finds the TXID that it knows, but another WAL."""
    with app(local) as writer:
        for turn in range(3):
            with local.theirs():
                writer.write(3)
            last = local.txid
            with local.ours() as replicator:
                replicator.sync()
                if turn:
                    with closing(sqlite3.connect(local.database)) as connection:
                        connection.execute("pragma wal_checkpoint(truncate)")
            assert local.txid == last
            local.agree()


def test_database_restored_by_one_is_continued_by_the_other(local: Place) -> None:
    """Each goes on from the other's restore on a new machine, without its metadata."""
    with app(local) as writer, local.ours():
        writer.write(5)
    for turn in range(3):
        last, expected = local.txid, serialized(local.database)
        lose(local)
        if turn % 2 == 0:
            local.litestream.run("restore", "-o", local.database, local.url)
        else:
            restore(local.replica, local.database)
        assert serialized(local.database) == expected
        with app(local, turn) as writer:
            with local.ours() if turn % 2 == 0 else local.theirs():
                writer.write(5)
        local.agree()
        assert local.txid > last
    assert [f.min_txid for f in local.files(0)] == [*range(1, local.txid + 1)]


def lose(place: Place) -> None:
    """Lose the database and what both tools keep beside it."""
    for path in place.folder.glob("*app.db*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_compaction_by_litestream_over_files_of_both(local: Place) -> None:
    """Its levels may hold our files and its own; we go on after them when ours are gone."""
    quick = {
        "levels": [{"interval": "1s"}, {"interval": "2s"}],
        "l0_retention": "1ms",
        "l0_retention_check_interval": "100ms",
        "verify_compaction": True,
    }
    with app(local) as writer:
        for _ in range(2):
            with local.ours(sync_interval=0.02):
                writer.write(10)
            with local.theirs(**quick) as daemon:
                writer.write(10)
                daemon.sync()
                wait_for_pruning(local)
            local.agree()
        last = local.txid
        with local.ours() as replicator:
            replicator.sync()
            writer.write(10)
        local.agree()
        assert local.txid in (last + 1, last + 2)


def wait_for_pruning(place: Place) -> None:
    """Return when level 0 is down to the file that is always kept."""
    deadline = time.monotonic() + 80
    while len([f for f in place.replica.open().list_all() if f.level == 0]) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_writers_at_once_are_noticed(place: Place) -> None:
    """We refuse to go on beside a daemon, and take over once it has ended."""
    with app(place) as writer:
        with place.theirs() as daemon:
            daemon.sync()
            replicator = place.ours()
            replicator.start()
            replicator.sync()
            writer.write(1)
            daemon.sync()
            with pytest.raises(AnotherWriterError):
                replicator.sync()
            assert replicator.status().replicas[0].state == "failed"
            with pytest.raises(AnotherWriterError):
                replicator.stop()
        place.agree()
        with place.ours():
            writer.write(2)
        place.agree()


def test_we_capture_beside_a_litestream_daemon(local: Place, tmp_path: Path) -> None:
    """Its checkpoints and its long read transaction do not cost us a frame.

    Ours may cost it some: it loses frames when others checkpoint at a bad moment, be it
    the application itself. So its replica is not looked at here.
    """
    second = tmp_path / "second"
    with app(local) as one, app(local, 2) as two:
        ours = Replicator(local.database, second, sync_interval=0.02)
        with local.theirs(), ours:
            one.begin(100)
            two.begin(100)
            one.end()
            two.end()
            assert ours.status().error is None
        with ours:  # the daemon wrote to the database when it ended
            ours.sync()
    restore(second, tmp_path / "restored.db")
    assert (tmp_path / "restored.db").read_bytes() == serialized(local.database)
