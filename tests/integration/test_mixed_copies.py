"""Two copies of SQLite on one file in one process are refused, before harm is done."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from support.capturing import digest, make_database, serialized
from support.lifetime import await_true

from sqlitereplica import MixedSQLiteCopiesError, Replicator, restore

pytestmark = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the guard needs Linux's /proc"
)


@pytest.fixture
def app(path: Path) -> Iterator[sqlite3.Connection]:
    """The application, on the stdlib's SQLite, with something in its WAL."""
    connection = make_database(path)
    connection.execute("insert into t(v) values('in the WAL')")
    yield connection
    connection.close()


def locks(path: Path) -> set[str]:
    """POSIX locks of this process on the database and its wal-index."""
    inodes = {str(os.stat(f"{path}{s}").st_ino) for s in ("", "-shm")}
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.replace("->", "").split()
        pid, where = int(fields[4]), fields[5].rsplit(":", 1)[1]
        if pid == os.getpid() and where in inodes:
            found.add(" ".join(fields[1:4] + fields[5:]))
    return found


def settled_locks(path: Path) -> set[str]:
    """The locks once no reader hands over to the next any more."""
    found, since = locks(path), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.02)
        if locks(path) != found:
            found, since = locks(path), time.monotonic()
    return found


def can_write(path: Path) -> bool:
    """True when another process gets the write lock now."""
    code = "import sqlite3,sys;c=sqlite3.connect(sys.argv[1],timeout=0);"
    code += "c.execute('begin immediate')"
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_apsw_replicator_beside_stdlib_application_is_refused(
    app: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """T01: a typed refusal; WAL and locks of the application are as they were."""
    before = locks(path)
    replicator = Replicator(path, [tmp_path / "r"], connect=apsw.Connection)
    with pytest.raises(MixedSQLiteCopiesError) as caught:
        replicator.start()
    assert "connect=sqlite3.connect" in str(caught.value)
    assert before
    assert locks(path) == before
    assert Path(f"{path}-wal").stat().st_size > 0
    assert app.execute("select count(*) from t").fetchone() == (1,)


def test_stdlib_replicator_beside_apsw_application_is_refused(
    path: Path, tmp_path: Path
) -> None:
    """T01 the other way round: the default factory, and an application on apsw."""
    connection = apsw.Connection(str(path))
    connection.execute("pragma journal_mode=wal").fetchall()
    connection.execute("create table t(v)").fetchall()
    before = locks(path)
    with pytest.raises(MixedSQLiteCopiesError) as caught:
        Replicator(path, [tmp_path / "r"]).start()
    assert caught.value.other == "apsw"
    assert locks(path) == before
    connection.close()


def test_stdlib_connect_is_stopped_while_an_apsw_replicator_runs(
    path: Path, tmp_path: Path
) -> None:
    """The audit hook refuses ``sqlite3.connect`` before it opens; replication goes on."""
    connection = apsw.Connection(str(path))
    connection.execute("pragma journal_mode=wal").fetchall()
    connection.execute("create table t(v)").fetchall()
    with Replicator(path, [tmp_path / "r"], connect=apsw.Connection) as replicator:
        replicator.sync()
        before = settled_locks(path)
        for target in (str(path), path, os.fsencode(path), f"file:{path}?mode=ro"):
            with pytest.raises(MixedSQLiteCopiesError):
                sqlite3.connect(target, uri=True)
        sqlite3.connect(":memory:").close()
        sqlite3.connect(tmp_path / "other.db").close()
        await_true(lambda: locks(path) == before)
        connection.execute("insert into t values(1)")
        replicator.sync()
        assert replicator.status().ok
    connection.close()


def test_apsw_connection_while_a_stdlib_replicator_runs_is_refused_loudly(
    app: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """apsw tells only after opening: it raises there, and ``sync`` raises from then on."""
    replicator = Replicator(path, [tmp_path / "r"], stop_timeout=5)
    replicator.start()
    replicator.sync()
    with pytest.raises(MixedSQLiteCopiesError):
        apsw.Connection(str(path))
    await_true(lambda: replicator.status().state == "failed")
    with pytest.raises(MixedSQLiteCopiesError):
        replicator.sync(timeout=20)
    assert replicator.status().state == "failed"
    assert "apsw" in (replicator.status().error or "")
    with pytest.raises(MixedSQLiteCopiesError):
        replicator.stop()
    assert app.execute("select count(*) from t").fetchone() == (1,)


def test_apsw_connection_busy_in_another_thread_is_no_obstacle(
    path: Path, tmp_path: Path
) -> None:
    """apsw refuses even to name the file of a connection that another thread uses."""
    connection = apsw.Connection(str(path))
    connection.execute("pragma journal_mode=wal").fetchall()
    connection.execute("create table t(v)").fetchall()
    done = threading.Event()

    def insert() -> None:
        query = (
            "with recursive n(i) as (select 1 union all select i+1 from n limit 200000)"
        )
        while not done.is_set():
            connection.execute(f"{query} select sum(i) from n").fetchall()

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        for _ in range(20):
            replicator = Replicator(path, [tmp_path / "r"], connect=apsw.Connection)
            with replicator:
                replicator.sync()
    finally:
        done.set()
        writer.join()
        connection.close()


def test_guard_is_there_as_soon_as_start_returned(
    app: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """Not only once the background thread has attached."""
    replicator = Replicator(path, [tmp_path / "r"], stop_timeout=5)
    replicator.start()
    with pytest.raises(MixedSQLiteCopiesError):
        apsw.Connection(str(path))
    with pytest.raises(MixedSQLiteCopiesError):
        replicator.stop()


def test_factory_of_unknown_kind_is_told_by_its_connections(
    app: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """A lambda is asked for a ``:memory:`` database to learn which copy it uses."""
    wrong = Replicator(
        path,
        [tmp_path / "r"],
        connect=lambda p: apsw.Connection(p, statementcachesize=9),
    )
    with pytest.raises(MixedSQLiteCopiesError):
        wrong.start()
    with Replicator(
        path, [tmp_path / "r"], connect=lambda p: sqlite3.connect(p, timeout=3)
    ) as replicator:
        replicator.sync()


def test_other_copies_of_sqlite_belong_in_other_processes(
    app: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """T02: apsw in a process of its own replicates an application on the stdlib."""
    code = """
import sys, apsw
from sqlitereplica import Replicator
with Replicator(sys.argv[1], [sys.argv[2]], connect=apsw.Connection) as r:
    print("ready", flush=True)
    sys.stdin.readline()
"""
    replica = tmp_path / "r"
    command = [sys.executable, "-c", code, str(path), str(replica)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as helper:
        assert helper.stdout is not None
        assert helper.stdin is not None
        assert helper.stdout.readline() == "ready\n"
        for i in range(500):
            app.execute("insert into t(v) values(?)", (f"{i}" * 50,))
        helper.stdin.write("\n")
        helper.stdin.close()
        assert helper.wait(60) == 0
    restored = tmp_path / "b.db"
    restore(replica, restored)
    assert digest(restored.read_bytes()) == digest(serialized(path))


def test_locks_of_the_application_survive_every_operation(
    app: sqlite3.Connection, path: Path, tmp_path: Path
) -> None:
    """T04: a write lock of the application holds through start, sync, snapshot, stop."""
    replicator = Replicator(path, [tmp_path / "r"])
    for _ in range(2):
        replicator.start()
        replicator.sync()
        app.execute("begin immediate")
        app.execute("insert into t(v) values(1)")
        before = locks(path)
        assert before
        assert not can_write(path)
        replicator.sync()
        assert not can_write(path)
        app.execute("commit")
        replicator.snapshot()
        app.execute("begin immediate")
        assert not can_write(path)
        replicator.stop()
        assert not can_write(path)
        app.execute("rollback")
        assert can_write(path)


AUDITED = """
import os, sqlite3, sys
path = sys.argv[1]
opened = []
def hook(event, args):
    if event != "open" or not isinstance(args[0], str):
        pass
    elif os.path.realpath(args[0]) in (path, path + "-shm"):
        opened.append(args[0])
    if event.startswith("mmap"):
        raise SystemExit("mmap")
sys.addaudithook(hook)
from sqlitereplica import Replicator
app = sqlite3.connect(path, isolation_level=None)
app.execute("insert into t(v) values(1)")
for _ in range(3):
    with Replicator(path, [sys.argv[2]]) as r:
        app.execute("insert into t(v) values(1)")
        r.sync()
        r.snapshot()
assert sorted(opened) == [path, path + "-shm"], opened
os._exit(0)  # without the interpreter's own clean-up, which closes everything
"""


@pytest.mark.parametrize("traced", [False, True])
def test_database_and_shm_are_opened_once_and_never_closed(
    app: sqlite3.Connection, path: Path, tmp_path: Path, traced: bool
) -> None:
    """T03: by Python's audit events, and by the system calls under strace."""
    command = [sys.executable, "-c", AUDITED, str(path), str(tmp_path / "r")]
    log = tmp_path / "strace"
    if traced:
        trace = "trace=open,openat,close,dup,dup2,dup3"
        # A file for each thread, so that no call is cut in two; paths of descriptors.
        command = ["strace", "-ff", "-y", "-e", trace, "-o", str(log), *command]
        if subprocess.run(["which", "strace"], check=False).returncode:
            pytest.skip("strace is not installed")
    subprocess.run(command, check=True, timeout=100)
    if traced:
        logs = [
            t for f in tmp_path.glob("strace.*") for t in f.read_text().splitlines()
        ]
        assert _closed_ours(logs, str(path)) == []


def _closed_ours(logs: list[str], path: str) -> list[str]:
    """Closings of descriptors that were opened read-only on the database or ``-shm``."""
    files = {path, f"{path}-shm"}
    opened = re.compile(r'openat\(.*"([^"]+)", O_RDONLY.* = (\d+)')
    closed = re.compile(r"close\((\d+)<([^>]+)>")
    ours = set()
    for line in logs:
        if (found := opened.search(line)) and found[1] in files:
            ours.add(found[2])
    assert len(ours) == 2
    closings = [(line, closed.search(line)) for line in logs]
    return [line for line, c in closings if c and c[1] in ours and c[2] in files]
