"""A database that names its own state, and a log outside of it of all states it had.

The table ``ledger(seq, prev, payload, hash)`` is a hash chain, so that any copy of the
database tells which rows it must have. The *log* is a file beside it with a digest of the
whole database (``serialize()``) for every commit. Whoever commits holds a lock on the log:
it writes ``B`` before and ``D <digest>`` after the commit. One that was killed in between
leaves the ``B`` as the last line, and the next in turn writes what the commit came to. So
the log has every state that any process can have seen, in their order.

Only the standard library is imported here: the processes that write and judge start fast.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "COLD",
    "Judge",
    "StateLog",
    "Writer",
    "connect",
    "digest_of",
    "examine",
    "image_of",
]

COLD_ROWS, COLD = 60, b"never touched"
"""Rows of 4000 bytes that nobody ever touches, one on a page; they begin with this."""
MOST_ROWS, FEWEST_ROWS = 1500, 500
MOST_BLOBS, BIGGEST_BLOB = 25, 150_000
GENESIS = "0" * 64


def connect(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open a database as the application here does."""
    return sqlite3.connect(
        path, isolation_level=None, timeout=30, check_same_thread=False
    )


def image_of(connection: sqlite3.Connection) -> bytes:
    """The database as the connection sees it; empty while it has not begun."""
    (pages,) = connection.execute("pragma page_count").fetchone()
    return connection.serialize() if pages else b""


def digest_of(image: bytes) -> str:
    """SHA-256 of a database image, but for what a change of the journal mode touches.

    These are the format versions, the change counter and the number that says for which
    change counter the size is valid: the Replicator may switch a database to WAL. And the
    leaves of the free list: in journal mode DELETE SQLite does not write those that a
    transaction frees, so that its own connection sees others than the next one does.
    """
    blank = bytearray(image)
    for first, last in ((18, 20), (24, 28), (92, 96)):
        blank[first:last] = bytes(last - first)
    size = int.from_bytes(image[16:18], "big")
    for pgno in _free_leaves(image, size):
        blank[(pgno - 1) * size : pgno * size] = bytes(size)
    return hashlib.sha256(blank).hexdigest()


def _free_leaves(image: bytes, size: int) -> Iterator[int]:
    """Page numbers of the free list's leaves (fileformat2.html section 1.5)."""

    def number(at: int) -> int:
        return int.from_bytes(image[at : at + 4], "big")

    trunk = number(32)
    while trunk:
        start = (trunk - 1) * size
        yield from (number(start + 8 + 4 * i) for i in range(number(start + 4)))
        trunk = number(start)


def chained(prev: str, seq: int, payload: bytes) -> str:
    """The hash of a row of the ledger."""
    return hashlib.sha256(f"{prev}:{seq}:".encode() + payload).hexdigest()


class StateLog:
    """The log of states; one object per process."""

    def __init__(self, path: str | os.PathLike[str], *, exact: bool = True) -> None:
        """Open the log. ``exact``: digests are of all bytes, see ``digest_of``."""
        self.exact = exact
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    def digest(self, image: bytes) -> str:
        """The digest of a state, as this log has them."""
        return hashlib.sha256(image).hexdigest() if self.exact else digest_of(image)

    @property
    def size(self) -> int:
        """Bytes of the log: a place in the order of states."""
        return os.fstat(self._fd).st_size

    @contextmanager
    def turn(self, now: Callable[[], str]) -> Iterator[None]:
        """Be the only one who commits; settle first what a killed one left open.

        ``now()`` is the digest of the database as it is.
        """
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            tail = os.pread(self._fd, 200, max(0, self.size - 200))
            if tail and not tail.endswith(b"\n"):
                self._write("\n")
            if tail and not tail.splitlines()[-1].startswith(b"D"):
                self.committed(now())
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def begin(self, what: str) -> None:
        """Say that a commit is about to come."""
        self._write(f"B {what}\n")

    def committed(self, digest: str) -> None:
        """Record the state after a commit."""
        self._write(f"D {digest}\n")

    def _write(self, line: str) -> None:
        os.write(self._fd, line.encode())

    def states(self) -> list[tuple[int, str]]:
        """(place after its line, digest) of every state, in order."""
        return [(at, line[2:]) for at, line in self._lines() if line.startswith("D ")]

    def places_of(self, what: str) -> list[int]:
        """Places of the commits begun under this name."""
        return [at for at, line in self._lines() if line == f"B {what}"]

    def _lines(self) -> Iterator[tuple[int, str]]:
        at = 0
        for line in os.pread(self._fd, self.size, 0).decode().splitlines(keepends=True):
            at += len(line)
            yield at, line.rstrip("\n")


class Writer:
    """Changes a ledger database in many shapes, with every commit in the log."""

    def __init__(
        self, connection: sqlite3.Connection, log: StateLog, rng: random.Random
    ) -> None:
        self._db, self._log, self._rng = connection, log, rng
        self._shapes: list[tuple[int, Callable[[], None]]] = [
            (30, self.row),
            (15, self.burst),
            (15, self.blob),
            (15, self.churn),
            (8, self.rolled_back),
            (12, self.checkpoint),
            (2, self.vacuum),
        ]

    def set_up(self) -> None:
        """Make the tables if they are not there, in the journal mode that there is."""
        with self._log.turn(self._digest):
            found = self._db.execute("select name from sqlite_master").fetchall()
            if ("ledger",) in found:
                return
            with self._commit("create"):
                self._db.execute("create table cold(v)")
                for _ in range(COLD_ROWS):
                    value = COLD + self._rng.randbytes(4000 - len(COLD))
                    self._db.execute("insert into cold values(?)", (value,))
                self._db.execute(
                    "create table ledger(seq integer primary key, prev text,"
                    " payload blob, hash text)"
                )
                self._db.execute("create index by_hash on ledger(hash)")
                self._db.execute("create table other(id integer primary key, v blob)")

    def change(self) -> None:
        """Do one thing of a random shape."""
        weights, shapes = zip(*self._shapes, strict=True)
        (shape,) = self._rng.choices(shapes, weights)
        with self._log.turn(self._digest):
            shape()

    @contextmanager
    def _commit(self, what: str) -> Iterator[None]:
        self._db.execute("begin immediate")
        yield
        self._log.begin(what)
        self._db.execute("commit")
        self._log.committed(self._digest())

    def row(self) -> None:
        """One small row."""
        with self._commit("row"):
            self._append(1)

    def burst(self) -> None:
        """Many rows; the oldest go when there are too many."""
        with self._commit("burst"):
            self._append(self._rng.randrange(2, 60))
            (first, last) = self._db.execute(
                "select min(seq), max(seq) from ledger"
            ).fetchone()
            if last - first > MOST_ROWS:
                oldest = last - FEWEST_ROWS
                self._db.execute("delete from ledger where seq < ?", (oldest,))

    def blob(self) -> None:
        """A large value in the second table, and a row in the ledger."""
        with self._commit("blob"):
            self._append(1)
            value = self._rng.randbytes(self._rng.randrange(1000, BIGGEST_BLOB))
            number = self._rng.randrange(MOST_BLOBS)
            self._db.execute("replace into other values(?, ?)", (number, value))

    def churn(self) -> None:
        """Updates and deletes in the second table only."""
        with self._commit("churn"):
            number = self._rng.randrange(MOST_BLOBS)
            self._db.execute("delete from other where id = ?", (number,))
            self._db.execute(
                "update other set v = v || x'00' where id % 5 = ?", (number % 5,)
            )

    def rolled_back(self) -> None:
        """Rows that never were, spilled to the disk before they are rolled back."""
        self._db.execute("pragma cache_size=5")
        self._db.execute("begin immediate")
        self._append(50)
        self._db.execute("rollback")
        self._db.execute("pragma cache_size=-2000")

    def checkpoint(self) -> None:
        """A checkpoint of any mode; the state stays the same."""
        mode = self._rng.choice(("passive", "full", "restart", "truncate"))
        self._db.execute(f"pragma wal_checkpoint({mode})").fetchall()

    def vacuum(self) -> None:
        """Write the whole database anew."""
        self._log.begin("vacuum")
        self._db.execute("vacuum")
        self._log.committed(self._digest())

    def _digest(self) -> str:
        return self._log.digest(image_of(self._db))

    def _append(self, count: int) -> None:
        seq, prev = self._db.execute(
            "select seq, hash from ledger order by seq desc limit 1"
        ).fetchone() or (0, GENESIS)
        for _ in range(count):
            seq += 1
            payload = self._rng.randbytes(self._rng.randrange(5, 120))
            after = chained(prev, seq, payload)
            self._db.execute(
                "insert into ledger values(?, ?, ?, ?)", (seq, prev, payload, after)
            )
            prev = after


# -- judging, in a process of its own ----------------------------------------------------


def examine(path: str, exact: bool) -> dict[str, Any]:
    """What SQLite and the ledger say of a database that nobody else writes."""
    db = connect(path)
    db.execute("pragma trusted_schema=off")
    db.execute("pragma cell_size_check=on")
    db.execute("pragma mmap_size=0")
    image = image_of(db)
    report: dict[str, Any] = {
        "digest": hashlib.sha256(image).hexdigest() if exact else digest_of(image),
        "integrity": [r[0] for r in db.execute("pragma integrity_check")],
        "foreign_keys": db.execute("pragma foreign_key_check").fetchall(),
        "last": 0,
        "chain": "ok",
    }
    if db.execute("select 1 from sqlite_master where name = 'ledger'").fetchone():
        report.update(_examine_chain(db))
    db.close()
    return report


def _examine_chain(db: sqlite3.Connection) -> dict[str, Any]:
    expected: tuple[int, str] | None = None
    last = 0
    for seq, prev, payload, found in db.execute("select * from ledger order by seq"):
        if expected is not None and (seq, prev) != expected:
            return {"chain": f"broken before {seq}"}
        if chained(prev, seq, payload) != found:
            return {"chain": f"{seq} is not what it was"}
        expected, last = (seq + 1, found), seq
    (rows,) = db.execute("select count(*) from ledger not indexed").fetchone()
    (indexed,) = db.execute(
        "select count(*) from ledger indexed by by_hash where hash > ''"
    ).fetchone()
    return {"last": last, "chain": "ok" if rows == indexed else "index differs"}


class Judge:
    """Examines databases in another process, which has only SQLite."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def examine(self, path: Path, *, exact: bool = True) -> dict[str, Any]:
        """See ``examine``; also checks that everything is as it should be."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([str(path), exact]).encode() + b"\n")
        self._process.stdin.flush()
        report = json.loads(self._process.stdout.readline())
        assert report["integrity"] == ["ok"], report
        assert report["foreign_keys"] == [], report
        assert report["chain"] == "ok", report
        assert isinstance(report, dict)
        return report

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)


def _judge() -> None:
    for line in sys.stdin:
        path, exact = json.loads(line)
        print(json.dumps(examine(path, exact)), flush=True)


if __name__ == "__main__":
    _judge()
