"""Hosts of one application, each a process with a folder of its own."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import host_child
from support.workers import WorkerProcess

from sqlitereplica import Replica, restore, verify

__all__ = ["HostProcess", "Place", "begin", "stored", "values_of"]


@dataclass(frozen=True)
class Place:
    """Where the replica is."""

    url: str
    storage: Mapping[str, Any] | None = None


class HostProcess(WorkerProcess):
    """One host; killed at the end of ``with``, if it did not end before."""

    def __init__(self, folder: Path, place: Place, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database = folder / "app.db"
        given = {"host": folder.name, "storage": place.storage, **options}
        self._command = [
            sys.executable,
            host_child.__file__,
            str(self.database),
            place.url,
            json.dumps(given),
        ]

    def commit(self, *values: int) -> None:
        """Commit each, and return when they are durable."""
        for value in values:
            self("write", value)
        self("sync")


def stored(place: Place, folder: Path) -> list[int]:
    """What the newest state of the replica has; it is proven to be sound."""
    replica = Replica(place.url, storage_options=place.storage)
    verify(replica).raise_for_problems()
    target = folder / "restored.db"
    restore(replica, target, if_exists="replace")
    return values_of(target)


def values_of(path: Path) -> list[int]:
    """What a database has."""
    with closing(sqlite3.connect(path)) as db:
        return [v for (v,) in db.execute("select v from t order by v")]


def begin(host: HostProcess, *values: int) -> None:
    """Start, and commit durably."""
    host("start")
    host("open")
    host.commit(*values)
