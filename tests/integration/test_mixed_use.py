"""Applications of several kinds at once: pools, apsw, other processes, attached databases."""

from __future__ import annotations

import os
import queue
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
from support.capturing import make_database, serialized
from support.histories import fill

from sqlitereplica import MixedSQLiteCopiesError, Replicator, restore

ROUNDS = int(os.environ.get("MIXED_ROUNDS", "60"))

WRITER = """
import random, sqlite3, sys
r = random.Random(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    c = sqlite3.connect(sys.argv[1], timeout=60)
    with c:
        c.execute("begin immediate")
        for _ in range(r.choice((1, 1, 2, 30))):
            c.execute("insert into t(v) values(?)", (r.randbytes(r.randrange(2000)),))
        c.execute("delete from t where id % 97 = ?", (r.randrange(97),))
    c.close()
"""


@contextmanager
def other_processes(database: Path, count: int) -> Iterator[None]:
    """Processes that open the database with the stdlib, write and close, again and again."""
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, database, str(n), str(ROUNDS)])
        for n in range(count)
    ]
    yield
    for process in processes:
        assert process.wait(90) == 0


class Pool:
    """A pool as ORMs have them: bounded, lends connections, closes some on return."""

    def __init__(self, database: Path, size: int) -> None:
        self._database = database
        self._idle: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)

    @contextmanager
    def connection(self, *, recycle: bool) -> Iterator[sqlite3.Connection]:
        """Lend a connection; roll back what was left open, and keep or close it."""
        connection = self._idle.get() or sqlite3.connect(
            self._database, isolation_level=None, timeout=60, check_same_thread=False
        )
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("rollback")
            if recycle:
                connection.close()
            self._idle.put(None if recycle else connection)

    def close(self) -> None:
        """Close the idle connections."""
        while not self._idle.empty():
            connection = self._idle.get()
            if connection is not None:
                connection.close()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(n)`` in threads; an error in any is raised here."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)  # raised below

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def check_exact(replica: Path, database: Path) -> None:
    """What the replica gives is the database, to the byte, and sound."""
    output = replica.with_suffix(".restored")
    restore(replica, output, verify="full")
    assert output.read_bytes() == serialized(database)


@pytest.mark.parametrize("recycled", [0.02, 0.9])
def test_pool_of_connections_that_come_and_go(recycled: float, tmp_path: Path) -> None:
    """Threads share a pool, hold reads open, roll back, wait for durability."""
    database, replica = tmp_path / "app.db", tmp_path / "replica"
    make_database(database).close()
    pool = Pool(database, 5)
    with Replicator(database, replica, sync_interval=0.02) as replicator:

        def work(seed: int) -> None:
            rng = random.Random(seed)
            for number in range(ROUNDS):
                with pool.connection(recycle=rng.random() < recycled) as connection:
                    connection.execute("begin immediate" if number % 3 else "begin")
                    connection.execute("select count(*) from t").fetchone()
                    if number % 3:
                        fill(connection, rng.choice((1, 5, 60)))
                        connection.execute("delete from t where id % 89 = ?", (number,))
                    if number % 7:
                        connection.execute("commit")
                if number % 20 == 0:
                    replicator.sync()

        with other_processes(database, 1):
            in_threads(8, work)
        pool.close()
        assert replicator.status().error is None
    check_exact(replica, database)


def test_application_on_apsw_beside_processes_on_the_stdlib(tmp_path: Path) -> None:
    """Two versions of SQLite on one file, in processes of their own, as they should be."""
    database, replica = tmp_path / "app.db", tmp_path / "replica"
    make_database(database).close()
    replicator = Replicator(
        database, replica, connect=apsw.Connection, sync_interval=0.02
    )

    def work(seed: int) -> None:
        rng = random.Random(seed)
        connection = apsw.Connection(str(database))
        connection.set_busy_timeout(60_000)
        for number in range(ROUNDS):
            with connection:
                row = (rng.randbytes(rng.randrange(1500)),)
                connection.execute("insert into t(v) values(?)", row)
            if number % 10 == 0:
                connection.close()
                connection = apsw.Connection(str(database))
                connection.set_busy_timeout(60_000)
        connection.close()

    with replicator, other_processes(database, 2):
        in_threads(3, work)
        with pytest.raises(MixedSQLiteCopiesError):
            sqlite3.connect(database)
        replicator.sync()
        assert replicator.status().error is None
    check_exact(replica, database)
    files = sorted(replica.glob("ltx/0/*.ltx"))
    with replicator:  # once more: all is there already
        replicator.sync()
    assert sorted(replica.glob("ltx/0/*.ltx")) == files


def test_transactions_over_attached_databases(tmp_path: Path) -> None:
    """Two databases, two Replicators, one process: each replica is exact."""
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    for path in (first, second):
        make_database(path).close()
    one = Replicator(first, tmp_path / "one", sync_interval=0.02)
    two = Replicator(second, tmp_path / "two", sync_interval=0.02)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for number in range(ROUNDS):
            with closing(
                sqlite3.connect(first, isolation_level=None, timeout=60)
            ) as connection:
                connection.execute("attach ? as other", (str(second),))
                connection.execute("begin immediate")
                fill(connection, rng.choice((1, 20)))
                row = (number, rng.randbytes(rng.randrange(3000)))
                connection.execute("insert into other.t(v) values(? || hex(?))", row)
                connection.execute("commit" if rng.random() < 0.9 else "rollback")

    with one, two:
        in_threads(4, work)
        one.sync()
        two.sync()
    check_exact(tmp_path / "one", first)
    check_exact(tmp_path / "two", second)
    with closing(sqlite3.connect(first)) as connection:
        connection.execute("attach ? as other", (str(second),))
        assert connection.execute("select count(*) from other.t").fetchone()[0] > ROUNDS


def test_every_connection_of_the_application_is_closed_again_and_again(
    tmp_path: Path,
) -> None:
    """Between two uses nobody but the Replicator has the database open; the WAL stays."""
    database, replica = tmp_path / "app.db", tmp_path / "replica"
    make_database(database).close()
    with Replicator(database, replica, sync_interval=0.02) as replicator:
        replicator.sync()  # start() returns before the Replicator's own connection is there
        for number in range(ROUNDS):
            with closing(sqlite3.connect(database)) as connection, connection:
                fill(connection, number % 9 + 1)
            assert Path(f"{database}-wal").exists()
        replicator.sync()
    assert not Path(f"{database}-wal").exists()
    check_exact(replica, database)
