"""The application of the soak: one process that writes, replicates, pins and says what it did.

Run as a program with one argument, JSON of ``SoakOrders``. The state after every commit goes
to the log of ``ledger.py``. On its standard output it says, a line each:

* ``T <txid> <place>``: a ``sync()`` returned; that transaction is the state at that place of
  the log, for nobody else writes;
* ``P <name> <txid>``: a state was pinned; ``U <name>``: its pin is about to be taken away;
* ``E <text>``: the Replicator reported that something is wrong;
* ``C <action> <count>``: at the end, how often it reported what.

It ends as it should at the end of its input.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from support.ledger import StateLog, Writer, connect

from sqlitereplica import Mirror, Replica, Replicator, Retention
from sqlitereplica.events import Event

__all__ = ["RETENTION", "WINDOW", "SoakOrders", "spawn_soak"]

WINDOW = 1.0
"""Seconds for which every point stays, single uploads too."""
RETENTION = Retention(window=WINDOW, fine=WINDOW, keep_last=2, hourly=1, grace="200ms")
_LEVELS = ("20ms", "60ms", "200ms")
_MOST_PINS = 6


@dataclass(frozen=True, kw_only=True)
class SoakOrders:
    """What a child is to do."""

    database: str
    replica: str
    log: str
    seed: str
    exact: bool = True
    """Whether digests are of all bytes, see ``digest_of``."""
    mirror: str = ""
    """Where a mirror is kept, too."""
    window: float = WINDOW
    """Seconds for which every point stays."""


def spawn_soak(orders: SoakOrders) -> subprocess.Popen[str]:
    """Start a child, which begins at once."""
    return subprocess.Popen(
        [sys.executable, "-m", "support.soak_child", json.dumps(asdict(orders))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


class _SoakWriter(Writer):
    """Also gives free pages back without a VACUUM."""

    def change(self) -> None:
        """Do one thing of a random shape."""
        if self._rng.random() < 0.1:
            with self._log.turn(self._digest), self._commit("incremental_vacuum"):
                pages = self._rng.randrange(1, 60)
                self._db.execute(f"pragma incremental_vacuum({pages})").fetchall()
        else:
            super().change()


def _say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class _Child:
    def __init__(self, orders: SoakOrders) -> None:
        self.rng = random.Random(orders.seed)
        self.log = StateLog(orders.log, exact=orders.exact)
        self.db = connect(orders.database)
        self.db.execute("pragma auto_vacuum=incremental")
        self.db.execute("pragma journal_mode=wal").fetchall()
        self.writer = _SoakWriter(self.db, self.log, self.rng)
        self.replica = Replica(orders.replica)
        self.replicator = Replicator(
            orders.database,
            [self.replica, *([Mirror(orders.mirror)] if orders.mirror else [])],
            sync_interval=0.02,
            levels=_LEVELS,
            snapshot_interval="300ms",
            retention=replace(RETENTION, window=orders.window, fine=orders.window),
            verify_interval="2s",
            observer=self.observe,
        )
        self.seen = Counter[str]()
        self.pins: list[str] = []
        self.pinned = 0
        self.ended = threading.Event()

    def observe(self, event: Event) -> None:
        """Count what happens, and tell at once what should not."""
        self.seen[event.action] += 1
        # Readers may be in the way of a mirror: it says so, and waits for them.
        is_busy = getattr(event.error, "kind", "") == "busy"
        if event.level >= logging.WARNING and not is_busy:
            text = f"{event.action} {dict(event.data)} {event.error!r}"
            _say("E", text.replace("\n", " "))

    def run(self) -> None:
        """Write until the input ends, then stop."""
        threading.Thread(target=self._watch, daemon=True).start()
        self.writer.set_up()
        self.replicator.start()
        while not self.ended.is_set():
            self._write_and_sync()
            self._do_something_else()
            time.sleep(self.rng.random() / 30)
        self.replicator.stop()
        self.db.close()
        for action, count in self.seen.items():
            _say("C", action, count)

    def _watch(self) -> None:
        while os.read(0, 100):
            continue
        self.ended.set()

    def _write_and_sync(self) -> int:
        for _ in range(self.rng.randrange(1, 4)):
            self.writer.change()
        place = self.log.size
        self.replicator.sync()
        replica = self.replicator.status().replicas[0]
        _say("T", replica.txid, place)
        return replica.txid

    def _do_something_else(self) -> None:
        dice = self.rng.random()
        if dice < 0.06 or not self.pinned:
            self.pinned += 1
            name = f"pin-{self.pinned}"
            (pin,) = self.replicator.pin(name)
            self.pins.append(name)
            _say("P", name, pin.txid)
        elif len(self.pins) > _MOST_PINS:
            name = self.pins.pop(self.rng.randrange(len(self.pins)))
            _say("U", name)
            self.replica.unpin(name)
        elif dice < 0.08:
            self.replicator.snapshot()
        elif dice < 0.10:
            self.replicator.compact()
        elif dice < 0.11:
            self.replicator.stop()
            self.replicator.start()


if __name__ == "__main__":
    _Child(SoakOrders(**json.loads(sys.argv[1]))).run()
