"""A group of real databases under generated use: after a rest every replica has all of it.

Nobody calls ``sync()``: what is parked must have been in the replica, and what was committed
since must have woken the database. Connections stay open or close, WALs are checkpointed,
truncated and begun anew, transactions are open for a while, the group stops and starts, and
commits come at every step of a parking.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.group import Tenants, parked

from sqlitereplica import Replicator, ReplicatorGroup
from sqlitereplica.group.signature import Signature, sealed

pytestmark = pytest.mark.property

NAMES = ("a.db", "b.db")
ACTIONS = (
    "commit",
    "commit and close",
    "close",
    "begin",
    "end",
    "checkpoint",
    "truncate",
    "spill",
    "rest",
    "restart",
)
MOMENTS = ("before the seal", "after the seal", "before the stop", "after the stop")


class App:
    """An application with a connection to each database, and what it has committed."""

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants
        self.committed: dict[str, list[int]] = {name: [0] for name in NAMES}
        self._open: dict[str, sqlite3.Connection] = {}
        self._next = 1
        self.lock = threading.RLock()
        """Commits come from the threads that park as well."""

    def connection(self, name: str) -> sqlite3.Connection:
        """The one to a database."""
        if name not in self._open:
            self._open[name] = sqlite3.connect(
                self.tenants.path(name),
                isolation_level=None,
                timeout=60,
                check_same_thread=False,
            )
        return self._open[name]

    def commit(self, name: str) -> None:
        """One more row; it ends a transaction that is open."""
        db = self.connection(name)
        db.execute("insert into t values(?)", (self._next,))
        if db.in_transaction:
            db.execute("commit")
        self.committed[name].append(self._next)
        self._next += 1

    def close(self, name: str) -> None:
        """Close the connection; what was not committed is gone."""
        if name in self._open:
            self._open.pop(name).close()

    def do(self, action: str, name: str) -> None:
        """One of the actions on one database."""
        with self.lock:
            self._do(action, name)

    def _do(self, action: str, name: str) -> None:
        db = self.connection(name)
        idle = not db.in_transaction
        match action:
            case "commit":
                self.commit(name)
            case "commit and close":
                self.commit(name)
                self.close(name)
            case "close":
                self.close(name)
            case "begin" if idle:
                db.execute("begin immediate")
            case "spill" if idle:
                db.execute("pragma cache_size=1")
                db.execute("begin immediate")
                db.execute("create table if not exists big(x)")
                db.execute("insert into big values(zeroblob(60000))")
            case "end" if not idle:
                db.execute("rollback")
            case "checkpoint" | "truncate" if idle:
                mode = "passive" if action == "checkpoint" else "truncate"
                db.execute("pragma busy_timeout=0")
                db.execute(f"pragma wal_checkpoint({mode})").fetchall()
                db.execute("pragma busy_timeout=60000")

    def rest(self) -> None:
        """Nothing is open any more."""
        with self.lock:
            for name in list(self._open):
                self.close(name)


class Meddled(ReplicatorGroup):
    """A group in which something is committed at a chosen moment of each parking."""

    meddle: Callable[[str, str], None]

    def _make(self, rel: str) -> Replicator:
        replicator = super()._make(rel)
        stop = replicator.stop

        def meddled(timeout: float | None = None) -> None:
            self.meddle("before the stop", rel)
            stop(timeout)
            self.meddle("after the stop", rel)

        replicator.stop = meddled  # type: ignore[method-assign]
        return replicator

    def seal(self, path: str) -> Signature | None:
        """As ``sealed``, with something before and after."""
        self.meddle("before the seal", Path(path).name)
        found = sealed(path, sqlite3.connect)
        self.meddle("after the seal", Path(path).name)
        return found


def group_of(tenants: Tenants, app: App, moments: list[str]) -> Meddled:
    """A group that is meddled with at these moments, each once."""
    given: dict[str, Any] = {
        "park_after": 0.02,
        "scan_interval": 0.02,
        "sync_interval": 0.02,
    }
    left = list(moments)

    def meddle(moment: str, rel: str) -> None:
        with app.lock:
            if moment in left and not app.connection(rel).in_transaction:
                left.remove(moment)
                app.commit(rel)

    Meddled.meddle = staticmethod(lambda moment, rel: None)
    group = Meddled(tenants.dir, str(tenants.backups), **given)
    group.meddle = meddle
    group._seal = group.seal
    return group


@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    actions=st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES)), max_size=12
    ),
    moments=st.lists(st.sampled_from(MOMENTS), max_size=4),
)
def test_whatever_happens_the_replicas_have_it_all(
    actions: list[tuple[str, str]], moments: list[str]
) -> None:
    """Without a sync: everything that is parked can be restored to its last commit."""
    with tempfile.TemporaryDirectory() as folder:
        tenants = Tenants(Path(folder))
        tenants.make(*NAMES)
        app = App(tenants)
        group = group_of(tenants, app, moments)
        group.start()
        try:
            for action, name in actions:
                if action == "rest":
                    app.rest()
                    parked(group, len(NAMES))
                elif action == "restart":
                    app.rest()
                    group.stop()
                    group = group_of(tenants, app, moments)
                    group.start()
                else:
                    app.do(action, name)
            app.rest()
            parked(group, len(NAMES))
            looked = group.status().last_look
            while group.status().last_look == looked:
                time.sleep(0.01)  # one look more: what it wakes is parked again
            parked(group, len(NAMES))
        finally:
            app.rest()
            group.stop()
        assert {name: tenants.restored(name) for name in NAMES} == app.committed
