"""Hosts with a lease, stepped by hand: a Replicator of each, and what it knows of the lease."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from support.capturing import make_database
from support.stepping import FakeClock, Stepped

from sqlitereplica import restore
from sqlitereplica.events import Event
from sqlitereplica.replicate.leasing import LeaseGate, Leasing
from sqlitereplica.store import LeaseObject, LTXStore

__all__ = ["TTL", "LeasedHost"]

TTL = 30.0


class LeasedHost:
    """One host: a folder with a database, and a store of its own on the replica."""

    def __init__(
        self,
        folder: Path,
        store: LTXStore,
        clock: FakeClock,
        *,
        node: int,
        leads: bool = True,
        open_object: Callable[[], LeaseObject | None] | None = None,
    ) -> None:
        self.folder, self.store, self.clock = folder, store, clock
        self.path = folder / "app.db"
        self.node, self._leads = node, leads
        self.events: list[Event] = []
        """What was reported of the lease."""
        self._open_object = open_object or store.lease_object
        self._db: sqlite3.Connection | None = None
        self.stepped: Stepped | None = None
        self.begin()

    def begin(self) -> None:
        """A new process: contends, and has nothing open."""
        self.leasing = Leasing(
            self._open_object,
            replica="replica",
            database=str(self.path),
            node=self.node,
            ttl=TTL,
            observer=self.events.append,
            clock=self.clock,
            now=lambda: self.clock.wall_ms / 1000,
            rng=lambda: 0.5,
            host=self.folder.name,
        )

    def contend(self) -> bool:
        """Do all that is due about the lease; whether it may publish then."""
        for _ in range(50):
            if self.leasing.step() > 0:
                return self.leasing.is_open()
        raise AssertionError("the lease does not come to rest")

    def make(self) -> sqlite3.Connection:
        """Make the database."""
        self.folder.mkdir(exist_ok=True)
        self._db = make_database(self.path)
        return self._db

    def restore(self) -> None:
        """Bring the database to the newest state of the replica."""
        self.folder.mkdir(exist_ok=True)
        restore(self.store, self.path, if_exists="replace")

    @property
    def db(self) -> sqlite3.Connection:
        """The application's connection."""
        if self._db is None:
            self._db = sqlite3.connect(self.path, isolation_level=None)
        return self._db

    def commit(self, value: int) -> None:
        """One commit of the application."""
        self.db.execute("insert into t(v) values(?)", (value,))

    def replicate(self) -> Stepped:
        """Begin to replicate, and run until nothing moves."""
        self.stepped = Stepped(
            self.path,
            [lambda: self.store],
            clock=self.clock,
            node_id=self.node,
            gate=LeaseGate(self.leasing, leads=self._leads),
        )
        self.stepped.run()
        return self.stepped

    def sync(self) -> BaseException | str | None:
        """What becomes of a ``sync``: None, its error, or ``"waits"``."""
        assert self.stepped is not None
        ticket = self.stepped.sync()
        return ticket.future.exception() if ticket.future.done() else "waits"

    def close(self) -> None:
        """End without a release."""
        if self.stepped is not None:
            self.stepped.engine.close()
            self.stepped = None
        if self._db is not None:
            self._db.close()
            self._db = None
