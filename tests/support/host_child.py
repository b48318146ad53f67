"""One host of an application: does what it is told on stdin, a line each.

``host_child.py DATABASE REPLICA OPTIONS`` answers each line with one of JSON on stdout;
OPTIONS are those of ``Replicator``, as JSON, with ``storage`` for the replica and ``host``,
the name of the host that it plays.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
from typing import Any

from sqlitereplica import (
    Follower,
    Replica,
    Replicator,
    SQLiteReplicaError,
    restore,
)
from sqlitereplica.events import Event

__all__ = ["Host", "main"]


class Host:
    """The commands."""

    def __init__(self, database: str, replica: str, options: dict[str, Any]) -> None:
        host = options.pop("host")
        socket.gethostname = lambda: host
        self.replica = Replica(replica, storage_options=options.pop("storage", None))
        self.events: list[str] = []
        self.replicator = Replicator(
            database,
            self.replica,
            observer=self.observe,
            **{"sync_interval": 3600, "stop_timeout": 20, **options},
        )
        self.database = database
        self.db: sqlite3.Connection | None = None
        self.follower = Follower(
            self.replica, database, interval=0.05, observer=self.observe
        )

    def observe(self, event: Event) -> None:
        """Keep what happens."""
        self.events.append(event.action)

    def follow(self) -> Any:
        """Follow the replica; how it is when all is here."""
        self.follower.start()
        return json.loads(self.follower.wait(timeout=60).to_json())

    def promote(self, timeout: float, lease: Any = True) -> Any:
        """Promote the followed file."""
        status = self.follower.promote(timeout=timeout, lease=lease)
        return json.loads(status.to_json())

    def start(self) -> None:
        """Start the Replicator."""
        self.replicator.start()

    def wait_active(self, timeout: float | None = None) -> None:
        """Wait for its turn."""
        self.replicator.wait_active(timeout)

    def restore(self) -> bool:
        """Bring the database here; whether there was a backup."""
        restore(
            self.replica,
            self.database,
            if_exists="replace",
            missing="skip",
            verify=None,
        )
        return os.path.exists(self.database)

    def open(self) -> None:
        """Open the database, as an application does."""
        self.db = sqlite3.connect(self.database, isolation_level=None, timeout=30)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("create table if not exists t(v integer primary key) strict")

    def write(self, value: int) -> None:
        """One commit."""
        assert self.db is not None
        self.db.execute("insert into t(v) values(?)", (value,))

    def sync(self, timeout: float = 60) -> None:
        """Sync."""
        self.replicator.sync(timeout)

    def values(self) -> list[int]:
        """What the database has."""
        db = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        try:
            return [v for (v,) in db.execute("select v from t order by v")]
        finally:
            db.close()

    def status(self) -> Any:
        """The status."""
        return json.loads(self.replicator.status().to_json())

    def told(self) -> list[str]:
        """The events so far."""
        return self.events

    def stop(self) -> None:
        """Stop the application and the Replicator."""
        if self.db is not None:
            self.db.close()
            self.db = None
        self.replicator.stop()


def main() -> None:
    """Obey until the end of the input."""
    host = Host(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    print(json.dumps({"pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(host, name)(*arguments)}
        except SQLiteReplicaError as error:
            answer = {
                "error": type(error).__name__,
                "kind": error.kind,
                "message": str(error),
                "data": {k: str(v) for k, v in vars(error).items()},
            }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
