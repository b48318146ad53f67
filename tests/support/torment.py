"""A database whose replicating process is killed again and again, and what must hold then."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.ledger import COLD, Judge, StateLog
from support.ledger_child import Orders, spawn

from sqlitereplica import restore
from sqlitereplica.ltx import Decoder
from sqlitereplica.store import LTXStore

__all__ = ["Killer", "LedgerPlace", "begin", "end", "finish", "torment"]


class LedgerPlace:
    """A database, its replica and the log of its states; and what they must keep."""

    def __init__(
        self, folder: Path, judge: Judge, *, exact: bool = True, shared: bool = False
    ) -> None:
        """``shared``: other processes have the database open while the child is dead."""
        folder.mkdir()
        self.folder, self.exact, self.shared = folder, exact, shared
        self.database, self.replica = folder / "app.db", folder / "replica"
        self.log = StateLog(folder / "log", exact=exact)
        self._judge = judge
        self.store = LTXStore.open(self.replica)
        self.promises = self._promised = self._promised_seq = 0
        self._reached = -1
        self._txid = 0

    def orders(
        self, seed: str, *, replicates: bool = True, start: str = "open", **more: Any
    ) -> Orders:
        """Orders for a child that works here."""
        return Orders(
            database=str(self.database),
            log=str(self.folder / "log"),
            seed=seed,
            replica=str(self.replica) if replicates else "",
            exact=self.exact,
            start=start,
            **more,
        )

    def promise(self, told: bytes) -> None:
        """Take down what a child said is durable."""
        lines = [line.split() for line in told.split(b"\n")[:-1]]
        for place, seq in (line for line in lines if len(line) == 2):
            self.promises += 1
            self._promised = int(place)
            self._promised_seq = max(self._promised_seq, int(seq))

    def check(self, *, complete: bool = False) -> None:
        """Everything that must hold while nobody replicates.

        ``complete``: it was stopped as it should be, so the replica has all there is.
        """
        if not self.database.exists() or self.database.stat().st_size == 0:
            return
        with self.log.turn(lambda: self._look_at_source()["digest"]):
            if states := self.log.states():
                # I7: what the application committed is there, and nothing else.
                assert self._look_at_source()["digest"] == states[-1][1]
        held = self.log.states()[self._reached][0] if self._reached >= 0 else 0
        self._check_restored()
        self.check_files(held)
        if complete:
            last = self.log.states()[-1][1]
            assert self.log.states()[self._reached][1] == last

    def _look_at_source(self) -> dict[str, object]:
        """Examine the source as it lies there, without closing or recovering it."""
        if self.shared:
            return self._judge.examine(self.database, exact=self.exact)
        copy = self.folder / "copy"
        copy.mkdir()
        for suffix in ("", "-wal", "-journal"):
            file = self.database.with_name(f"app.db{suffix}")
            if file.exists():
                shutil.copy(file, copy)
        report = self._judge.examine(copy / "app.db", exact=self.exact)
        shutil.rmtree(copy)
        return report

    def _check_restored(self) -> None:
        """I1 to I3: from the store alone comes a state that there was, not too old a one."""
        out = self.folder / "out"
        missing = "error" if self._promised or self._reached >= 0 else "skip"
        if not restore(self.replica, out / "app.db", missing=missing).restored:
            return
        with (out / "app.db").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        report = self._judge.examine(out / "app.db", exact=self.exact)
        assert report["digest"] == found or not self.exact
        states = self.log.states()
        least = max(
            [
                self._reached,
                *(i for i, (at, _) in enumerate(states) if at <= self._promised),
            ]
        )
        which = [i for i, state in enumerate(states) if state[1] == report["digest"]]
        assert which, "restored to a state that the database never had"
        assert which[-1] >= least, "restored to less than was promised"
        self._reached = max(least, which[0])
        assert report["last"] >= self._promised_seq
        shutil.rmtree(out)

    def check_files(self, held: int) -> None:
        """TXIDs without gaps, and no second upload of what did not change.

        ``held`` is the place of the state that the replica had at the last check.
        """
        infos = self.store.list_level(0, min_txid=self._txid + 1)
        txids = [(i.min_txid, i.max_txid) for i in infos]
        first = self._txid + 1
        assert txids == [(n, n) for n in range(first, first + len(infos))]
        self._txid += len(infos)
        rewrites = [*self.log.places_of("vacuum"), *self.log.places_of("create")]
        if any(at > held for at in rewrites):
            return
        for info in infos:
            with self.store.open_file(info) as file:
                cold = sum(COLD in page for _, page in Decoder(file).pages())
            assert cold == 0 or info.min_txid == 1, f"{info.name} has everything again"


class Killer:
    """Starts a child ahead of time, and kills it at a random moment."""

    def __init__(self, rng: random.Random, longest: float) -> None:
        self._rng, self._longest = rng, longest
        self.told = b""

    def run(self, child: subprocess.Popen[bytes]) -> None:
        """Say go, wait, kill. A third of the moments are within the first 50 ms."""
        longest = 0.05 if self._rng.random() < 1 / 3 else self._longest
        moment = self._rng.uniform(0, longest)
        begin(child)
        time.sleep(moment)  # the moment is what is tried here
        child.kill()
        self.told, _ = child.communicate(timeout=30)
        assert child.returncode == -9, "it ended before it was killed"


def begin(child: subprocess.Popen[bytes]) -> None:
    """Give a child the word, once it has imported everything."""
    assert child.stdin and child.stdout
    assert child.stdout.readline() == b"ready\n"
    child.stdin.write(b"\n")
    child.stdin.flush()


def finish(child: subprocess.Popen[bytes]) -> bytes:
    """Let a child begin and end as it should."""
    begin(child)
    return end(child)


def end(child: subprocess.Popen[bytes]) -> bytes:
    """Let a child that has begun end as it should; returns what it said."""
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert out.endswith(b"stopped\n")
    return out


def torment(
    place: LedgerPlace, seed: str, cycles: int, *, start: str = "open", writers: int = 0
) -> None:
    """Kill, check, go on; at the end stop as one should, and compare for good.

    ``writers`` other processes write all the time, and are never killed.
    """
    rng = random.Random(seed)
    killer = Killer(rng, 0.6 if writers else 0.3)
    with ExitStack() as stack:
        others = [
            spawn(place.orders(f"{seed}/writer-{i}", replicates=False))
            for i in range(writers)
        ]
        for other in others:
            stack.callback(other.kill)
            begin(other)
        child = spawn(place.orders(f"{seed}/0", start=start))
        for cycle in range(1, cycles + 1):
            stack.callback(child.kill)
            killer.run(child)
            child = spawn(place.orders(f"{seed}/{cycle}", start=start))
            place.promise(killer.told)
            place.check()
        stack.callback(child.kill)
        for other in others:
            other.communicate(timeout=30)
            assert other.returncode == 0
        place.shared = False
        place.promise(finish(child))
        place.check(complete=True)
    print(f"{seed}: {cycles} cycles, {place.promises} promises kept")
