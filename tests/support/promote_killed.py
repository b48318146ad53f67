"""Kills who promotes a followed file, at each call that changes a name, a file or a bucket.

Run as a program with a folder, where replicas are to be (``{}`` is their name), ``all`` or how
many of the calls, and a seed. For each a forked child promotes a followed file, and is killed by
SIGKILL before that call, or after it on S3, in whatever thread it is made. Then: the file is
whole, another host is kept out where there is a lease, the same promotion, begun again, ends,
and a Replicator of the file goes on. Prints what was seen as JSON.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from support.plain_killed import STEPS, forked

__all__ = ["main"]

MOST = 10_000


def die_at(step: int) -> Callable[[], int]:
    """Have this process killed before that call from now on; returns their count."""
    count, turn = itertools.count(1), threading.Lock()
    seen = [0]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            with turn:
                seen[0] = next(count)
                if seen[0] == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return run

    for name in (*STEPS, "link", "replace", "mkdir"):
        setattr(os, name, wrap(getattr(os, name)))
    _wrap_requests(wrap(lambda: None))
    return lambda: seen[0]


def _wrap_requests(tick: Callable[[], None]) -> None:
    """Call it before each request to S3, and after its answer."""
    from s3fs import S3FileSystem

    real = S3FileSystem._call_s3

    async def call(self: S3FileSystem, *arguments: Any, **options: Any) -> Any:
        tick()
        answer = await real(self, *arguments, **options)
        tick()
        return answer

    S3FileSystem._call_s3 = call


def promotes(folder: Path, replica: str, step: int = MOST) -> tuple[bool, int]:
    """Follow and promote in another process; (whether it was killed, calls if not)."""
    from sqlitereplica import Follower

    back, there = os.pipe()

    def run() -> None:
        # It looks only when it is told to, so that each run makes the same calls.
        with Follower(replica, folder / "f.db", interval=600) as follower:
            try:
                follower.wait(timeout=60)
            except FileExistsError:
                pass  # it was given away already
            calls = die_at(step)
            assert follower.promote(lease="1h", timeout=60).state == "promoted"
            os.write(there, str(calls()).encode())

    killed = forked(run)
    os.close(there)
    told = os.read(back, 20)
    os.close(back)
    return killed, int(told or 0)


def goes_on(folder: Path, replica: str) -> None:
    """Replicate a commit of the promoted database, from another process."""
    from sqlitereplica import Lease, Replicator

    def run() -> None:
        lease = Lease(ttl="1h", wait="60s")
        with Replicator(folder / "f.db", replica, lease=lease) as replicator:
            with closing(sqlite3.connect(folder / "f.db")) as db:
                assert db.execute("pragma journal_mode").fetchone() == ("wal",)
                db.execute("insert into t values(3)")
                db.commit()
            replicator.sync(60)

    assert not forked(run)


def is_kept_out(folder: Path, replica: str) -> None:
    """Another host does not get the lease."""
    from support.lifetime import await_true

    from sqlitereplica import Replicator

    def run() -> None:
        path = folder / "other" / "app.db"
        with Replicator(path, replica, standby=True) as replicator:

            def state() -> str:
                lease = replicator.status().lease
                return "" if lease is None or lease.holder is None else lease.state

            await_true(state)
            assert state() == "waiting"

    assert not forked(run)


def values(path: Path) -> list[int]:
    """What a database has, which is whole."""
    with closing(sqlite3.connect(path, timeout=60)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        return [v for (v,) in db.execute("select v from t order by v")]


def holds(replica: str) -> bool:
    """Whether somebody has the lease; looked up elsewhere, for fsspec keeps threads."""
    from sqlitereplica.store import LTXStore

    def run() -> None:
        lease = LTXStore.open(replica).lease_object()
        assert lease is not None
        if lease.read().record is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    return forked(run)


def prove(folder: Path, replica: str) -> None:
    """The replica is sound and has what the Replicator wrote."""
    from sqlitereplica import restore, verify

    def run() -> None:
        verify(replica).raise_for_problems()
        restore(replica, folder / "restored.db")

    assert not forked(run)
    assert values(folder / "restored.db") == [1, 2, 3]


def begin(folder: Path, replica: str) -> None:
    """Make a replica and follow it for the first time."""
    from support.recording import Recording

    from sqlitereplica import Follower
    from sqlitereplica.store import LTXStore

    def run() -> None:
        recorded = Recording(folder / "s.db", LTXStore.open(replica))
        table = "create table t(v integer primary key)"
        recorded.commit(table, "insert into t values(1)")
        recorded.commit("insert into t values(2)")
        recorded.close()
        with Follower(replica, folder / "f.db", interval=0.01) as follower:
            follower.wait(timeout=60)

    folder.mkdir()
    assert not forked(run)


def main(where: Path, replicas: str, most: int, seed: str) -> None:
    """Kill at ``most`` of all calls, and in any case just before the end."""
    for module in ("s3fs", "sqlitereplica", "support.recording"):
        importlib.import_module(module)  # once, not in each child
    seen = {"kills": 0, "held": 0, "ended": 0}

    def place(name: str) -> tuple[Path, str]:
        replica = replicas.format(name)
        begin(where / name, replica)
        return where / name, replica

    killed, total = promotes(*place("whole"))
    assert not killed and total > 30, total
    steps = list(range(1, total + 5))
    if most < len(steps):
        steps = sorted({*random.Random(seed).sample(steps[:-10], most), total - 1})
    for step in steps:
        folder, replica = place(f"at{step}")
        killed, _ = promotes(folder, replica, step)
        seen["kills" if killed else "ended"] += 1
        assert values(folder / "f.db") == [1, 2]
        if holds(replica):
            is_kept_out(folder, replica)  # for an hour
            seen["held"] += 1
        assert not promotes(folder, replica)[0]
        goes_on(folder, replica)
        prove(folder, replica)
    print(json.dumps(seen))


if __name__ == "__main__":
    folder_, replicas_, most_, seed_ = sys.argv[1:]
    main(Path(folder_), replicas_, MOST if most_ == "all" else int(most_), seed_)
