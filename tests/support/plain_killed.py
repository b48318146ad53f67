"""Kills whoever changes a followed file, before each call that writes, with readers open.

Run as a program with a folder and a number of readers. For every step from one state to the
next and every N a forked child makes the step and is killed by SIGKILL just before its Nth
call that writes; the file must then be the old state or the new one, and what was noted of
it the same. The readers are processes of their own, with SQLite alone, that read all the
time. Prints what was seen as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

__all__ = ["STEPS", "die_at", "forked"]

STEPS = ("pwrite", "fsync", "ftruncate", "rename", "unlink", "open", "write")
"""Calls of the module ``os`` by which files are changed, and the opening of files."""

READER = """
import sqlite3, sys, time
path = sys.argv[1]
db = sqlite3.connect(path, isolation_level=None, timeout=60)
reads, seen = 0, set()
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    db.execute("begin")
    low, high, rows = db.execute("select min(g), max(g), count(*) from t").fetchone()
    (indexed,) = db.execute(
        "select count(*) from t indexed by i where g = ?", (low,)
    ).fetchone()
    (expected,) = db.execute("select n from expected").fetchone()
    assert low == high and rows == indexed == expected, (low, high, rows, indexed)
    if reads % 20 == 0:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.execute("commit")
    seen.add(low)
    reads += 1
    time.sleep(0.004)
print(reads, len(seen), flush=True)
"""


def die_at(step: int) -> None:
    """Have this process killed before or after a call that writes."""
    count = itertools.count(1)

    def tick() -> None:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            tick()
            result = call(*arguments, **options)
            tick()
            return result

        return run

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name)))


def _images(path: Path) -> list[bytes]:
    """States of one table: changed in place, grown, emptied, grown again, vacuumed."""
    rng = random.Random("images")
    images = []
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma page_size=1024")
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(id integer primary key, g, v)")
        db.execute("create index i on t(g)")
        db.execute("create table expected(n)")
        for generation, rows in enumerate((60, 60, 200, 5, 90)):
            db.execute("begin")
            db.execute("delete from t where id > ?", (rows,))
            for number in range(1, rows + 1):
                value = rng.randbytes(100)
                db.execute(
                    "replace into t values(?, ?, ?)", (number, generation, value)
                )
            db.execute("delete from expected")
            db.execute("insert into expected values(?)", (rows,))
            db.execute("commit")
            if rows == 5:
                db.execute("vacuum")
            images.append(db.serialize())
    return images


def forked(action: Callable[[], None]) -> bool:
    """Do something in a forked process; True if that was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def _persist(action: Callable[[], object]) -> None:
    """Do it again as long as readers are in the way."""
    from sqlitereplica.sqlite import SourceBusyError

    while True:
        try:
            action()
        except SourceBusyError:
            continue
        return


def _step(path: Path, image: Any, step: int) -> bool:
    """Make one step in a process that is killed at its Nth call; True if it was."""
    from support.plainfiles import open_file

    def make() -> None:
        with closing(open_file(path)) as file:
            die_at(step)
            _persist(lambda: file.apply(image, image.goal))

    return forked(make)


def _look(path: Path) -> tuple[int, bytes]:
    """What is noted of the file, and its content, after SQLite has put it right."""
    from support.plainfiles import open_file

    back, there = os.pipe()

    def look() -> None:
        with closing(open_file(path)) as file:
            assert file.held is not None
            assert file.is_as_held()
            os.write(there, file.held.txid.to_bytes(8, "big"))

    assert not forked(look)
    txid = int.from_bytes(os.read(back, 8), "big")
    os.close(back)
    os.close(there)
    return txid, _read(path)


def _read(path: Path) -> bytes:
    """The content of a database, which is whole."""
    with closing(sqlite3.connect(path, timeout=60)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        return db.serialize()


def _follow(folder: Path) -> int:
    """Kill a follower at each call as it makes its file, goes on, and makes it anew."""
    from support.recording import Recording

    from sqlitereplica.store import LTXStore

    recorded = Recording(folder / "r.db", LTXStore.open(folder / "all"), page_size=512)
    recorded.commit("create table t(v)", "insert into t values(randomblob(3000))")
    recorded.commit("insert into t values(randomblob(9000))")
    recorded.commit("delete from t where rowid = 1")
    recorded.commit("update t set v = randomblob(100)", "vacuum")
    recorded.close()
    path, replica, kills = folder / "follower" / "f.db", folder / "replica", 0
    path.parent.mkdir()
    replicas = [[(9, 1, 1)], [(0, 2, 2), (0, 3, 3)], [(9, 1, 4)]]
    for files in replicas:
        shutil.rmtree(replica, ignore_errors=True)
        recorded.store = LTXStore.open(replica)
        for file in files:
            recorded.publish(*file)
        image = recorded.images[files[-1][2]]
        for step in itertools.count(1):
            copy = folder / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(path.parent, copy)
            if not _follows(copy / path.name, replica, step):
                break
            kills += 1
            assert not _follows(copy / path.name, replica, 0)
            assert _read(copy / path.name)[100:] == image[100:]
        shutil.rmtree(path.parent)
        copy.rename(path.parent)
        assert _read(path)[100:] == image[100:]
    return kills


def _follows(path: Path, replica: Path, step: int) -> bool:
    """Follow to the end, or be killed."""
    from sqlitereplica.restore.following import Following
    from sqlitereplica.store import LTXStore

    def follow() -> None:
        following = Following(
            str(path),
            lambda: LTXStore.open(replica),
            sqlite3.connect,
            copy="sqlite3",
            notes=path.with_name("held"),
        )
        die_at(step)
        while following.step():
            continue
        following.close()

    return forked(follow)


def _main(folder: Path, readers: int) -> None:
    from support.plainfiles import Image, begin

    images = [Image(d, n) for n, d in enumerate(_images(folder / "source.db"), 1)]
    path = folder / "f.db"
    begin(path, images[0])
    processes = [_reader(path) for _ in range(readers)]
    seen = {"kills": 0, "old": 0, "new": 0}
    for old, new in itertools.pairwise([*images, images[0]]):
        for step in itertools.count(1):
            killed = _step(path, new, step)
            txid, content = _look(path)
            assert txid in (old.goal.txid, new.goal.txid), txid
            there = new if txid == new.goal.txid else old
            assert content[100:] == there.data[100:], "the file is what is noted of it"
            if not killed:
                assert there is new
                break
            seen["kills"] += 1
            seen["new" if there is new else "old"] += 1
            _rewind(path, old)
    told = [process.communicate(b"\n", timeout=60)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    seen["follow"] = _follow(folder)
    seen["reads"] = min(int(line.split()[0]) for line in told)
    seen["states"] = min(int(line.split()[1]) for line in told)
    print(json.dumps(seen))


def _rewind(path: Path, old: Any) -> None:
    """Go back to the old state, as one more step."""
    assert not _step(path, old, 10**9)


def _reader(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
