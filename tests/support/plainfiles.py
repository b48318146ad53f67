"""Databases as the images that a followed file goes through."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from support.histories import steps

from sqlitereplica.ltx import database_checksum, lock_pgno, page_checksum
from sqlitereplica.restore.held import (
    Goal,
    Held,
    HeldFile,
    as_plain,
    cookie_of,
    head_of,
)
from sqlitereplica.restore.livefile import LiveFile
from sqlitereplica.sqlite import SourceBusyError

__all__ = ["Image", "begin", "images_of", "open_file"]


class Image:
    """A database image, as pages."""

    def __init__(self, data: bytes, txid: int) -> None:
        size = int.from_bytes(data[16:18], "big")
        self.data = data
        self.page_size = 65536 if size == 1 else size
        self.commit = len(data) // self.page_size
        self.lock = lock_pgno(self.page_size)
        sums = [
            page_checksum(pgno, self.page(pgno)) for pgno in range(1, self.commit + 1)
        ]
        self.goal = Goal(
            txid=txid,
            timestamp=txid,
            page_size=self.page_size,
            commit=self.commit,
            checksum=database_checksum(sums),
        )

    def pgnos(self) -> list[int]:
        """All of them."""
        return list(range(1, self.commit + 1))

    def page(self, pgno: int) -> bytes:
        """One page."""
        return self.data[(pgno - 1) * self.page_size : pgno * self.page_size]

    def plain(self, counter: int, cookie: int | None = None) -> bytes:
        """What a followed file has of it, with its own cookie by default."""
        own = cookie_of(self.data) if cookie is None else cookie
        first = as_plain(self.page(1), self.commit, counter, own)
        return first + self.data[self.page_size :]


def images_of(path: Path, page_size: int = 4096, *, rounds: int = 1) -> Iterator[Image]:
    """A database in WAL mode that grows, changes, shrinks and is vacuumed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"pragma page_size={page_size}")
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(id integer primary key, v)")
        txid = 1
        yield Image(db.serialize(), txid)
        for _ in range(rounds):
            for _step in steps(db, page_size):
                txid += 1
                yield Image(db.serialize(), txid)


def begin(path: Path, image: Image, counter: int = 7) -> HeldFile:
    """Make a followed file that holds an image."""
    path.write_bytes(image.plain(counter))
    notes = HeldFile(path.with_name(f".{path.name}.held"))
    goal = image.goal
    notes.note(
        Held(
            txid=goal.txid,
            timestamp=goal.timestamp,
            page_size=goal.page_size,
            commit=goal.commit,
            checksum=goal.checksum,
            counter=counter,
            head=head_of(image.page(1)),
            cookie=cookie_of(image.data),
        )
    )
    return notes


def open_file(path: Path) -> LiveFile:
    """The file, opened to be changed; as often as somebody is in the way."""
    notes = HeldFile(path.with_name(f".{path.name}.held"))
    end = time.monotonic() + 60
    while True:
        try:
            return LiveFile(str(path), sqlite3.connect, notes, copy="sqlite3")
        except SourceBusyError:
            if time.monotonic() > end:
                raise
            time.sleep(0.001)
