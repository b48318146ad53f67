"""A replicated database over a filesystem in which things go wrong, and its oracle."""

from __future__ import annotations

import shutil
from pathlib import Path

from fsspec.implementations.memory import MemoryFileSystem
from support.capturing import make_database, serialized
from support.stepping import Stepped

from sqlitereplica import restore
from sqlitereplica.ltx import database_checksum, decode, page_checksum
from sqlitereplica.restore import plan_restore
from sqlitereplica.store import LTXStore, RetryPolicy
from sqlitereplica.testing import FaultyFileSystem, Plan

__all__ = ["ROOT", "FaultyDatabase"]

ROOT = "/replica"


class FaultyDatabase:
    """A database, a Replicator stepped by hand, and a replica in faulty memory.

    Whatever ``acknowledge`` was told is durable is checked at once, behind the faults.
    """

    def __init__(
        self,
        folder: Path,
        *,
        attempts: int = 1,
        node_id: int = 0,
        protocol: str = "faulty",
    ) -> None:
        self.folder, self.path = folder, folder / "a.db"
        self.db = make_database(self.path, page_size=1024)
        self.db.execute("pragma synchronous=off")
        self.real = MemoryFileSystem(skip_instance_cache=True)
        self.real.store, self.real.pseudo_dirs = {}, [""]
        self.fs = FaultyFileSystem(self.real, protocol=protocol)
        self._retry = RetryPolicy(attempts=attempts)
        self.stepped = Stepped(self.path, [self.open], node_id=node_id)

    def open(self) -> LTXStore:
        """The replica as the Replicator sees it."""
        return LTXStore.open(
            self.fs, path=ROOT, retry=self._retry, sleep=lambda seconds: None
        )

    def behind(self) -> LTXStore:
        """The replica as it is."""
        return LTXStore.open(self.real, path=ROOT)

    def write(self, count: int = 2) -> None:
        """Commit some rows, and change one."""
        for _ in range(count):
            self.db.execute("insert into t(v) values(randomblob(700))")
        self.db.execute("update t set v = randomblob(30) where id = 1")

    def acknowledge(self) -> bool:
        """Sync. If that succeeds, the replica really restores to the present state."""
        self.stepped.clock.advance(1)
        if not self.stepped.durable():
            return False
        assert self.image() == serialized(self.path)
        return True

    def restart(self, *, forget: bool = False, plan: Plan | None = None) -> None:
        """Be killed and begin again; ``forget``: with the metadata lost."""
        self.stepped.kill()
        if forget:
            shutil.rmtree(self.stepped.meta)
        if plan is not None:
            self.fs.plan = plan
        self.stepped.begin()

    def heal(self) -> None:
        """Let everything work; the replica catches up and holds the present state."""
        self.fs.heal()
        self.stepped.clock.advance(100)
        assert self.acknowledge(), self.error
        self.check()

    def check(self) -> None:
        """No name ever held two contents; every transaction is there; restores work."""
        assert not self.fs.overwritten
        level_0 = self.behind().list_level(0)
        txids = [(f.min_txid, f.max_txid) for f in level_0]
        assert txids == [(n, n) for n in range(1, len(txids) + 1)]
        for low, _ in txids:
            assert self.image(low)
        assert self.restored() == self.image() == serialized(self.path)

    def image(self, txid: int | None = None) -> bytes:
        """What the files behind the faults make, put together in the simplest way."""
        store = self.behind()
        pages: dict[int, bytes] = {}
        for file in plan_restore(store.list_all(), txid=txid):
            header, changed = decode(store.get(file))
            assert (header.min_txid, header.max_txid) == (file.min_txid, file.max_txid)
            pages.update(changed)
            pages = {n: page for n, page in pages.items() if n <= header.commit}
        assert sorted(pages) == list(range(1, header.commit + 1))
        sums = (page_checksum(n, page) for n, page in pages.items())
        assert database_checksum(sums) == header.post_checksum
        return b"".join(pages[n] for n in sorted(pages))

    def restored(self, store: LTXStore | None = None) -> bytes:
        """The database that a restore makes."""
        target = self.folder / "restored.db"
        target.unlink(missing_ok=True)
        restore(store or self.behind(), target)
        return target.read_bytes()

    @property
    def error(self) -> Exception | None:
        """What the worker last failed with."""
        return self.stepped.workers[0].health.error

    def close(self) -> None:
        """End."""
        self.stepped.engine.close()
        self.db.close()
