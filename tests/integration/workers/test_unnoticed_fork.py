"""A fork that Python is not told of: nothing of ours pretends to work in the child."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import ctypes, os, sqlite3, sys, time
from sqlitereplica import DatabaseStateError, Replicator, restore

db = sqlite3.connect("app.db", isolation_level=None)
db.execute("pragma journal_mode=wal")
db.execute("create table t(x)")
replicator = Replicator("app.db", "replica")
unused = Replicator("other.db", "other")
if sys.argv[1] == "started":
    replicator.start()
    replicator.sync()
db.close()
# With the interpreter's lock held, as a server does that embeds Python.
child = ctypes.PyDLL(None).fork()
if child:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if sys.argv[1] == "started":
        replicator.sync()
        replicator.stop()
    sys.exit(code)

def kind_of(call):
    try:
        call()
    except DatabaseStateError as error:
        return error.kind

if sys.argv[1] == "started":
    refused = [replicator.sync, replicator.start, replicator.position, unused.start]
    kinds = [kind_of(call) for call in refused]
    status = replicator.status()
    print(kinds, status.state, "behind Python's back" in status.error)
    replicator.stop()
else:
    with replicator:
        replicator.sync()
        print(replicator.status().state, replicator.status().pid == os.getpid())
sys.stdout.flush()
sys.exit(0)
"""


def run(what: str, folder: Path) -> str:
    """Run it in a process of its own; what the child said."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, what],
        check=False,
        capture_output=True,
        cwd=folder,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done
    return done.stdout.strip()


def test_every_call_is_refused_in_the_child(tmp_path: Path) -> None:
    """Also of another Replicator; the child ends as usual, and the parent goes on."""
    said = run("started", tmp_path)
    assert said == f"{['forked'] * 4} failed True"


def test_process_in_which_nothing_was_started_may_be_forked(tmp_path: Path) -> None:
    """It has no connection and no thread that the child could miss."""
    assert run("only made", tmp_path) == "running True"
