"""A group whose process ends, is killed or forks: nothing is missed, little is opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.group import Tenants, parked, until

CHILD = Path(__file__).parents[2] / "support" / "group_child.py"


class Child:
    """A process with a group."""

    def __init__(self, tenants: Tenants) -> None:
        replica = str(tenants.backups / "{path}")
        self.process = subprocess.Popen(
            [sys.executable, CHILD, tenants.dir, replica],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, text: str) -> str:
        """Say a line, and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        return self._line()

    def kill(self) -> None:
        """End it at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def child(tenants: Tenants) -> Iterator[Child]:
    """One, which is killed at the latest at the end."""
    found = Child(tenants)
    try:
        yield found
    finally:
        found.kill()
        for stream in (found.process.stdin, found.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    """Eight databases."""
    tenants = Tenants(tmp_path)
    tenants.make(*(f"t{i}.db" for i in range(8)))
    return tenants


def test_what_was_parked_is_not_opened_again(tenants: Tenants) -> None:
    """After kill -9 only those are opened that changed while nobody was there."""
    with child(tenants) as first:
        first.ask("parked 8")
        assert first.ask("attached") == "8"
    tenants.write("t3.db", 5)
    with child(tenants) as second:
        second.ask("sync")
        second.ask("parked 8")
        assert second.ask("attached") == "1"
    assert tenants.restored("t3.db") == [0, 5]
    assert tenants.restored("t4.db") == [0]


def test_killed_in_the_middle_of_everything(tenants: Tenants) -> None:
    """At any moment of a burst; the next process brings all of it into the replicas."""
    expected = {f"t{i}.db": [0] for i in range(8)}
    for turn in range(3):
        with child(tenants) as process:
            for value in range(6):
                name = f"t{(turn + value) % 8}.db"
                tenants.write(name, value)
                expected[name].append(value)
            time.sleep(turn * 0.2)
            process.kill()
    with child(tenants) as process:
        process.ask("parked 8")
    assert {name: tenants.restored(name) for name in expected} == expected


def test_a_clean_end_leaves_nothing_to_open(tenants: Tenants) -> None:
    """Those that run are parked at the end as well."""
    with child(tenants) as first:
        first.ask("sync")
        tenants.write("t0.db", 1)
        first.ask("sync")
        first.ask("end")
        assert first.process.wait(60) == 0
    with child(tenants) as second:
        second.ask("parked 8")
        assert second.ask("attached") == "0"
    assert tenants.restored("t0.db") == [0, 1]


def test_another_replica_is_not_taken_for_the_old_one(tenants: Tenants) -> None:
    """What was noted says for which replicas: others are filled."""
    with tenants.group() as group:
        parked(group, 8)
    with tenants.group(replica=str(tenants.backups / "new/{path}")) as group:
        parked(group, 8)
    assert tenants.restored("t1.db", "new/t1.db") == [0]


def test_two_processes_share_a_folder(tenants: Tenants) -> None:
    """Each database has one of them; when one is killed the other goes on."""
    with child(tenants) as first, child(tenants) as second:
        for process in (first, second):
            process.ask("sync")
        tenants.write("t1.db", 1)
        assert first.ask("sync") == "done"
        assert tenants.restored("t1.db") == [0, 1]
        first.kill()
        tenants.write("t2.db", 2)
        assert second.ask("sync") == "done"
        assert tenants.restored("t2.db") == [0, 2]


def test_the_child_of_a_fork_has_no_group(tenants: Tenants) -> None:
    """It is stopped there, the parent's goes on, and the child may start it anew."""
    with tenants.group(park_after=60) as group:
        group.sync(timeout=90)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                status = group.status()
                if (status.state, status.databases) == ("stopped", 0):
                    code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        tenants.write("t5.db", 5)
        group.sync(timeout=90)
        until(lambda: tenants.restored("t5.db") == [0, 5], "the commit")


def test_the_end_of_the_interpreter_flushes(tenants: Tenants) -> None:
    """Without a call of stop, and with a group that nobody holds any more."""
    code = f"""
import sqlite3
from sqlitereplica import ReplicatorGroup
ReplicatorGroup({str(tenants.dir)!r}, {str(tenants.backups)!r}, sync_interval=60).start()
db = sqlite3.connect({str(tenants.path("t6.db"))!r})
db.execute("insert into t values(6)")
db.commit()
db.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert tenants.restored("t6.db") == [0, 6]


def test_hundreds(tmp_path: Path) -> None:
    """Three hundred in one process: all parked, one thread, few descriptors."""
    tenants = Tenants(tmp_path)
    names = [f"n{i:03}.db" for i in range(300)]
    tenants.make(names[0])
    for name in names[1:]:
        tenants.path(name).write_bytes(tenants.path(names[0]).read_bytes())
    with child(tenants) as process:
        process.ask("parked 300")
        pid = process.process.pid
        assert len(os.listdir(f"/proc/{pid}/fd")) < 160
        threads = [
            Path(f"/proc/{pid}/task/{task}/comm").read_text()
            for task in os.listdir(f"/proc/{pid}/task")
        ]
        assert len(threads) < 6
        before = int(process.ask("attached"))
        tenants.write("n123.db", 1)
        process.ask("sync")
        assert int(process.ask("attached")) == before + 1
    assert tenants.restored("n123.db") == [0, 1]
    assert tenants.restored("n299.db") == [0]
