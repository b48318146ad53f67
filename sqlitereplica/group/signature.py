"""The signature of a database: what tells, by ``stat`` alone, that nothing was committed.

A parked database has no thread, no connection and no descriptor. What is left is a
signature: device, inode, size, mtime and ctime of the database file, and the latter four of
its ``-wal``. The claim that parking rests on:

    If ``holds(S, look(path))``, then every commit to the database is in its replicas.

Why that is so.

* *Every commit writes to a file.* In WAL mode each commit appends at least one frame to
  ``-wal`` by ``write``; in a rollback mode it writes to the database. Both set mtime and
  ctime. (The wal-index is written through a mapping, which sets no times: ``-shm`` is no part
  of a signature.)
* *The times of a write are a tick of the kernel's clock.* Two writes within a tick have the
  same, and a WAL that was begun anew grows into its old size. So S counts only if it is
  *settled*: all its times differ from the present by more than a tick. Then whatever is
  written after S was taken has other times than S.
* *A commit is not done when its frames are written.* It is done when the wal-index names
  them, after a sync of the WAL perhaps, and that leaves no trace in times. A commit whose
  frames are older than S and which is done after S would be missed. So S is taken under the
  write lock (``sealed``): nobody is between the two, and a transaction that has already
  written some of its frames holds that lock.
* *What was committed before S is durable:* after S is taken the Replicator is stopped, with a
  ``sync()`` that begins after S. If that fails there is no S.
* *An empty WAL says nothing.* Whoever closes the last connection copies what is not copied
  yet into the database and deletes the WAL. If the database file is as it was, nothing was
  left to copy. So S still holds when the WAL is gone, or empty, and the database file is the
  same. A checkpoint of ours precedes S so that this is the rule, not the exception.

What an interrupted look sees is mixed of two moments: the database first, the WAL later. A
change of the database in between shows in the next look, for S has the old times.

In another boot no signature counts (``record.py``): after a loss of power data may be on the
disk whose new times are not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from sqlitereplica.sqlite import Connect, SourceBusyError, SourceConnection

__all__ = ["Signature", "holds", "is_settled", "look", "sealed"]

_TICK = 100_000_000
_COARSE = 2_500_000_000
"""Nanoseconds: a tick is 10 ms at most on Linux; FAT counts in 2 s, some others in 1 s."""
_SECOND = 1_000_000_000
_TRIES = 3


class Signature(NamedTuple):
    """A database and its WAL; times in nanoseconds. Without a WAL its fields are 0."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int
    wal_inode: int = 0
    wal_size: int = 0
    wal_mtime: int = 0
    wal_ctime: int = 0


def look(path: str) -> Signature | None:
    """The present signature of a database; None when there is none. Opens nothing.

    Raises:
        OSError: the folder cannot be searched, for one.
    """
    try:
        db = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = db.st_dev, db.st_ino, db.st_size, db.st_mtime_ns, db.st_ctime_ns
    try:
        wal = os.stat(f"{path}-wal")
    except (FileNotFoundError, NotADirectoryError):
        return Signature(*found)
    if wal.st_size == 0:
        return Signature(*found)
    times = wal.st_mtime_ns, wal.st_ctime_ns
    return Signature(*found, wal.st_ino, wal.st_size, *times)


def holds(known: Signature, seen: Signature) -> bool:
    """Whether nothing was committed since ``known``, given that it is settled and sealed."""
    return known == seen or (seen.wal_size == 0 and known[:5] == seen[:5])


def is_settled(signature: Signature, now: int) -> bool:
    """Whether whatever is written from ``now`` (nanoseconds) on changes the signature.

    Times in the future are of a clock that was set back: they are not met again, either.
    """
    _, _, _, *db = signature[:5]
    times = [*db, *signature[7:]] if signature.wal_size else db
    margin = _COARSE if any(t % _SECOND == 0 for t in times) else _TICK
    return all(abs(now - t) > margin for t in times)


def sealed(
    path: str,
    connect: Connect,
    *,
    now: Callable[[], int] = time.time_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Signature | None:
    """A settled signature taken while nobody writes; None if the database is in use.

    While a Replicator of this process or another is attached to it: these are connections of
    the application's SQLite, opened and closed.

    Raises:
        DatabaseStateError: SQLite refuses.
    """
    with ExitStack() as stack:
        try:
            connection = SourceConnection(connect, path)
            stack.callback(connection.close)
            connection.checkpoint("passive")
            for _ in range(_TRIES):
                found = _under_lock(connection, path, now)
                if found is not None:
                    return found
                sleep(1.5 * _TICK / _SECOND)  # the checkpoint may just have written
        except SourceBusyError:
            return None
    return None


def _under_lock(
    connection: SourceConnection, path: str, now: Callable[[], int]
) -> Signature | None:
    connection.begin_write()
    try:
        moment = now()
        found = look(path)
    finally:
        connection.rollback()
    settled = found is not None and is_settled(found, moment)
    return found if settled else None
