"""T38: processes read a replica in place while it is written, compacted and thinned out.

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
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from support.soak import Told
from support.soak_child import SoakOrders, spawn_soak

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

    @property
    def is_done(self) -> bool:
        """Whether it has seen enough, or will see no more."""
        enough = self.done["R"] >= 12 and self.done["moves"] >= 5
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


def soak(
    folder: Path,
    count: int,
    is_over: Callable[[list[ReaderProcess]], bool],
    replica: str = "",
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
    )
    readers: list[ReaderProcess] = []
    with spawn_soak(orders) as child:
        try:
            told = Told(child, folder / "log")
            told.wait_for(lambda: told.pins)
            for i in range(count):
                readers.append(ReaderProcess(replica, told, f"{SEED}/{i}"))  # noqa: PERF401
            while not is_over(readers) and not told.errors:
                time.sleep(0.1)
            for reader in readers:
                reader.end()
            assert child.stdin is not None
            child.stdin.close()
            told.wait_for_end()
            assert child.wait(60) == 0
        finally:
            child.kill()
            for reader in readers:
                reader.kill()
    print([dict(reader.done) for reader in readers], told.counts)
    assert told.errors == []
    assert told.counts["compact"] > 0


def test_readers_see_states_that_there_were(tmp_path: Path) -> None:
    """Each transaction is one state of the database, whatever becomes of the files."""
    deadline = time.monotonic() + 90
    soak(
        tmp_path,
        2,
        lambda readers: (
            all(reader.is_done for reader in readers) or time.monotonic() > deadline
        ),
    )


@pytest.mark.s3
@pytest.mark.torture
def test_readers_of_a_replica_on_s3_see_states_that_there_were(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where files come by requests, from a real server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    deadline = time.monotonic() + 90
    soak(
        tmp_path,
        1,
        lambda readers: (
            all(reader.is_done for reader in readers) or time.monotonic() > deadline
        ),
        s3_server.url(s3_server.make_bucket(), "some/app"),
    )


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_readers_see_states_that_there_were_for_minutes(tmp_path: Path) -> None:
    """The same for as long as one likes."""
    end = time.monotonic() + SECONDS
    soak(
        tmp_path,
        3,
        lambda readers: time.monotonic() > end or any(r.errors for r in readers),
    )
