"""T05: forks, garbage collection and every way for a process to end.

Each runs in a process of its own: pytest's must not be forked, nor ended.
"""

from __future__ import annotations

import multiprocessing
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import await_true, restored
from support.programs import run

from sqlitereplica import Replicator


@pytest.fixture(autouse=True)
def database(path: Path) -> None:
    """A database that nobody has open."""
    make_database(path).close()


# -- fork --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["sys.exit(7)", "os._exit(7)"])
def test_child_of_a_fork_joins_in_and_harms_nobody(
    path: Path, replica: Path, end: str
) -> None:
    """It asks its parent, whose locks stay; its own connections have locks of their own."""
    done = run(
        path,
        f"""
db.close()
r.start()
r.sync()
before = settled_locks()
assert len(before) >= 3, before
pid = os.fork()
if pid == 0:
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    write()
    assert len(locks()) >= 2, locks()
    r.sync()
    print(r.status().state, r.status().pid == os.getppid())
    db.close()
    sys.stdout.flush()
    del r
    gc.collect()
    {end}
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
end = time.monotonic() + 30
while settled_locks() != before:
    assert time.monotonic() < end, (before, locks())
db = sqlite3.connect(path, isolation_level=None, timeout=30)
for _ in range(10):
    write()
    r.sync()
assert r.status().ok
r.stop()
db.close()
""",
    )
    assert done.stdout.strip() == "running True"
    assert done.stderr == ""
    assert restored(replica) == serialized(path)


def test_child_that_lives_on_replicates_by_itself(path: Path, replica: Path) -> None:
    """As a daemon does, which forks and whose parent ends: no call is needed."""
    run(
        path,
        """
db.close()
r.start()
r.sync()
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
end = time.monotonic() + 60
while r.status().pid != os.getpid():
    assert time.monotonic() < end, r.status()
    time.sleep(0.02)
db = sqlite3.connect(path, isolation_level=None, timeout=30)
write()
db.close()
sys.exit(0)
""",
        code=-9,
    )
    await_true(lambda: restored(replica) == serialized(path))


def test_child_with_inherited_connections_is_not_elected(
    path: Path, replica: Path
) -> None:
    """SQLite's locks do not work there. It asks its parent, and then nobody, until closed."""
    run(
        path,
        """
r.start()
write()
pid = os.fork()
if pid == 0:
    parent = os.getppid()
    r.sync()
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.01)
    try:
        r.sync(timeout=1)
    except TimeoutError as error:
        assert error.__cause__.kind == "forked", error
        assert "fork" in str(error) and r.status().state == "electing"
    else:
        os._exit(1)
    db.close()
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    write()
    r.sync()
    r.stop()
    open(path + ".done", "w").close()
    os._exit(0)
time.sleep(100)
""",
        code=-9,
    )
    await_true(path.with_name("app.db.done").exists)
    assert restored(replica) == serialized(path)


def test_child_may_replicate_a_database_of_its_own(path: Path, replica: Path) -> None:
    """What was inherited does not stand in the way of a new Replicator."""
    own = path.with_name("own.db")
    make_database(own).close()
    run(
        path,
        f"""
r.start()
r.sync()
pid = os.fork()
if pid == 0:
    with Replicator("{own}", [replica + "-own"]) as mine:
        own = sqlite3.connect("{own}", isolation_level=None)
        own.execute("insert into t(v) values('by the child')")
        mine.sync()
        own.close()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
write()
r.stop()
""",
    )
    assert restored(replica) == serialized(path)
    assert restored(replica.with_name("replica-own")) == serialized(own)


def test_fork_while_a_sync_and_a_write_are_under_way(path: Path, replica: Path) -> None:
    """Whatever locks other threads hold at that moment, neither process hangs."""
    run(
        path,
        """
r.start()
going = True
def work():
    own = sqlite3.connect(path, isolation_level=None, timeout=30)
    while going:
        own.execute("insert into t(v) values(randomblob(500))")
        r.sync()
    own.close()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for i in range(20):
    pid = os.fork()
    if pid == 0:
        faults = kinds(r.start, r.sync)
        r.stop()
        os._exit(0 if faults == ["no error"] * 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
going = False
for thread in threads:
    thread.join()
r.stop()
""",
    )
    assert restored(replica) == serialized(path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_beside_a_replicator(
    path: Path, replica: Path, method: str
) -> None:
    """Workers come and go, write, and wait for what they wrote; all of it is replicated."""
    assert method in multiprocessing.get_all_start_methods()
    run(
        path,
        f"""
write()
db.close()
r.start()
context = multiprocessing.get_context("{method}")
workers = [context.Process(target=insert, args=(i,)) for i in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
    assert worker.exitcode == 0
db = sqlite3.connect(path, isolation_level=None, timeout=30)
write()
r.sync()
r.stop()
""",
    )
    assert restored(replica) == serialized(path)
    with sqlite3.connect(path) as db:
        (count,) = db.execute("select count(*) from t").fetchone()
    db.close()
    assert count == 5


# -- the end of the process --------------------------------------------------------------


# A shell lets what it runs in the background ignore this signal, and that is inherited.
INTERRUPT = """
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.raise_signal(signal.SIGINT)
"""

ENDINGS = {
    "the last line": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise RuntimeError('mine')", 1),
    "an interrupt": (INTERRUPT, -2),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_interpreter_exit_flushes(path: Path, replica: Path, ending: str) -> None:
    """Without ``stop``, what was committed is durable when the process is gone."""
    line, code = ENDINGS[ending]
    done = run(path, f"r.start()\nwrite()\n{line}", code=code)
    assert restored(replica) == serialized(path)
    assert ("RuntimeError: mine" in done.stderr) == (ending == "an exception")


def test_replicator_that_cannot_be_stopped_does_not_keep_others_from_it(
    path: Path, replica: Path
) -> None:
    """At the exit each is flushed, and what is wrong with one is said."""
    done = run(
        path,
        """
import logging
logging.basicConfig(level=logging.ERROR)
class Odd(Replicator):
    def stop(self, timeout=None):
        raise ZeroDivisionError("odd")
odd = [Odd(f"{path}-{i}", f"{replica}-{i}") for i in range(5)]
for one in (*odd[:3], r, *odd[3:]):
    one.start()
write()
""",
    )
    assert done.stderr.count("exit-flush-failed") == 5
    assert restored(replica) == serialized(path)


def test_dropped_replicator_goes_on_until_exit(path: Path, replica: Path) -> None:
    """``del`` does not stop it, nor does the garbage collector; the end flushes."""
    run(
        path,
        """
r.start()
del r
gc.collect()
for _ in range(3):
    write()
    gc.collect()
assert "sqlitereplica" in [t.name for t in threading.enumerate()]
""",
    )
    assert restored(replica) == serialized(path)


def test_never_started_replicator_leaves_nothing(path: Path, replica: Path) -> None:
    """Making and dropping one touches neither the database nor the disk."""
    run(path, "write()\ndel r\ngc.collect()")
    assert not replica.exists()
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("how", ["refuses", "never answers"])
def test_exit_while_the_store_is_unreachable_ends_in_time(path: Path, how: str) -> None:
    """The last flush waits no longer than ``stop_timeout``, and says that it failed."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if how == "never answers":
            server.listen()
        done = run(
            path,
            f"""
from sqlitereplica import Replica
bucket = Replica("s3://bucket/app", storage_options={{
    "key": "k", "secret": "s",
    "client_kwargs": {{"endpoint_url": "http://127.0.0.1:{server.getsockname()[1]}"}},
}})
import logging
logging.basicConfig(level=logging.ERROR)
r = Replicator(path, [bucket], stop_timeout=1.5)
r.start()
write()
import atexit
atexit.register(lambda: print(time.monotonic() - began))
began = time.monotonic()
""",
        )
    assert float(done.stdout) < 30
    assert "exit-flush-failed" in done.stderr


def test_exit_with_the_body_of_a_with_statement_unfinished(
    path: Path, replica: Path
) -> None:
    """``sys.exit`` inside ``with``, from the main thread, stops it on the way out."""
    run(path, "with r:\n    write()\n    sys.exit(4)", code=4)
    assert restored(replica) == serialized(path)


def test_threads_that_write_until_the_very_end(path: Path, replica: Path) -> None:
    """What a non-daemon thread committed before the main one ended is in the replica."""
    run(
        path,
        """
r.start()
def work():
    own = sqlite3.connect(path, isolation_level=None, timeout=30)
    for _ in range(20):
        own.execute("insert into t(v) values(1)")
    r.sync()
    own.close()
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    )
    assert restored(replica) == serialized(path)


def test_process_killed_by_sigterm_loses_nothing_but_time(
    path: Path, replica: Path
) -> None:
    """No handler is installed: the default ends it at once, the next start ships it."""
    run(path, "r.start()\nwrite()\nos.kill(os.getpid(), signal.SIGTERM)", code=-15)
    begin = time.monotonic()
    with Replicator(path, replica) as replicator:
        replicator.sync()
    assert time.monotonic() - begin < 60
    assert restored(replica) == serialized(path)
