"""A capture whose increments are put together again, to compare with the database."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlitereplica.capture import Capture, Changes, CheckpointLimits, Increment
from sqlitereplica.ltx import Decoder, database_checksum, lock_pgno, page_checksum


class Captured:
    """Runs a ``Capture`` step by step and keeps the image that its increments make."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[str], Any] = sqlite3.connect,
        *,
        buffer_size: int = 32 << 20,
        limits: CheckpointLimits | None = None,
    ) -> None:
        self.path = path
        self.pages: dict[int, bytes] = {}
        self.increments: list[Increment] = []
        spool = path.with_name("spool")
        spool.mkdir(exist_ok=True)
        self.capture = Capture(
            str(path),
            connect,
            copy="sqlite3",
            emit=self._emit,
            spool=spool,
            buffer_size=buffer_size,
            limits=limits,
        )
        self.attach()

    def attach(self) -> None:
        """Attach, and take the whole state as the image."""
        self.capture.attach()
        view = self.capture.view()
        self.pages = dict(view.all_pages())
        view.release()

    def _emit(self, increment: Increment, changes: Changes) -> None:
        assert dict(changes).keys() == set(increment.pgnos)
        body = increment.body
        assert body is not None
        if isinstance(body, Path):
            decoder = Decoder(io.BytesIO(body.read_bytes()))
            body = dict(decoder.pages())
        assert isinstance(body, dict)
        commit = increment.state.commit
        assert set(body) == set(increment.pgnos)
        assert max(body) <= commit
        self.pages.update(body)
        for pgno in [p for p in self.pages if p > commit]:
            del self.pages[pgno]
        self.increments.append(increment)

    def sync(self) -> None:
        """Capture all that is committed, and make an increment of it."""
        self.capture.step()
        self.capture.flush()

    def image(self) -> bytes:
        """The database as the increments have it."""
        size = self.capture.table.page_size
        blank = bytes(size)
        commit = self.capture.table.commit
        found = b"".join(self.pages.get(p, blank) for p in range(1, commit + 1))
        lock = lock_pgno(size)
        sums = (page_checksum(p, b) for p, b in self.pages.items() if p != lock)
        assert database_checksum(sums) == self.capture.table.checksum
        assert set(self.pages) | {lock} >= set(range(1, commit + 1))
        return found

    def close(self) -> None:
        """Detach."""
        self.capture.detach()


def serialized(path: Path) -> bytes:
    """The database as SQLite reads it, WAL included: equal to a checkpointed file."""
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.serialize()
    finally:
        connection.close()


def same(captured: Captured) -> bool:
    """True when the image is the database."""
    captured.sync()
    return digest(captured.image()) == digest(serialized(captured.path))


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def make_database(
    path: Path, *, page_size: int = 4096, auto_vacuum: int = 0
) -> sqlite3.Connection:
    """A WAL database with a table ``t(id, v)``; the connection stays open."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute(f"pragma page_size={page_size}")
    connection.execute(f"pragma auto_vacuum={auto_vacuum}")
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t(id integer primary key, v)")
    return connection
