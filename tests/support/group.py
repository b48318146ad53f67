"""Folders of databases, and what their replicas restore to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from support.commandline import eventually

from sqlitereplica import ReplicatorGroup, restore
from sqlitereplica.group.decide import Rules

__all__ = ["Tenants", "parked", "until", "until_state"]


class Tenants:
    """A folder of databases, each with one table, and a group that replicates it.

    It parks soon, looks often, and does not wait long before it tries again.
    """

    def __init__(self, folder: Path) -> None:
        self.dir, self.backups = folder / "tenants", folder / "backups"
        self.dir.mkdir(exist_ok=True)
        self._copies = 0
        self._folder = folder

    def path(self, name: str) -> Path:
        """The file of a database."""
        return self.dir / name

    def make(self, *names: str, rows: int = 1) -> None:
        """Make databases with some rows."""
        for name in names:
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path(name))) as db:
                db.execute("pragma journal_mode=wal")
                db.execute("create table t(x)")
                db.executemany("insert into t values(?)", [(i,) for i in range(rows)])
                db.commit()

    def write(self, name: str, value: int = 0) -> None:
        """One more row, by a connection that is closed again."""
        with closing(sqlite3.connect(self.path(name), timeout=30)) as db:
            db.execute("insert into t values(?)", (value,))
            db.commit()

    def group(self, **options: Any) -> ReplicatorGroup:
        """The group, not started."""
        given: dict[str, Any] = {
            "replica": str(self.backups / "{path}"),
            "park_after": 0.3,
            "scan_interval": 0.05,
            "sync_interval": 0.05,
            **options,
        }
        group = ReplicatorGroup(self.dir, **given)
        rest = given["park_after"]
        group._rules = Rules(park_after=rest, slice=1.0, retry=(0.3, 2.0))
        return group

    def rows(self, name: str) -> list[int]:
        """What a database holds."""
        with closing(sqlite3.connect(self.path(name), timeout=30)) as db:
            return [x for (x,) in db.execute("select x from t order by rowid")]

    def restored(self, name: str, replica: str | None = None) -> list[int]:
        """What its replica restores to."""
        self._copies += 1
        copy = self._folder / f"copy-{self._copies}.db"
        restore(self.backups / (replica or name), copy, verify="full")
        with closing(sqlite3.connect(copy)) as db:
            return [x for (x,) in db.execute("select x from t order by rowid")]


def parked(group: ReplicatorGroup, count: int) -> None:
    """Wait until so many are parked, and nothing else is going on."""

    def done() -> bool:
        status = group.status()
        return (status.parked, status.running, status.waiting) == (count, 0, 0)

    eventually(done, f"{count} parked databases: {group.status()}")


def until_state(group: ReplicatorGroup, name: str, state: str) -> None:
    """Wait until one is in a state."""
    eventually(lambda: group.status_of(name).state == state, f"{name} {state}")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for anything else."""
    eventually(condition, what)
