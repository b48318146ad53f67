"""The processes of the ledger tests that are killed: an application with a Replicator.

Run as a program with one argument, JSON of ``Orders``. It imports everything, says
``ready``, and begins when it reads a line; then it says ``<place in the log> <seq>`` after
every ``sync()`` that returned. At the end of its input it stops as it should.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.ledger import StateLog, Writer, connect, image_of

if TYPE_CHECKING:
    from sqlitereplica import Replicator

__all__ = ["Orders", "spawn"]


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a child is to do."""

    database: str
    log: str
    seed: str
    replica: str = ""
    """Where it replicates to; one without only writes."""
    exact: bool = True
    start: str = "open"
    """The database is ``open`` when the Replicator starts, or ``missing`` still, or in
    journal mode ``delete``."""
    history: str = ""
    """What becomes of the files: nothing in the time of a test, or within milliseconds all
    that can, ``kept`` for long or ``thinned`` out soon."""
    die_at: int = 0
    """Be killed before this step on names in the threads that tend the history."""


STEPS = ("link", "rename", "replace", "unlink", "fsync", "utime")
"""What changes names or brings them to disk; all of it goes through the module ``os``."""


def die_at(step: int) -> None:
    """Have this process killed just before a step of the work on the history."""
    count = itertools.count(1)

    def wrap(call: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            name = threading.current_thread().name
            if name.startswith(_TENDS) and next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return run

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name)))


_TENDS = tuple(
    f"sqlitereplica-{k}" for k in ("compact", "retention", "snapshot", "rep")
)


def spawn(orders: Orders) -> subprocess.Popen[bytes]:
    """Start a child, which waits for a line on its standard input."""
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "support.ledger_child", json.dumps(asdict(orders))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tests,
    )


class _Child:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.rng = random.Random(orders.seed)
        self.log = StateLog(orders.log, exact=orders.exact)
        self.ended = threading.Event()

    def begin(self) -> None:
        """Wait for the word, and then for the end of the input in the background."""
        os.write(1, b"ready\n")
        os.read(0, 1)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while os.read(0, 100):
            continue
        self.ended.set()

    def open(self, mode: str) -> tuple[sqlite3.Connection, Writer]:
        """The application's connection, with the tables there."""
        connection = connect(self.orders.database)
        with self.log.turn(lambda: self.log.digest(image_of(connection))):
            if mode:
                self.log.begin(mode)
                connection.execute(f"pragma journal_mode={mode}").fetchall()
                self.log.committed(self.log.digest(image_of(connection)))
        writer = Writer(connection, self.log, self.rng)
        writer.set_up()
        return connection, writer

    def write(self) -> None:
        """Only write, from one process among several."""
        connection, writer = self.open("wal")
        while not self.ended.is_set():
            writer.change()
            time.sleep(self.rng.random() / 30)
        connection.close()

    def history(self) -> dict[str, Any]:
        """Arguments of the Replicator."""
        from sqlitereplica import Retention

        if not self.orders.history:
            return {}
        if self.orders.die_at:
            die_at(self.orders.die_at)
        window = "1h" if self.orders.history == "kept" else "150ms"
        return {
            "levels": ("10ms", "30ms", "90ms"),
            "snapshot_interval": "100ms",
            "retention": Retention(window=window, fine="50ms", grace="20ms"),
        }

    def replicate(self) -> None:
        """Write, replicate, and say what is durable."""
        from sqlitereplica import Replicator

        replicator = Replicator(
            self.orders.database,
            [self.orders.replica],
            sync_interval=self.rng.choice((0.005, 0.05, 1.0)),
            **self.history(),
        )
        start = self.orders.start
        if start == "missing":
            replicator.start()
            time.sleep(self.rng.choice((0.0, 0.01, 0.15)))
        modes = {"open": "wal", "delete": "delete", "missing": ""}
        connection, writer = self.open(modes[start])
        for _ in range(self.rng.randrange(4)):
            writer.change()
        replicator.start()
        while not self.ended.is_set():
            self._do_and_sync(replicator, connection, writer)
        replicator.stop()
        connection.close()
        os.write(1, b"stopped\n")

    def _do_and_sync(
        self, replicator: Replicator, connection: sqlite3.Connection, writer: Writer
    ) -> None:
        for _ in range(self.rng.randrange(1, 5)):
            writer.change()
        place = self.log.size
        (seq,) = connection.execute("select max(seq) from ledger").fetchone()
        replicator.sync()
        os.write(1, f"{place} {seq or 0}\n".encode())
        dice = self.rng.random()
        if dice < 0.03:
            replicator.snapshot()
        elif dice < 0.05:
            replicator.stop()
            replicator.start()


def _main() -> None:
    child = _Child(Orders(**json.loads(sys.argv[1])))
    if child.orders.replica:
        import sqlitereplica.replicate  # noqa: F401
    child.begin()
    if child.orders.replica:
        child.replicate()
    else:
        child.write()


if __name__ == "__main__":
    _main()
