"""Databases that grow, change and shrink, step by step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

__all__ = ["fill", "steps"]


def fill(connection: sqlite3.Connection, rows: int, size: int = 300) -> None:
    """Insert rows of random bytes into ``t``, in one transaction."""
    connection.execute(
        "insert into t(v) with recursive n(i) as"
        " (values(1) union all select i + 1 from n limit ?)"
        " select randomblob(?) from n",
        (rows, size),
    )


def steps(connection: sqlite3.Connection, page_size: int) -> Iterator[str]:
    """Change ``t`` in ways that differ for the WAL; yields a word after each step."""
    few = max(30, page_size // 30)
    fill(connection, 4 * few)
    yield "growth"
    connection.execute("update t set v = zeroblob(700) where id % 7 = 0")
    fill(connection, 3, page_size * 3)
    yield "overflow pages"
    connection.execute("create table u as select id as k, v as w from t")
    connection.execute("create index i on u(w, k)")
    yield "schema"
    connection.execute("drop table u")
    connection.execute("delete from t where id > 20")
    connection.execute("pragma incremental_vacuum(5)").fetchall()
    yield "free pages"
    connection.execute("vacuum")
    yield "vacuum"
    fill(connection, 2 * few)
    connection.execute("delete from t where id % 2")
    connection.execute("vacuum")
    fill(connection, few)
    yield "shrink and growth in one"
    connection.execute("begin")
    fill(connection, 8 * few)
    connection.execute("rollback")
    connection.execute("insert into t(v) values('last')")
    yield "after a rollback"
