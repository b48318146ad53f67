"""Replicas that something happens to while they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from support.recording import Recording

from sqlitereplica.errors import StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore

__all__ = ["TroubledStore", "copy", "make", "overwrite"]


class TroubledStore(LTXStore):
    """A real store that something happens to before each read."""

    before_get: Callable[[FileInfo, int], None] | None = None
    down: bool = False

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The store of a folder."""
        store = cls.open(folder)
        assert isinstance(store, cls)
        return store

    def get(self, info: FileInfo, start: int = 0, end: int | None = None) -> bytes:
        """Read after what happens before."""
        self._fail_if_down("get")
        if self.before_get is not None:
            self.before_get(info, start)
        return super().get(info, start, end)

    def list_all(self, *, accurate: bool = False) -> list[FileInfo]:
        """List unless it is down."""
        self._fail_if_down("list")
        return super().list_all(accurate=accurate)

    def _fail_if_down(self, operation: str) -> None:
        if self.down:
            raise StoreError(f"{self.name} is down", operation=operation)


def make(path: Path, store: LTXStore, count: int) -> Recording:
    """A recording whose transactions all write several pages."""
    made = Recording(path, store)
    made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")
    while made.txid < count:
        made.commit(
            "INSERT INTO t(b) VALUES (randomblob(9000))",
            "UPDATE t SET b = randomblob(5000) WHERE id = 1",
        )
    return made


def overwrite(store: LTXStore, file: FileInfo, data: bytes) -> None:
    """Put other bytes under a file's name."""
    store.delete([file])
    store.put(file.level, file.min_txid, file.max_txid, data, timestamp=file.timestamp)


def copy(source: LTXStore, target: LTXStore, file: FileInfo) -> None:
    """Copy a file of a replica."""
    txids = file.min_txid, file.max_txid
    target.put(file.level, *txids, source.get(file), timestamp=file.timestamp)
