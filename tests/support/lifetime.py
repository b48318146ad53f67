"""What tests of a Replicator's life share: a commit, its restore, and waiting for a fact."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlitereplica import restore

__all__ = ["await_true", "library_threads", "restored", "unusable", "write"]


def write(db: sqlite3.Connection) -> None:
    """One commit."""
    db.execute("insert into t(v) values(randomblob(100))")


def restored(replica: Path) -> bytes:
    """The database from the replica."""
    out = replica.with_name("restored.db")
    restore(replica, out, if_exists="replace")
    return out.read_bytes()


def unusable(folder: Path) -> Path:
    """A replica that can never be made: below a file."""
    (folder / "file").write_bytes(b"")
    return folder / "file" / "replica"


def library_threads() -> set[str]:
    """Names of the library's threads."""
    return {t.name for t in threading.enumerate() if t.name.startswith("sqlitereplica")}


def await_true(condition: Callable[[], object]) -> None:
    """Wait for a condition, for a generous time."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
