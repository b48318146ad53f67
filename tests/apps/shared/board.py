"""A board of notes, the same for every server: its Replicator starts when it is imported.

So do many applications, whatever the server makes of it: forks of it, copies of it, or a
process that does nothing but watch the others.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any

from sqlitereplica import Replicator

__all__ = ["add", "answer", "replicator"]

DATABASE, REPLICA = os.environ["BOARD_DATABASE"], os.environ["BOARD_REPLICA"]

with closing(sqlite3.connect(DATABASE, timeout=30)) as first, first:
    first.execute("pragma journal_mode=wal")
    first.execute("create table if not exists note(id integer primary key, name text)")

replicator = Replicator(DATABASE, REPLICA, sync_interval=3600)
replicator.start()


def add(name: str, *, durable: bool = True) -> int | None:
    """Commit a note, and wait until it is durable; its number."""
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection:
        with connection:
            number = connection.execute("insert into note(name) values(?)", (name,))
        if durable:
            replicator.sync(timeout=60)
        return number.lastrowid


def answer(method: str, path: str) -> dict[str, Any]:
    """The answer to a request, for any kind of server."""
    found: dict[str, Any] = {"pid": os.getpid()}
    if method == "POST":
        _, kind, name = path.rsplit("/", 2)
        found["id"] = add(name, durable=kind == "note")
    else:
        status = replicator.status()
        found |= {"elected": status.pid, "state": status.state, "txid": status.txid}
    return found
