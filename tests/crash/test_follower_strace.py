"""The kernel's view of a killed follower: SIGKILL at each system call, SQLite's as well."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.recording import Recording

import sqlitereplica
from sqlitereplica.store import LTXStore

pytestmark = [pytest.mark.crash, pytest.mark.torture]

CALLS = [
    "pwrite64",
    "write",
    "fsync",
    "ftruncate",
    "rename",
    "unlink",
    "openat",
    "fcntl",
    "close",
]


class Follower:
    """Runs ``support.follow_once`` on a fresh copy of what was followed so far."""

    def __init__(self, folder: Path) -> None:
        store = LTXStore.open(folder / "replica")
        self.recording = Recording(folder / "r.db", store, page_size=512)
        self.begun, self.copy = folder / "begun", folder / "copy"
        self._replica, self._trace = folder / "replica", folder / "trace"

    def run(self, *prefix: str, folder: Path | None = None) -> int:
        """Follow; the return code of the first program of the command."""
        package = str(Path(sqlitereplica.__path__[0]).parent)
        where = [str(folder or self.copy), str(self._replica)]
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "support.follow_once", *where],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        return done.returncode

    def rewind(self) -> None:
        """Go back to the beginning."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.begun, self.copy)

    def txid(self) -> int:
        """The state of the file, which is one."""
        with closing(sqlite3.connect(self.copy / "f.db")) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            content = db.serialize()[100:]
        images = self.recording.images
        return next(n for n, image in enumerate(images) if image[100:] == content)

    def calls(self, name: str) -> range:
        """Which calls of that kind the main thread makes from the file's opening on."""
        self.rewind()
        trace = ["strace", "-f", "-qq", "-o", str(self._trace)]
        assert self.run(*trace, "-e", f"trace=openat,{name}") == 0
        lines = self._trace.read_text().splitlines()
        main = [line for line in lines if line.split()[0] == lines[0].split()[0]]
        opened = next(at for at, line in enumerate(main) if str(self.copy) in line)
        made = [at for at, line in enumerate(main) if re.match(rf"\d+ +{name}\(", line)]
        return range(sum(at < opened for at in made) + 1, len(made) + 1)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", CALLS)
def test_kill_at_any_system_call_leaves_a_state(tmp_path: Path, name: str) -> None:
    """The old state or the new one, and the next follower gets to the end."""
    follower = Follower(tmp_path)
    recording = follower.recording
    recording.commit("create table t(v)", "insert into t values(randomblob(9000))")
    follower.begun.mkdir()
    assert follower.run(folder=follower.begun) == 0
    recording.commit("insert into t values(randomblob(2000))")
    recording.commit("delete from t where rowid = 1", "vacuum")
    recording.commit("insert into t values(randomblob(3000))")
    recording.close()
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}"]
    kills = 0
    for number in follower.calls(name):
        follower.rewind()
        inject = f"inject={name}:signal=KILL:when={number}"
        kills += follower.run(*trace, "-e", inject) != 0
        assert follower.txid() in (1, 4)
        assert follower.run() == 0
        assert follower.txid() == 4
    assert kills > 0
