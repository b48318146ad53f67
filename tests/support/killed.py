"""A database whose replicating process was killed, and every state that its replica has."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sqlitereplica import restore
from sqlitereplica.ltx import Decoder, FileInfo
from sqlitereplica.store import LTXStore

__all__ = ["Left", "pages_of", "replicate_and_die"]

CHILD = """
import hashlib, sqlite3, sys, time
from pathlib import Path
from sqlitereplica import Replicator

path, replica, page_size, commits = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None)
db.execute(f"pragma page_size={page_size}")
db.execute("pragma journal_mode=wal")
db.execute("create table t(id integer primary key, v)")
for _ in range(100):
    db.execute("insert into t(v) values(randomblob(3000))")
r = Replicator(path, [replica], sync_interval=60)
r.start()
for i in range(int(commits)):
    db.execute("update t set v = randomblob(2000) where id = ?", (i + 1,))
    r.sync()
    print(r.status().txid, hashlib.sha256(db.serialize()).hexdigest(), flush=True)
table = Path(path).with_name(".app.db-sqlitereplica") / "pages"
while not table.exists():
    time.sleep(0.01)  # it is written once the replica has all
db.execute("insert into t(v) values('committed, but not shipped')")
print("killed here", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Left:
    """What the killed process left: a database, a replica, and the digests of its states."""

    database: Path
    replica: Path
    digests: dict[int, str]
    """By TXID."""

    @property
    def txid(self) -> int:
        """The newest TXID of the replica."""
        return max(self.digests)

    @property
    def metadata(self) -> Path:
        """The metadata folder."""
        return self.database.with_name(f".{self.database.name}-sqlitereplica")

    def image(self, txid: int | None = None) -> bytes:
        """The database as restored from the replica."""
        out = self.database.parent / "restored" / "out.db"
        restore(self.replica, out, txid=txid, if_exists="replace")
        return out.read_bytes()

    def check_old_states(self) -> None:
        """Every state that the killed process shipped restores to the byte."""
        for txid, digest in self.digests.items():
            assert hashlib.sha256(self.image(txid)).hexdigest() == digest

    def files_after(self, txid: int, level: int = 0) -> list[FileInfo]:
        """Files of a level that end after a TXID."""
        infos = LTXStore.open(self.replica).list_level(level)
        return [info for info in infos if info.max_txid > txid]

    def decoded(self, info: FileInfo) -> dict[int, bytes]:
        """The pages of a file."""
        with LTXStore.open(self.replica).open_file(info) as file:
            return dict(Decoder(file).pages())


def pages_of(image: bytes, page_size: int) -> dict[int, bytes]:
    """Pages by number."""
    return {
        at // page_size + 1: image[at : at + page_size]
        for at in range(0, len(image), page_size)
    }


def replicate_and_die(folder: Path, *, page_size: int = 4096, commits: int = 4) -> Left:
    """Replicate a database in another process, and kill that when the replica has it."""
    folder.mkdir(parents=True, exist_ok=True)
    database, replica = folder / "app.db", folder / "replica"
    arguments = [str(database), str(replica), str(page_size), str(commits)]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    digests = {}
    try:
        assert child.stdout
        while (line := child.stdout.readline()) and line != "killed here\n":
            txid, digest = line.split()
            digests[int(txid)] = digest
    finally:
        child.kill()
        child.communicate()
    assert len(digests) == commits
    return Left(database, replica, digests)
