"""Fleets of small replicas, and credentials that do something to who asks for them."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support.recording import START, Recording
from support.replicas import memory_store

from sqlitereplica import Replica

__all__ = [
    "MEMBERS",
    "damage",
    "deadly",
    "history",
    "image",
    "members",
    "plant",
    "unlucky",
]

MEMBERS = 6
_recordings: list[Recording] = []


def history() -> Recording:
    """Five transactions; made once, and put into each replica."""
    if not _recordings:
        with tempfile.TemporaryDirectory() as folder:
            made = Recording(Path(folder) / "app.db", memory_store(), page_size=512)
            made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
            for size in range(4):
                made.commit(f"INSERT INTO t(b) VALUES (randomblob({300 + size}))")
            made.close()
        _recordings.append(made)
    return _recordings[0]


def image(txid: int = 5) -> bytes:
    """The database after a transaction."""
    return history().images[txid]


def plant(replica: Replica, txids: Iterable[int] = range(1, 6)) -> Replica:
    """Put these transactions into a replica."""
    store = replica.open()
    for txid in txids:
        data = history().files[txid, txid]
        store.put(0, txid, txid, data, timestamp=START + txid * 1000)
    return replica


def members(where: Replica | Path, count: int = MEMBERS) -> list[Replica]:
    """Whole replicas below a place, by their names."""
    return [plant(_member(where, f"db-{number}")) for number in range(count)]


def _member(where: Replica | Path, name: str) -> Replica:
    if isinstance(where, Path):
        return Replica(where / name)
    path = f"{where.path}/{name}" if where.path else name
    return Replica(
        where.url,
        path=path,
        storage_options=where.storage_options,
        encryption=where.encryption,
    )


def damage(replica: Path, txid: int = 3) -> None:
    """Change a byte in the file of a transaction."""
    path = replica / "ltx" / "0" / f"{txid:016x}-{txid:016x}.ltx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# -- found by their names in the processes of executors ----------------------------------


def deadly() -> dict[str, Any]:
    """Kill the process that asks."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def unlucky() -> dict[str, Any]:
    """Kill the first process that asks; the folder of that says whether one has."""
    try:
        os.mkdir(os.environ["UNLUCKY_FOLDER"])
    except FileExistsError:
        return {}
    return deadly()
