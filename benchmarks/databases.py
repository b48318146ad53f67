"""Databases to replicate: rows that say in which order they were committed, and bulk."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"\xf0ROW\x0f"
"""What every numbered row begins with."""

PADDING = (b"\x55\xaa\x0c" * 63)[: 200 - len(MAGIC) - 8]
"""What every numbered row ends with."""

_WORDS = (
    "order status was updated to",
    "customer account closed by",
    "shipped via air freight on",
    "payment method changed from",
    "delivery address confirmed",
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection as an application would have it: WAL, NORMAL, autocheckpoint."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
    return connection


def make_empty(path: Path) -> None:
    """A database with the tables and no rows."""
    connection = connect(path)
    _make_tables(connection)
    connection.close()


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("create table if not exists t(id integer primary key, v blob)")
    connection.execute(
        "create table if not exists big(id integer primary key, k, v text, b blob)"
    )
    connection.execute("create index if not exists big_k on big(k)")


def row(number: int) -> bytes:
    """200 bytes that carry a number."""
    return MAGIC + struct.pack(">Q", number) + PADDING


def bulk_rows(seed: int) -> Iterator[tuple[int, str, bytes | None]]:
    """Rows of about 1 KiB of text that LZ4 halves, every 40th with 8 KiB of noise."""
    rng = random.Random(seed)
    pool = "".join(
        f"{rng.randbytes(6).hex()} {rng.choice(_WORDS)}; " for _ in range(50_000)
    )
    top = len(pool) - 2048
    while True:
        at = rng.randrange(top)
        text = pool[at : at + rng.randrange(600, 1400)]
        noise = rng.randbytes(8192) if rng.random() < 1 / 40 else None
        yield rng.randrange(1 << 30), text, noise


def fill(connection: sqlite3.Connection, mib: float, batch: int = 10_000) -> int:
    """Insert bulk rows, a batch a transaction, up to a size; returns transactions."""
    _make_tables(connection)
    rows, transactions = bulk_rows(1), 0
    while _size(connection) < mib * (1 << 20):
        connection.execute("begin")
        connection.executemany(
            "insert into big(k, v, b) values(?, ?, ?)",
            (next(rows) for _ in range(batch)),
        )
        connection.execute("commit")
        transactions += 1
    return transactions


def _size(connection: sqlite3.Connection) -> int:
    pages, size = (
        connection.execute(f"pragma {what}").fetchone()[0]
        for what in ("page_count", "page_size")
    )
    return int(pages * size)


def make_sized(path: Path, mib: float) -> None:
    """A database of about ``mib``, alone in its file."""
    connection = connect(path)
    fill(connection, mib, batch=max(10, min(10_000, int(mib * 100))))
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def copy(source: Path, target: Path) -> None:
    """Copy a database that is alone in its file, and let the disk settle."""
    shutil.copyfile(source, target)
    os.sync()


def change(path: Path, share: float, seed: int = 2) -> int:
    """Change about ``share`` of the pages, spread out; returns the last row's number."""
    connection = connect(path)
    (last,) = connection.execute("select max(id) from big").fetchone()
    pages = connection.execute("pragma page_count").fetchone()[0]
    rng = random.Random(seed)
    chosen = rng.sample(range(1, last + 1), max(1, min(last, int(pages * share))))
    connection.execute("begin")
    connection.executemany(
        "update big set v = substr(v, 2) || 'x' where id = ?", ((i,) for i in chosen)
    )
    number = append_row(connection)
    connection.execute("commit")
    connection.close()
    return number


def append_row(connection: sqlite3.Connection) -> int:
    """Insert the next numbered row."""
    (last,) = connection.execute("select coalesce(max(id), 0) from t").fetchone()
    connection.execute("insert into t values(?, ?)", (last + 1, row(last + 1)))
    return int(last) + 1
