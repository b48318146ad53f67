"""A followed file that was given away by a process that was killed before it could say so.

There are no notes on it any more, so to a follower it is a stranger's. It is the one that was
given away if its pages are those of that state, but for page 1, where the counter changes
with the journal mode. Nobody has written to it then, and to give it away again is to say so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

from sqlitereplica.ltx import lock_pgno, page_checksum
from sqlitereplica.restore.held import Goal, Held
from sqlitereplica.sqlite import (
    Connect,
    SourceBusyError,
    SourceConnection,
    descriptors,
    hazards,
)

__all__ = ["give_away_again"]


def give_away_again(
    path: str, connect: Connect, *, copy: str, goal: Goal, sums: Sequence[int]
) -> Held | None:
    """Put a file in WAL mode if it is that state, with these page checksums; else None.

    Raises:
        MixedSQLiteCopiesError: Another copy of SQLite has the file open here.
        SourceBusyError: A lock is taken; try again.
        DatabaseStateError: It is no database.
    """
    hazards.check_before_open(path, copy)
    connection = SourceConnection(connect, path)
    try:
        connection.begin_read()
        connection.rollback()
        if not _is_state(path, goal.page_size, sums):
            return None
        try:
            connection.execute("pragma journal_mode=wal")
        except SourceBusyError:
            pass  # as when it was given away: a Replicator makes the switch
        return Held(**asdict(goal), counter=0, head=b"", cookie=0)
    finally:
        connection.close()


def _is_state(path: str, page_size: int, sums: Sequence[int]) -> bool:
    try:
        if os.path.getsize(path + "-wal"):
            return False
    except FileNotFoundError:
        pass  # then all is in the file
    fd, key = descriptors.acquire(path)
    try:
        if os.fstat(fd).st_size != len(sums) * page_size:
            return False
        lock = lock_pgno(page_size)
        return all(
            pgno == lock
            or sums[pgno - 1]
            == page_checksum(pgno, os.pread(fd, page_size, (pgno - 1) * page_size))
            for pgno in range(2, len(sums) + 1)
        )
    finally:
        descriptors.release(key)
