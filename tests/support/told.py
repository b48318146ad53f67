"""Stores that do as they are told, and what is asked of a replica in tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from support.capturing import digest
from support.stepping import Stepped

from sqlitereplica import StoreError, restore
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore

MakeStepped = Callable[..., Stepped]


class ToldStore(LTXStore):
    """A local store that fails as told, and counts what is put."""

    error: StoreError | None = None
    after = False

    def put(  # type: ignore[no-untyped-def]
        self, level, min_txid, max_txid, data, *, timestamp
    ) -> FileInfo:
        """Put, or fail as told."""
        if self.error is not None and not self.after:
            raise self.error
        info = super().put(level, min_txid, max_txid, data, timestamp=timestamp)
        if self.error is not None:
            raise self.error
        return info


AWAY = StoreError("away", operation="put")


class LateStore(ToldStore):
    """A store in which the next put arrives only when it is told to."""

    late: tuple[object, ...] | None = None
    delays = False

    def put(  # type: ignore[no-untyped-def]
        self, level, min_txid, max_txid, data, *, timestamp
    ) -> FileInfo:
        """Keep the file on its way, and fail."""
        if not self.delays:
            return super().put(level, min_txid, max_txid, data, timestamp=timestamp)
        self.late = (level, min_txid, max_txid, data, timestamp)
        raise AWAY

    def arrive(self) -> None:
        """What was on its way gets there."""
        assert self.late is not None
        *where, timestamp = self.late
        self.late = None
        LTXStore.put(self, *where, timestamp=timestamp)  # type: ignore[arg-type]


def restored(store: LTXStore, folder: Path, txid: int | None = None) -> str:
    """Digest of what the replica restores."""
    target = folder / "restored.db"
    restore(store, target, txid=txid, if_exists="replace")
    return digest(target.read_bytes())


def level0(store: LTXStore) -> list[FileInfo]:
    """The level-0 files."""
    return list(store.list_level(0))


def fill(db: sqlite3.Connection, rows: int = 500) -> None:
    """About 4 KB a row."""
    with db:
        db.execute("begin")
        for _ in range(rows):
            db.execute("insert into t(v) values(randomblob(4000))")
