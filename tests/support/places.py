"""A database with a replica on which both tools work, in a folder or on S3."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from support.capturing import serialized
from support.daemon import Daemon
from support.litestream import Litestream
from support.servers import S3Server

from sqlitereplica import Replica, Replicator, restore
from sqlitereplica.ltx import FileInfo

__all__ = ["Place", "only_litestream_checkpoints"]


def only_litestream_checkpoints(connection: sqlite3.Connection) -> None:
    """Keep the application's connection from checkpoints of its own.

    Litestream 0.5.17 loses frames when another connection checkpoints and the WAL is reset
    between two looks of its own: without any of ours running, what it restores is then
    damaged (seen in 46 of 60 runs at 50 transactions a second). Its documentation says
    to turn this off under load. A test that judges replicas of its daemon has to.
    """
    connection.execute("pragma wal_autocheckpoint=0")


class Place:
    """A database in a folder, and its replica.

    ``url`` names the replica for Litestream, whose variables are ``env``, and ``replica``
    for us.
    """

    def __init__(
        self,
        folder: Path,
        litestream: Litestream,
        *,
        url: str,
        replica: Replica,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.litestream = folder, litestream
        self.url, self.replica, self.env = url, replica, dict(env or {})
        self.database = folder / "app.db"

    @classmethod
    def local(cls, folder: Path, litestream: Litestream) -> Place:
        """One whose replica is a folder beside the database."""
        replica = folder / "replica"
        return cls(folder, litestream, url=replica.as_uri(), replica=Replica(replica))

    @classmethod
    def on_s3(
        cls,
        folder: Path,
        litestream: Litestream,
        server: S3Server,
        bucket: str,
        path: str,
    ) -> Place:
        """One whose replica is on S3."""
        url = server.url(bucket, path)
        options = {"key": server.key, "secret": server.secret}
        return cls(
            folder,
            litestream,
            url=url,
            replica=Replica(url, storage_options=options),
            env=server.environment,
        )

    # -- replication -----------------------------------------------------------------

    def ours(self, **options: Any) -> Replicator:
        """Our Replicator; unless told, it flushes only when asked."""
        options.setdefault("sync_interval", 600)
        return Replicator(self.database, self.replica, **options)

    def theirs(self, **settings: Any) -> Daemon:
        """Litestream's daemon."""
        return Daemon(
            self.litestream, self.database, self.url, env=self.env, **settings
        )

    def once(self) -> None:
        """Let Litestream replicate what there is, and end."""
        self.litestream.run("replicate", "-once", self.database, self.url, **self.env)

    # -- the replica -----------------------------------------------------------------

    def files(self, level: int | None = None) -> list[FileInfo]:
        """The files of the replica, with the times of their headers."""
        files = self.replica.open().list_all(accurate=True)
        return [f for f in files if level in (None, f.level)]

    def levels(self) -> set[int]:
        """The levels that have files."""
        return {file.level for file in self.replica.open().list_all()}

    @property
    def txid(self) -> int:
        """The newest transaction in the replica, 0 when it has none."""
        files = self.replica.open().list_all()
        return max((file.max_txid for file in files), default=0)

    def contents(self) -> dict[tuple[int, int, int], bytes]:
        """The bytes of every file, by level and transactions."""
        store = self.replica.open()
        return {
            (f.level, f.min_txid, f.max_txid): store.get(f) for f in store.list_all()
        }

    # -- restores, by Litestream and by us, who have to agree to the byte ------------

    def latest(self) -> bytes:
        """The newest state."""
        return self._restore([])

    def at_txid(self, txid: int) -> bytes:
        """The state after a transaction."""
        return self._restore(["-txid", f"{txid:016x}"], txid=txid)

    def at_time(self, moment: datetime) -> bytes:
        """The last state before a time."""
        text = moment.isoformat(timespec="milliseconds")
        return self._restore(["-timestamp", text], at=moment)

    def _named(self) -> list[str]:
        """The replica, as Litestream's restore is told of it.

        Told a URL on S3, it refuses times before the oldest upload (litestream.md 5.1),
        whatever the times of the states are; told a configuration, it does not.
        """
        if not self.env:
            return [self.url]
        config = self.folder / "restore.yml"
        dbs = [{"path": str(self.database), "replica": {"url": self.url}}]
        config.write_text(json.dumps({"dbs": dbs}))  # JSON is YAML
        return ["-config", str(config), str(self.database)]

    def _restore(self, arguments: list[str], **wanted: Any) -> bytes:
        ours, theirs = self.folder / "ours.db", self.folder / "theirs.db"
        arguments = [*arguments, "-force", "-o", str(theirs), *self._named()]
        self.litestream.run("restore", *arguments, **self.env)
        restore(self.replica, ours, if_exists="replace", **wanted)
        image = theirs.read_bytes()
        assert ours.read_bytes() == image
        return image

    def agree(self) -> None:
        """Both restore what the database holds now."""
        assert self.latest() == serialized(self.database)
