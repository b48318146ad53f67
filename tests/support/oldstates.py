"""What tests of restores from Litestream 0.3 have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.oldreplica import OldReplica

from sqlitereplica import restore
from sqlitereplica.errors import InvalidFileError, NotRestorableError
from sqlitereplica.store import GenerationFile, LTXStore
from sqlitereplica.store.reach import to_datetime

__all__ = [
    "INSERT",
    "WatchedStore",
    "after",
    "fill",
    "refusal",
    "restored",
    "rewrite",
    "segments",
    "snapshots",
]

INSERT = "INSERT INTO t(v) VALUES (randomblob({}))"


class WatchedStore(LTXStore):
    """A store that something happens to before each read of an old file."""

    before_get: Callable[[GenerationFile], None] | None = None

    def get_generation_file(
        self, file: GenerationFile, start: int = 0, end: int | None = None
    ) -> bytes:
        """Read after what happens before."""
        if self.before_get is not None:
            self.before_get(file)
        return super().get_generation_file(file, start, end)


def fill(old: OldReplica) -> None:
    """Three WALs of several segments, two snapshots; growth, VACUUM and regrowth."""
    old.snapshot()
    old.segment()
    old.commit(INSERT.format(3000), INSERT.format(20))
    old.segment()
    old.commit("UPDATE t SET v = randomblob(50)")
    old.checkpoint()
    old.commit(INSERT.format(90_000))
    old.segment()
    old.commit("DELETE FROM t WHERE id > 1")
    old.segment()
    old.commit("VACUUM")
    old.checkpoint()
    old.commit(INSERT.format(500))
    old.segment()
    old.snapshot()
    old.commit(INSERT.format(40_000))
    old.segment()


def restored(source: Any, **wanted: Any) -> bytes:
    """The database file that is restored, checked in full."""
    store = source if isinstance(source, LTXStore) else LTXStore.open(source)
    target = Path(store._root).parent / "restored.db"
    restore(source, target, if_exists="replace", verify="full", **wanted)
    return target.read_bytes()


def refusal(source: Any, **wanted: Any) -> Exception:
    """The error of a restore, which leaves nothing behind."""
    folder = Path(LTXStore.open(source)._root).parent
    with pytest.raises((NotRestorableError, InvalidFileError)) as caught:
        restore(source, folder / "refused.db", verify=None, **wanted)
    assert not [name for name in os.listdir(folder) if "refused" in name]
    return caught.value


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file, but not its time."""
    status = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def after(time: int) -> datetime:
    """The time just behind one in milliseconds."""
    return to_datetime(time) + timedelta(milliseconds=1)


def segments(old: OldReplica) -> list[Path]:
    """The segments in order."""
    return sorted(old.replica.rglob("*.wal.lz4"))


def snapshots(old: OldReplica) -> list[Path]:
    """The snapshots in order."""
    return sorted(old.replica.rglob("*.snapshot.lz4"))
