"""A database, and a Replicator stepped by hand that tends the history of faulty replicas."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from fsspec.implementations.memory import MemoryFileSystem
from support.capturing import digest, make_database, serialized
from support.stepping import FakeClock, Stepped

from sqlitereplica import NotRestorableError
from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.ltx import FileInfo, database_checksum, decode, page_checksum
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.options import HistoryOptions
from sqlitereplica.restore import plan_restore
from sqlitereplica.store import LTXStore, RetryPolicy
from sqlitereplica.testing import FaultyFileSystem

__all__ = ["ROOT", "SWIFT", "Tended", "assembled"]

ROOT = "/replica"

SWIFT = HistoryOptions(
    levels=(30_000, 120_000),
    snapshot_interval=240_000,
    retention=Retention(window="2m", fine="1m", grace="20s"),
)
"""A history in which everything happens within minutes."""


def assembled(store: LTXStore, txid: int | None = None) -> bytes:
    """What the files of a replica make, put together in the simplest way.

    Raises:
        NotRestorableError: They do not lead there.
        SQLiteReplicaError: Some are damaged or gone.
    """
    pages: dict[int, bytes] = {}
    for file in plan_restore(store.list_all(), txid=txid):
        header, changed = decode(store.get(file))
        assert (header.min_txid, header.max_txid) == (file.min_txid, file.max_txid)
        pages.update(changed)
        pages = {n: page for n, page in pages.items() if n <= header.commit}
    if sorted(pages) != list(range(1, header.commit + 1)):
        raise NotRestorableError("pages are missing", kind="gap")
    sums = (page_checksum(n, page) for n, page in pages.items())
    assert database_checksum(sums) == header.post_checksum
    return b"".join(pages[n] for n in sorted(pages))


class Tended:
    """A database in a folder, and replicas of it in memory, each behind faults.

    ``states`` has the digest after each TXID of each replica. A folder that has a database
    already is gone on with, as by a new process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        protocols: Sequence[str] = ("faulty",),
        history: HistoryOptions = SWIFT,
        attempts: int = 1,
        clock: FakeClock | None = None,
    ) -> None:
        self.path = folder / "a.db"
        if self.path.exists():
            self.db = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        else:
            self.db = make_database(self.path, page_size=512)
        self.db.execute("pragma synchronous=off")
        self.fs = [
            FaultyFileSystem(
                MemoryFileSystem(global_store=False, skip_instance_cache=True),
                protocol=protocol,
            )
            for protocol in protocols
        ]
        self._retry = RetryPolicy(attempts=attempts)
        self.states: list[dict[int, str]] = [{} for _ in protocols]
        self._stepped: Stepped | None = None
        self._history = history
        self.clock = clock or FakeClock()

    def open(self, which: int) -> LTXStore:
        """A replica as the Replicator sees it."""
        return LTXStore.open(
            self.fs[which], path=ROOT, retry=self._retry, sleep=lambda seconds: None
        )

    def behind(self, which: int = 0) -> LTXStore:
        """A replica as it is."""
        fs = self.fs[which]
        layout = LTXStore.open(fs, path=ROOT)._layout
        return LTXStore.open(fs.fs, path=ROOT, layout=layout)

    @property
    def stepped(self) -> Stepped:
        """The Replicator, which is made when it is first asked for."""
        if self._stepped is None:
            opens = [lambda i=i: self.open(i) for i in range(len(self.fs))]
            self._stepped = Stepped(
                self.path,
                opens,  # type: ignore[arg-type]
                clock=self.clock,
                history=self._history,
                node_id=7,
            )
        return self._stepped

    # -- what happens ----------------------------------------------------------------

    def write(self, sizes: Sequence[int] = (700, 300)) -> None:
        """Commit some rows, change one and delete one."""
        for size in sizes:
            self.db.execute("insert into t(v) values(randomblob(?))", (size,))
        self.db.execute("update t set v = randomblob(30) where id = 1")
        self.db.execute(
            "delete from t where id = (select max(id) from t where id % 9 = 2)"
        )

    def acknowledge(self) -> bool:
        """Sync; a success is noted, and is one: the replicas restore to it."""
        if not self.stepped.durable():
            return False
        now = digest(serialized(self.path))
        for which, worker in enumerate(self.stepped.workers):
            self.states[which][worker.txid] = now
        return True

    def pass_time(self, seconds: float, steps: int = 1) -> None:
        """Let time pass in steps, doing what is due after each."""
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.stepped.run()
            for _ in range(50):
                if not self.stepped.tend():
                    break
            else:
                raise AssertionError("there is always something due")

    def go_on(self, changes: int, every: float) -> None:
        """Change, sync and let time pass."""
        for _ in range(changes):
            self.write()
            assert self.acknowledge(), self.errors
            self.pass_time(every)

    def heal(self) -> None:
        """Let everything work."""
        for fs in self.fs:
            fs.heal()

    # -- what is there ---------------------------------------------------------------

    def files(self, which: int = 0) -> list[FileInfo]:
        """The files of a replica."""
        return self.behind(which).list_all()

    def kept(self, which: int = 0) -> dict[int, str]:
        """The states that restore, which are right."""
        store, found = self.behind(which), {}
        for txid, right in self.states[which].items():
            try:
                image = assembled(store, txid)
            except SQLiteReplicaError:
                continue
            assert digest(image) == right, txid
            found[txid] = right
        return found

    def check_newest(self, which: int = 0) -> None:
        """The newest state restores."""
        assert digest(assembled(self.behind(which))) == digest(serialized(self.path))

    @property
    def errors(self) -> list[Exception]:
        """What fails at present."""
        found = [line.worker.health.error for line in self.stepped.lines]
        found += [line.history.error for line in self.stepped.lines]
        return [error for error in found if error is not None]

    def actions(self, action: str) -> list[dict[str, object]]:
        """The data of all events of a kind."""
        return [dict(e.data) for e in self.stepped.events if e.action == action]

    def close(self) -> None:
        """End."""
        if self._stepped is not None:
            self._stepped.kill()
        self.db.close()

    def copy(self, folder: Path) -> Tended:
        """The same in another folder, as a process finds it that begins now.

        To be called once this one is closed.
        """
        shutil.copytree(self.path.parent, folder)
        other = Tended(
            folder,
            protocols=[fs.protocol for fs in self.fs],
            history=self._history,
            attempts=self._retry.attempts,
        )
        other.clock.seconds, other.clock.wall_ms = (
            self.clock.seconds,
            self.clock.wall_ms,
        )
        other.states = [dict(states) for states in self.states]
        for mine, its in zip(self.fs, other.fs, strict=True):
            for path in mine.fs.find("/"):
                its.pipe_file(path, mine.fs.cat_file(path))
        return other
