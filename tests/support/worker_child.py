"""One worker process of an application: does what it is told on stdin, a line each.

``worker_child.py DATABASE REPLICA...`` answers each line with one of JSON on stdout.
``WORKER_RESTORE`` and ``WORKER_LEASE`` in the environment are arguments of its Replicator.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from typing import Any

from sqlitereplica import Replicator, SQLiteReplicaError
from sqlitereplica.events import Event

__all__ = ["Worker", "main"]


class Worker:
    """The commands."""

    def __init__(self, database: str, replicas: list[str]) -> None:
        self.events: list[Event] = []
        self.replicator = Replicator(
            database,
            replicas,
            sync_interval=3600,
            levels=(),  # what is uploaded is what was committed, and no compaction
            lease=os.environ.get("WORKER_LEASE"),
            restore=os.environ.get("WORKER_RESTORE"),  # type: ignore[arg-type]
            observer=self.events.append,
        )
        self.database = database

    def start(self) -> None:
        """Start the Replicator."""
        self.replicator.start()

    def booted(self) -> list[str]:
        """What came of each look for a database."""
        return [e.data["reason"] for e in self.events if e.action == "boot"]

    def hang(self) -> None:
        """Have a restore stand still when its file is made and has no name yet."""

        def check(*_: object) -> None:
            print(json.dumps({"value": "hangs"}), flush=True)
            time.sleep(1000)

        module = sys.modules["sqlitereplica.restore.restore"]
        module.check_database = check  # type: ignore[attr-defined]

    def count(self) -> int:
        """Rows of the table."""
        db = sqlite3.connect(self.database)
        found: int = db.execute("select count(*) from t").fetchone()[0]
        db.close()
        return found

    def write(self, count: int = 1) -> None:
        """Make that many commits."""
        db = sqlite3.connect(self.database, isolation_level=None, timeout=30)
        for _ in range(count):
            db.execute("insert into t(v) values(randomblob(100))")
        db.close()

    def sync(self, timeout: float = 60) -> float:
        """Sync; the seconds that it took."""
        began = time.monotonic()
        self.replicator.sync(timeout)
        return time.monotonic() - began

    def position(self) -> str:
        """The position now, as text."""
        return str(self.replicator.position())

    def wait(self, position: str, timeout: float = 60, require: Any = None) -> None:
        """Wait for a position."""
        self.replicator.wait(position, timeout, require=require)

    def snapshot(self) -> None:
        """Make a snapshot."""
        self.replicator.snapshot(60)

    def compact(self) -> None:
        """Compact."""
        self.replicator.compact()

    def pin(self, name: str) -> list[Any]:
        """Pin; the pins."""
        return [[p.name, p.txid] for p in self.replicator.pin(name, 60)]

    def status(self) -> Any:
        """The status and the process that answers."""
        return json.loads(self.replicator.status().to_json())

    def stop(self) -> None:
        """Stop the Replicator."""
        self.replicator.stop()


def main() -> None:
    """Obey until the end of the input."""
    worker = Worker(sys.argv[1], sys.argv[2:])
    print(json.dumps({"pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(worker, name)(*arguments)}
        except SQLiteReplicaError as error:
            answer = {
                "error": type(error).__name__,
                "kind": error.kind,
                "message": str(error),
                "notes": getattr(error, "__notes__", []),
                "data": {k: str(v) for k, v in vars(error).items()},
            }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
