"""Programs with a Replicator, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["run"]

PRELUDE = """
import asyncio, gc, multiprocessing, os, signal, sqlite3, sys, threading, time
from sqlitereplica import Replicator
from sqlitereplica.errors import ReplicatorClosedError, DatabaseStateError

path, replica = sys.argv[1:]

def write():
    db.execute("insert into t(v) values(randomblob(1000))")

def locks():
    names = [path, path + "-shm", f"{os.path.dirname(path)}/.app.db-sqlitereplica/lock"]
    inodes = {str(os.stat(name).st_ino) for name in names}
    with open("/proc/locks") as file:
        lines = [line.split() for line in file]
    # A reader has one of five marks (bytes 123 to 127), now this one and now that.
    return sorted(
        (f[1], f[3], f[5], "mark" if 123 <= int(f[6]) <= 127 else f[6])
        for f in lines
        if f[4] == str(os.getpid()) and f[5].rpartition(":")[2] in inodes
    )

def settled_locks():
    # In quiet no reader hands over to the next any more.
    before, quiet = locks(), time.monotonic()
    while time.monotonic() - quiet < 1:
        time.sleep(0.02)
        if locks() != before:
            before, quiet = locks(), time.monotonic()
    return before

def kinds(*calls):
    found = []
    for call in calls:
        try:
            call()
        except (ReplicatorClosedError, DatabaseStateError) as error:
            found.append(error.kind)
        else:
            found.append("no error")
    return found

def insert(number):
    own = sqlite3.connect(path, isolation_level=None, timeout=30)
    own.execute("insert into t(v) values(?)", (number,))
    own.close()
    if multiprocessing.get_start_method() == "fork":
        mine = r
        mine.sync()
    else:
        with Replicator(path, [replica], sync_interval=3600) as mine:
            mine.sync()

if __name__ == "__main__":
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    r = Replicator(path, [replica], sync_interval=3600)
"""


def run(path: Path, program: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program after the prelude, in a file, as ``multiprocessing`` likes it."""
    script = path.with_name("program.py")
    body = "".join(f"    {line}\n" for line in program.strip().splitlines())
    script.write_text(PRELUDE + body)
    where = str(path.with_name("replica"))
    arguments = [sys.executable, "-W", "ignore", str(script), str(path), where]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done
