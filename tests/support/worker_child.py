"""One worker process of an application: does what it is told on stdin, a line each.

``worker_child.py DATABASE REPLICA...`` answers each line with one of JSON on stdout.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from typing import Any

from sqlitereplica import Replicator, SQLiteReplicaError

__all__ = ["Worker", "main"]


class Worker:
    """The commands."""

    def __init__(self, database: str, replicas: list[str]) -> None:
        self.replicator = Replicator(database, replicas, sync_interval=3600)
        self.database = database

    def start(self) -> None:
        """Start the Replicator."""
        self.replicator.start()

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
