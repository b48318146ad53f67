"""T18: a state machine over the real engine, real SQLite and real files, without threads.

Model: the bytes of the database at every successful ``sync``. After any sequence of
changes, checkpoints, restarts, store failures and passing time, every transaction that was
current at a sync restores to exactly those bytes.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.capturing import digest, make_database, serialized
from support.stepping import FakeClock, Stepped

from sqlitereplica import NotRestorableError, StoreError, restore
from sqlitereplica.capture import ContinuityLostError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore


class FlakyStore(LTXStore):
    """A local store whose puts can be told to fail, before or after they are done."""

    failing = ""

    def put(  # type: ignore[no-untyped-def]
        self, level, min_txid, max_txid, data, *, timestamp
    ) -> FileInfo:
        """Put, or fail as told."""
        if self.failing == "before":
            raise StoreError("told to fail", operation="put")
        info = super().put(level, min_txid, max_txid, data, timestamp=timestamp)
        if self.failing == "after":
            raise StoreError("told to fail after it was done", operation="put")
        return info


class EngineMachine(RuleBasedStateMachine):
    """Random operations on one database with two replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="engine-"))
        self.path = self.folder / "a.db"
        self.app = make_database(self.path, page_size=1024, auto_vacuum=2)
        self.app.execute("pragma busy_timeout=0")
        self.roots = [self.folder / "one", self.folder / "two"]
        self.stores = [FlakyStore.open(root) for root in self.roots]
        self.clock = FakeClock()
        self.stepped = Stepped(
            self.path,
            [lambda s=store: s for store in self.stores],  # type: ignore[misc]
            clock=self.clock,
            buffer_size=1 << 20,
            spool_size=200_000,
        )
        self.known: list[dict[int, str]] = [{}, {}]
        self.high = [0, 0]

    def teardown(self) -> None:
        self.stepped.engine.close()
        self.app.close()
        shutil.rmtree(self.folder)

    # -- the application -------------------------------------------------------------

    @rule(size=st.integers(0, 30_000), times=st.integers(1, 4))
    def insert(self, size: int, times: int) -> None:
        """Rows of random bytes."""
        for _ in range(times):
            self.app.execute("insert into t(v) values(randomblob(?))", (size,))

    @rule(modulus=st.integers(1, 5))
    def delete(self, modulus: int) -> None:
        """Some rows, or all."""
        self.app.execute("delete from t where id % ? = 0", (modulus,))

    @rule(table=st.integers(1, 3), create=st.booleans())
    def schema(self, table: int, create: bool) -> None:
        """Tables come and go."""
        what = f"create table if not exists x{table}(a, b)"
        self.app.execute(what if create else f"drop table if exists x{table}")

    @rule(pages=st.integers(0, 100))
    def shrink(self, pages: int) -> None:
        """VACUUM, or an incremental one."""
        how = f"pragma incremental_vacuum({pages})" if pages else "vacuum"
        self.app.execute(how).fetchall()

    @rule(mode=st.sampled_from(["passive", "full", "restart", "truncate"]))
    def checkpoint(self, mode: str) -> None:
        """A checkpoint of the application's own."""
        self.app.execute(f"pragma wal_checkpoint({mode})").fetchall()

    @rule()
    def reopen(self) -> None:
        """Close the application's connection and open another."""
        self.app.close()
        self.app = sqlite3.connect(self.path, isolation_level=None, timeout=0)

    # -- us --------------------------------------------------------------------------

    @rule()
    def step(self) -> None:
        """One step only: nothing needs to be complete afterwards."""
        self.stepped.step()

    @rule(times=st.integers(1, 4))
    def step_engine(self, times: int) -> None:
        """Capture is faster than the replicas; each time a flush may be due."""
        for _ in range(times):
            self.clock.advance(1.1)
            self.stepped.engine.step()

    @rule(which=st.integers(0, 1), times=st.integers(1, 4))
    def step_worker(self, which: int, times: int) -> None:
        """One replica is faster than capture and the other replica."""
        for _ in range(times):
            self.stepped.workers[which].advance()

    @rule()
    def lose_the_database(self) -> None:
        """Capture is in doubt, lets the database go and attaches anew."""
        self.stepped.engine.fail(ContinuityLostError(str(self.path), "told to"))

    @rule(seconds=st.floats(0.01, 100))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)
        self.stepped.run()

    @rule(hours=st.integers(1, 3))
    def clock_set_back(self, hours: int) -> None:
        """The wall clock jumps back; monotonic time does not."""
        self.clock.wall_ms -= hours * 3_600_000

    @rule()
    def kill(self) -> None:
        """Die without a flush, and start again."""
        self.stepped.restart()

    @rule(keep=st.booleans())
    def lose_metadata(self, keep: bool) -> None:
        """The metadata folder is gone, or its log is torn."""
        self.stepped.kill()
        if keep and (self.stepped.meta / "pages.log").exists():
            log = self.stepped.meta / "pages.log"
            log.write_bytes(log.read_bytes()[:-7])
        else:
            shutil.rmtree(self.stepped.meta)
        self.stepped.begin()

    @rule(which=st.integers(0, 1), how=st.sampled_from(["", "before", "after"]))
    def store_fails(self, which: int, how: str) -> None:
        """A store goes away, answers wrongly, or heals."""
        self.stores[which].failing = how

    @precondition(lambda self: not any(s.failing for s in self.stores))
    @rule()
    def sync(self) -> None:
        """What a successful sync covers is what the replicas restore."""
        self.clock.advance(100)  # past every pause after a failure
        assert self.stepped.durable(), [
            str(w.health.error) for w in self.stepped.workers
        ]
        now = digest(serialized(self.path))
        for i, worker in enumerate(self.stepped.workers):
            self.known[i][worker.txid] = now
            assert self.restored(i, None) == now

    @precondition(lambda self: not any(s.failing for s in self.stores))
    @rule(which=st.integers(0, 1))
    def snapshot(self, which: int) -> None:
        """A full snapshot at level 9 restores to the same bytes."""
        self.sync()
        assert self.stepped.snapshot(which) is None
        assert self.restored(which, None) == digest(serialized(self.path))

    @precondition(lambda self: any(self.high))
    @rule(data=st.data())
    def restore_at(self, data: st.DataObject) -> None:
        """I6: the newest state before the time asked for, never a later one."""
        which = data.draw(st.sampled_from([i for i in (0, 1) if self.high[i]]))
        files = self.stores[which].list_all(accurate=True)
        times = sorted({f.timestamp for f in files})
        at = data.draw(st.sampled_from(times)) + data.draw(st.sampled_from([0, 1]))
        before = [f.max_txid for f in files if f.timestamp < at]
        target = self.folder / "restored.db"
        try:
            result = restore(
                self.roots[which], target, at=at / 1000, if_exists="replace"
            )
        except NotRestorableError:
            assert not before
        else:
            assert result.txid == max(before)

    @precondition(lambda self: any(self.known))
    @rule(data=st.data())
    def restore_any(self, data: st.DataObject) -> None:
        """Each transaction that was current at a sync still restores to its bytes."""
        which = data.draw(st.sampled_from([i for i in (0, 1) if self.known[i]]))
        txid = data.draw(st.sampled_from(sorted(self.known[which])))
        assert self.restored(which, txid) == self.known[which][txid]

    def restored(self, which: int, txid: int | None) -> str:
        """Digest of a restore into a place of its own."""
        target = self.folder / "restored.db"
        restore(self.roots[which], target, txid=txid, if_exists="replace")
        return digest(target.read_bytes())

    @invariant()
    def published_never_falls(self) -> None:
        """I5: the newest TXID in a store only grows, and level 0 has no gap."""
        for i, store in enumerate(self.stores):
            files = store.list_level(0)
            numbers = [f.max_txid for f in files]
            assert numbers == list(range(1, len(files) + 1))
            assert len(files) >= self.high[i]
            self.high[i] = len(files)

    @invariant()
    def newest_is_always_restorable(self) -> None:
        """I4: whatever is published restores, at any moment."""
        for i in (0, 1):
            try:
                self.restored(i, None)
            except NotRestorableError:
                assert self.high[i] == 0


EngineMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("ENGINE_EXAMPLES", "20")),
    stateful_step_count=30,
    deadline=None,
    # Shrinking takes minutes: a failure prints how to replay it, for who wants to.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestEngine = EngineMachine.TestCase
