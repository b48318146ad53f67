"""T35: a process that compacts, snapshots and deletes every few milliseconds is killed, at any
moment and before each step on names and disks; nothing durable is lost, no pin and no merged
point is, and the next process compacts on.

``SEED`` replays the decisions of a run, ``LEDGER_CYCLES`` is the length of the torture.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.ledger import Judge
from support.ledger_child import Orders, spawn
from support.torment import Killer, LedgerPlace, begin, end

from sqlitereplica import restore
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.restore import plan_restore
from sqlitereplica.restore.plan import extend
from sqlitereplica.store.chains import Chains
from sqlitereplica.store.pins import put_pin

pytestmark = pytest.mark.crash

SEED = os.environ.get("SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"
CYCLES, LAST_STEP = 3, 60
"""Kills of either sort; the step of its work at which the latest one comes."""
TORTURE_CYCLES = int(os.environ.get("LEDGER_CYCLES", "1000"))
LONG, PATIENCE = 25, 80.0
"""Cycles with one database; seconds until a child must have come to its last step."""


def listed(files: list[FileInfo]) -> list[tuple[int, int, int]]:
    """Levels and transactions, to be read."""
    return [(file.level, file.min_txid, file.max_txid) for file in files]


class TendedPlace(LedgerPlace):
    """A replica whose history is tended by a child that is killed.

    After each kill the newest state is pinned, and every pin has to last.
    """

    def __init__(self, folder: Path, judge: Judge, seed: str, history: str) -> None:
        super().__init__(folder, judge)
        self._history = history
        self._rng = random.Random(seed)
        self._pinned: dict[str, str] = {}
        self._merged: set[int] = set()

    def orders(self, seed: str, **more: Any) -> Orders:
        """Orders for a child that tends it."""
        return super().orders(seed, history=self._history, **more)

    def check_files(self, held: int) -> None:
        """The files lead to the newest state, and whatever they lead to was one once."""
        del held
        files = self.store.list_all()
        if not files:
            return
        plan = plan_restore(files)
        assert plan[-1].max_txid == max(file.max_txid for file in files)
        points = [point.txid for point in Chains(files).points]
        if self._history == "kept":
            # Levels may have holes where a higher one has the same; all together none.
            assert extend(files, 1)[-1].max_txid == plan[-1].max_txid, listed(files)
            # What was merged, or a snapshot, is a point for as long as the test takes.
            assert self._merged <= set(points), listed(files)
            self._merged |= {file.max_txid for file in files if file.level}
        states = {digest for _, digest in self.log.states()}
        for txid in self._rng.sample(points, min(2, len(points))):
            assert self._restored(txid=txid) in states, txid
        for name, digest in self._pinned.items():
            assert self._restored(at=name) == digest, name
        name = f"kill-{len(self._pinned)}"
        put_pin(self.store, name)
        self._pinned[name] = self._restored()

    def _restored(self, **which: Any) -> str:
        """Digest of a state in the replica."""
        restore(self.replica, out := self.folder / "point.db", **which)
        found = hashlib.sha256(out.read_bytes()).hexdigest()
        out.unlink()
        return found

    def see_it_go_on(self, child: subprocess.Popen[bytes]) -> bytes:
        """Let a child begin, tend what all of the others left, and end as it should."""
        last = max((file.max_txid for file in self.store.list_all()), default=0)
        begin(child)
        deadline = time.monotonic() + PATIENCE
        new: set[int] = set()
        while not new >= {0, 1, 2, SNAPSHOT_LEVEL}:
            assert time.monotonic() < deadline, listed(self.store.list_all())
            time.sleep(0.01)
            # One at a time may be there: files that are merged go soon.
            new |= {f.level for f in self.store.list_all() if f.max_txid > last}
        return end(child)


def run_until_it_dies(child: subprocess.Popen[bytes]) -> tuple[bytes, bool]:
    """What a child said that is to die by itself, and whether it did within the time."""
    begin(child)
    assert child.stdin and child.stdout
    late = threading.Timer(PATIENCE, child.kill)
    late.start()
    told = child.stdout.read()
    assert child.wait() == -9
    died = late.is_alive()
    late.cancel()
    late.join()
    child.stdin.close()
    child.stdout.close()
    return told, died


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """The process that looks at databases."""
    found = Judge()
    yield found
    found.close()


def torment(
    folder: Path, judge: Judge, seed: str, steps: list[int], history: str
) -> None:
    """Kill at each of the steps (0: at some moment), check, go on; end as one should."""
    place = TendedPlace(folder, judge, seed, history)
    killer = Killer(random.Random(seed), 0.5)
    with ExitStack() as stack:
        for cycle, step in enumerate([*steps, None]):
            child = spawn(place.orders(f"{seed}/{cycle}", die_at=step or 0))
            stack.callback(child.kill)
            if step is None:
                place.promise(place.see_it_go_on(child))
            elif step:
                told, died = run_until_it_dies(child)
                assert died, f"it never came to step {step}"
                place.promise(told)
            else:
                killer.run(child)
                place.promise(killer.told)
            place.check(complete=step is None)
    print(f"{seed}: {place.promises} promises kept")


@pytest.mark.parametrize("history", ["kept", "thinned"])
def test_killed_compactor_leaves_no_hole(
    tmp_path: Path, judge: Judge, history: str
) -> None:
    """At any moment, and at some steps of its work."""
    print(f"SEED={SEED}")
    rng = random.Random(f"{SEED}-{history}")
    steps = [*[0] * CYCLES, *(rng.randrange(1, LAST_STEP) for _ in range(CYCLES))]
    rng.shuffle(steps)
    torment(tmp_path / "a", judge, f"{SEED}-{history}", steps, history)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("history", ["kept", "thinned"])
@pytest.mark.parametrize("how", ["moment", "step"])
def test_compactor_is_killed_thousands_of_times(
    tmp_path: Path, judge: Judge, history: str, how: str
) -> None:
    """At every step of its work, one after the other, or at random moments."""
    print(f"SEED={SEED}")
    for first in range(0, TORTURE_CYCLES, LONG):
        steps = [1 + n % 150 for n in range(first, first + LONG)]
        seed = f"{SEED}-{history}-{first}"
        at = steps if how == "step" else [0] * LONG
        torment(tmp_path / str(first), judge, seed, at, history)
        shutil.rmtree(tmp_path / str(first))
