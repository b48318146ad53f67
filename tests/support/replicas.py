"""Replicas in memory, arranged and hurt file by file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fsspec.implementations.memory import MemoryFileSystem
from support.recording import Recording
from support.troubled import TroubledStore

from sqlitereplica import ltx
from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore, RetryPolicy

__all__ = ["ROOT", "arrange", "flipped", "memory_files", "memory_store", "record"]

ROOT = "/replica"


def memory_files() -> MemoryFileSystem:
    """An empty filesystem of its own."""
    fs = MemoryFileSystem(skip_instance_cache=True)
    fs.store, fs.pseudo_dirs = {}, [""]
    return fs


def memory_store() -> TroubledStore:
    """An empty replica in memory, that gives up at once and sleeps never."""
    retry = RetryPolicy(attempts=1)
    return TroubledStore(memory_files(), ROOT, retry=retry, sleep=lambda seconds: None)


def record(folder: Path, name: str, *, signed: bool = True) -> Recording:
    """Nine transactions of small pages that grow, change, shrink and grow again."""
    made = Recording(
        folder / f"{name}.db", memory_store(), page_size=512, signed=signed
    )
    made.commit(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
        "INSERT INTO t(b) VALUES (randomblob(90))",
    )
    made.commit("INSERT INTO t(b) VALUES (randomblob(3000))")
    made.commit("INSERT INTO t(b) VALUES (randomblob(2000)), (randomblob(700))")
    made.commit("UPDATE t SET b = randomblob(900) WHERE id = 2")
    made.commit("DELETE FROM t WHERE id < 3", "VACUUM")
    made.commit("INSERT INTO t(b) VALUES (randomblob(2500))")
    made.commit("CREATE INDEX i ON t(b)")
    made.commit("DELETE FROM t WHERE id = 3", "VACUUM")
    made.commit("INSERT INTO t(b) VALUES (randomblob(5000))")
    made.close()
    return made


def arrange(
    recording: Recording, store: LTXStore, files: Iterable[tuple[int, int, int]]
) -> list[FileInfo]:
    """Put files, each (level, first TXID, last TXID), of a recording into a replica."""
    recording.store = store
    return [recording.publish(*file) for file in files]


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    """An LTX file with one bit changed, at this offset or the next one that matters.

    LZ4 can say the same page in several ways: where one becomes another the file is as
    good as before.
    """
    whole = ltx.decode(data)
    while True:
        changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        try:
            if ltx.decode(changed) != whole:
                return changed
        except InvalidFileError:
            return changed
        at = (at + 1) % len(data)
