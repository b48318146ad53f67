"""Ends of processes and forks that are out of the ordinary; see ``test_fork_and_exit.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import restored
from support.programs import run


@pytest.fixture(autouse=True)
def database(path: Path) -> None:
    """A database that nobody has open."""
    make_database(path).close()


def test_fork_when_the_database_cannot_be_looked_at(path: Path, replica: Path) -> None:
    """Rights were dropped, say: what is inherited stays open, and the child may go on."""
    done = run(
        path,
        """
r.start()
write()
r.sync()
from sqlitereplica.sqlite import forking
look = forking.file_id
def refuse(path):
    raise PermissionError(13, "told to", path)
forking.file_id = refuse
pid = os.fork()
if pid == 0:
    def call():
        forking.calling.enter()
        forking.calling.leave()
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    os._exit(1 if thread.is_alive() else 0)
forking.file_id = look
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
write()
""",
    )
    assert done.stdout.split() == ["0"]
    assert restored(replica) == serialized(path)


LATE = {
    "a thread": (
        "thread = threading.Thread(target=work)\nthread.start()",
        "not threading.main_thread().is_alive()",
    ),
    "a pool": (
        (
            "from concurrent.futures import ThreadPoolExecutor, thread\n"
            "pool = ThreadPoolExecutor()\npool.submit(work)"
        ),
        "thread._shutdown",
    ),
}


@pytest.mark.parametrize("who", LATE)
def test_threads_that_outlive_the_main_one_are_replicated(
    path: Path, replica: Path, who: str
) -> None:
    """The end of the main thread is not that of the application, nor of replication."""
    start, is_over = LATE[who]
    done = run(
        path,
        f"""
r.start()
def work():
    own = sqlite3.connect(path, isolation_level=None, timeout=30)
    while not ({is_over}):
        time.sleep(0.01)
    for _ in range(20):
        own.execute("insert into t(v) values(1)")
    r.sync()
    print(r.status().state)
    own.execute("insert into t(v) values('last')")
    own.close()
{start}
""",
    )
    assert done.stdout.split() == ["running"]
    assert restored(replica) == serialized(path)


def test_pool_that_waits_for_work_does_not_put_the_end_off(
    path: Path, replica: Path
) -> None:
    """It is stopped while stores can be reached, not when all connections are closed."""
    done = run(
        path,
        """
import atexit
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor()
pool.submit(int).result()
atexit.register(lambda: print(r.status().state))
r.start()
write()
""",
    )
    assert done.stdout.split() == ["stopped"]
    assert restored(replica) == serialized(path)
