"""T36 and T38: processes read while a replica is written, compacted and thinned out.

They read the replica in place, a file that another process follows it into, and a mirror.

``SEED`` replays the decisions of a run, ``SOAK_SECONDS`` is the length of the torture.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from support.ledger import connect, digest_of, image_of
from support.ledger_reader import Reader as LedgerReader
from support.ledger_reader import lacks
from support.soak import Told
from support.soak_child import WINDOW, SoakOrders, spawn_soak
from support.soak_follower import FollowerProcess

if TYPE_CHECKING:
    from support.servers import S3Server

pytestmark = pytest.mark.crash

SEED = os.environ.get("SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
TESTS = Path(__file__).parents[1]


class ReaderProcess:
    """A reader; every state that it saw is compared with the log."""

    def __init__(self, replica: str, told: Told, seed: str) -> None:
        self.done = Counter[str]()
        self._told = told
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.soak_reader", replica, seed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
        )
        self.errors: list[BaseException] = []
        self._thread = Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, *words = line.split()
            if kind == "M":
                self.done["moves"] = int(words[0])
                continue
            self.done[kind] += 1
            try:
                if kind == "R":
                    self._told.check(int(words[0]), words[1])
            except AssertionError as error:
                self.errors.append(error)

    def is_done(self, moves: int) -> bool:
        """Whether it has seen enough, or will see no more."""
        enough = self.done["R"] >= 2 * moves and self.done["moves"] >= moves
        return enough or bool(self.errors) or self._process.poll() is not None

    def kill(self) -> None:
        """End it at once, and what listens to it."""
        self._process.kill()
        self._thread.join(60)
        with self._process:
            pass

    def end(self) -> None:
        """End it; everything that it saw was right."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(60)
        self.kill()
        assert self.errors == []
        assert code == 0
        assert self.done["R"] and self.done["moves"], self.done


class Copies:
    """The files that are kept beside a soak, and who reads them."""

    FOLLOWED, MIRRORED = ("django", "node", "sqlite3"), ("shell", "apsw")

    def __init__(self, folder: Path, replica: str) -> None:
        self._files = {"followed": folder / "f.db", "mirrored": folder / "m.db"}
        self.follower = FollowerProcess(replica, self._files["followed"])
        self.readers: list[LedgerReader] = []
        for name, kinds in zip(
            self._files.values(), (self.FOLLOWED, self.MIRRORED), strict=True
        ):
            for kind in kinds:
                if not lacks(kind):
                    self.readers.append(LedgerReader(name, kind))

    def is_done(self, moves: int) -> bool:
        """Whether all have seen enough, or one will see no more."""
        done = [reader.moves >= 2 * moves for reader in self.readers]
        return all(done) or not all(reader.is_running for reader in self.readers)

    def end(self, source: Path) -> None:
        """Everything that was read was right; the files are what the source is now."""
        for reader in self.readers:
            states, last = reader.finish()
            assert last > 0
            print(reader.kind, states, reader.moves)
        self.follower.finish()
        for path in self._files.values():
            assert _digest(path) == _digest(source)

    def kill(self) -> None:
        """End all processes."""
        for reader in self.readers:
            reader.kill()
        self.follower.kill()


def _digest(path: Path) -> str:
    with closing(connect(path)) as db:
        db.execute("begin")
        return digest_of(image_of(db))


def soak(
    folder: Path,
    count: int,
    is_over: Callable[[list[ReaderProcess], Copies], bool],
    replica: str = "",
    *,
    window: float = WINDOW,
) -> None:
    """Write and read until it is over; then everything must have been right."""
    print(f"SEED={SEED}")
    replica = replica or str(folder / "replica")
    orders = SoakOrders(
        database=str(folder / "app.db"),
        replica=replica,
        log=str(folder / "log"),
        seed=SEED,
        exact=False,
        mirror=str(folder / "m.db"),
        window=window,
    )
    with spawn_soak(orders) as child, ExitStack() as stack:
        stack.callback(child.kill)
        told = Told(child, folder / "log")
        told.wait_for(lambda: told.pins)
        copies = Copies(folder, replica)
        stack.callback(copies.kill)
        readers: list[ReaderProcess] = []
        for i in range(count):
            readers.append(ReaderProcess(replica, told, f"{SEED}/{i}"))
            stack.callback(readers[-1].kill)
        while not is_over(readers, copies) and not told.errors:
            time.sleep(0.1)
        for reader in readers:
            reader.end()
        assert child.stdin is not None
        child.stdin.close()
        told.wait_for_end()
        assert child.wait(60) == 0
        copies.end(folder / "app.db")
    print([dict(reader.done) for reader in readers], told.counts)
    assert told.errors == []
    assert told.counts["compact"] > 0


def all_done(
    seconds: float, moves: int
) -> Callable[[list[ReaderProcess], Copies], bool]:
    """When every reader has seen enough; or after so long, to find out who has not."""
    deadline = time.monotonic() + seconds

    def is_over(readers: list[ReaderProcess], copies: Copies) -> bool:
        done = copies.is_done(moves) and all(r.is_done(moves) for r in readers)
        return done or time.monotonic() > deadline

    return is_over


def test_readers_see_states_that_there_were(tmp_path: Path) -> None:
    """Each transaction is one state of the database, whatever becomes of the files."""
    soak(tmp_path, 2, all_done(120, 5))


@pytest.mark.s3
def test_readers_of_a_replica_on_s3_see_states_that_there_were(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where files come by requests, from a real server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    url = s3_server.url(s3_server.make_bucket(), "some/app")
    # To read all of a state takes its time by requests, on a busy machine above all.
    soak(tmp_path, 1, all_done(120, 2), url, window=10.0)


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_readers_see_states_that_there_were_for_minutes(tmp_path: Path) -> None:
    """The same for as long as one likes."""
    soak(tmp_path, 3, for_minutes())


@pytest.mark.s3
@pytest.mark.torture
@pytest.mark.timeout(0)
def test_readers_of_a_replica_on_s3_see_states_that_there_were_for_minutes(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real server, too."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    url = s3_server.url(s3_server.make_bucket(), "some/app")
    soak(tmp_path, 2, for_minutes(), url, window=3.0)


def for_minutes() -> Callable[[list[ReaderProcess], Copies], bool]:
    """When the time is over, or something was wrong."""
    end = time.monotonic() + SECONDS

    def is_over(readers: list[ReaderProcess], copies: Copies) -> bool:
        wrong = any(reader.errors for reader in readers)
        died = not all(reader.is_running for reader in copies.readers)
        return wrong or died or time.monotonic() > end

    return is_over
