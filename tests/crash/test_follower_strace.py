"""The kernel's view of a killed follower: SIGKILL at each system call, SQLite's as well.

Readers are at work all the time, processes of their own that judge every state they see. A
few calls are tried in each run of the tests, all of them by torture. ``SEED`` replays which.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.ledger import StateLog, Writer
from support.ledger_reader import KINDS, Reader, lacks
from support.lifetime import await_true
from support.recording import Recording

import sqlitereplica
from sqlitereplica.store import LTXStore

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="strace is not installed"
    ),
]

SEED = os.environ.get("SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"
WRITES = ["pwrite64", "write", "fsync", "ftruncate", "rename", "unlink"]
OTHERS = ["openat", "fcntl", "close"]
SHAPES = ["grow", "shrink"]


@dataclass(frozen=True)
class Point:
    """The Nth call of its kind, while a change of that shape is followed."""

    shape: str
    call: str
    number: int


class Followed:
    """A ledger that changes, and a follower of it that is run once for each change."""

    def __init__(self, folder: Path) -> None:
        store = LTXStore.open(folder / "replica")
        self.recording = Recording(folder / "r.db", store, page_size=512)
        log = StateLog(folder / "log", exact=False)
        self._writer = Writer(self.recording.database, log, random.Random(SEED))
        self._writer.set_up()
        self.recording.commit()
        self._copy, self._trace = folder / "copy", folder / "trace"
        self._copy.mkdir()
        self.path = self._copy / "f.db"
        assert self.follow() == 0

    def change(self, shape: str) -> None:
        """One transaction more; one that shrinks the database first lets it grow."""
        self._writer.blob()
        self._writer.burst()
        if shape == "shrink":
            self.recording.commit()
            assert self.follow() == 0
            self.recording.database.execute("delete from other")
            self._writer.vacuum()
        self.recording.commit()

    def follow(self, *prefix: str) -> int:
        """Follow to the newest state; the return code of the first program."""
        package = str(Path(sqlitereplica.__path__[0]).parent)
        where = [str(self._copy), str(self._copy.with_name("replica"))]
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "support.follow_once", *where],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        return done.returncode

    def killed_at(self, point: Point) -> bool:
        """Follow and be killed there; False if it does not come to that call."""
        inject = f"inject={point.call}:signal=KILL:when={point.number}"
        trace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={point.call}",
        ]
        return self.follow(*trace, "-e", inject) != 0

    def txid(self) -> int:
        """The state of the file, which is one of the last two."""
        with closing(sqlite3.connect(self.path, timeout=60)) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            content = db.serialize()[100:]
        images, newest = self.recording.images, self.recording.txid
        (found,) = {n for n in (newest - 1, newest) if images[n][100:] == content}
        return found

    def points(self, shape: str, calls: list[str]) -> Iterator[Point]:
        """All calls that the main thread makes from the opening of the file on."""
        self.change(shape)
        names = ",".join({"openat", *calls})
        trace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            str(self._trace),
            "-e",
            f"trace={names}",
        ]
        assert self.follow(*trace) == 0
        lines = self._trace.read_text().splitlines()
        main = [line for line in lines if line.split()[0] == lines[0].split()[0]]
        opened = next(at for at, line in enumerate(main) if str(self._copy) in line)
        for call in calls:
            made = [
                at for at, line in enumerate(main) if re.match(rf"\d+ +{call}\(", line)
            ]
            for number, at in enumerate(made, 1):
                if at >= opened:
                    yield Point(shape, call, number)


def kill_at(
    folder: Path, calls: list[str], readers: list[str], most: int | None
) -> None:
    """Kill at all of the calls, or at some; nobody ever sees anything but states."""
    print(f"SEED={SEED}")
    followed, kills = Followed(folder), 0
    points = [point for shape in SHAPES for point in followed.points(shape, calls)]
    if most is not None:
        points = random.Random(SEED).sample(points, most)
    with ExitStack() as stack:
        stack.callback(followed.recording.close)
        open_readers = [Reader(followed.path, kind) for kind in readers]
        for reader in open_readers:
            stack.callback(reader.kill)
        for point in points:
            followed.change(point.shape)
            kills += followed.killed_at(point)
            followed.txid()
            judged(open_readers)
            assert followed.follow() == 0, point
            assert followed.txid() == followed.recording.txid, point
        judged(open_readers)
        last = {reader.finish()[1] for reader in open_readers}
    print(f"{kills} kills at {len(points)} calls")
    assert len(last) == 1
    # The number of a call may not be reached when a change is smaller than the traced one.
    assert kills > (0 if most else len(points) // 2)


def judged(readers: list[Reader]) -> None:
    """Return when every reader has begun and ended a transaction since."""
    seen = [reader.states for reader in readers]

    def is_done() -> bool:
        assert all(reader.is_running for reader in readers)
        return all(r.states > n + 1 for r, n in zip(readers, seen, strict=True))

    await_true(is_done)


def test_kill_at_some_calls_that_write_leaves_a_state(tmp_path: Path) -> None:
    """The old state or the new one, for every reader; the next follower gets to the end."""
    readers = [kind for kind in ("sqlite3", "node") if not lacks(kind)]
    kill_at(tmp_path, WRITES, readers, 3)


@pytest.mark.torture
def test_kill_at_any_system_call_leaves_a_state(tmp_path: Path) -> None:
    """At each of them, with readers of every kind."""
    kinds = [kind for kind in KINDS if not lacks(kind)]
    kill_at(tmp_path, WRITES + OTHERS, kinds, None)
