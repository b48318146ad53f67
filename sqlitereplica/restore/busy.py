"""Who has a database open, found out without opening it.

On Linux: ``/proc/locks`` names the inodes that are locked, as a database in WAL mode is
for as long as a connection has it, and ``/proc/<pid>/fd`` shows the open files of this
process and, as far as we may look, of others. Both end at the borders of a container.
Elsewhere nothing can be found out, and the guard is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from sqlitereplica.errors import DatabaseStateError

__all__ = ["SIDECARS", "refuse_if_open"]

SIDECARS = ("-wal", "-journal", "-shm")

_FileId = tuple[int, int]  # (st_dev, st_ino)


def refuse_if_open(path: str) -> None:
    """Raise DatabaseStateError, ``"busy"``, if the database or a sidecar is in use."""
    files = set()
    for suffix in ("", *SIDECARS):
        try:
            status = os.stat(path + suffix)
        except FileNotFoundError:
            continue
        files.add((status.st_dev, status.st_ino))
    user = _user_of(files) if files else None
    if user is not None:
        raise DatabaseStateError(
            f"{path} is open in {user}: close every connection to it before it is"
            " replaced, for they would go on with a file that is no longer there",
            path=path,
            kind="busy",
        )


def _user_of(files: set[_FileId]) -> str | None:
    """Name a process that uses one of the files."""
    # Imported here: that part brings apsw with it.
    from sqlitereplica.sqlite.descriptors import is_open_here
    from sqlitereplica.sqlite.openfiles import open_files, other_processes

    if any(map(is_open_here, files)):
        return "this process"
    for pid in _lockers(files):
        return f"process {pid}" if pid > 0 else "another process"
    for pid in other_processes():
        if not files.isdisjoint(open_files(pid)):
            return f"process {pid}"
    return None


def _lockers(files: set[_FileId]) -> Iterator[int]:
    """Yield the processes that hold or wait for locks on the files."""
    names = {
        f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
        for device, inode in files
    }
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            lines = locks.read().splitlines()
    except OSError:  # not Linux, or hidden
        return
    for line in lines:
        # 1: POSIX  ADVISORY  READ 4711 fe:00:1234 128 128, or with -> for a waiter
        fields = line.replace("->", "").split()
        if len(fields) > 5 and fields[5] in names:
            yield int(fields[4])
