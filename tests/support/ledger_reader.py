"""A process that reads a ledger database all the time and judges every state it sees.

It stands for any program with any SQLite. Run with the path of a database and the module that
reads it, ``sqlite3`` or ``apsw``, which have each a SQLite of its own; at the end of its input
it prints how many states it read and the last row.
"""

from __future__ import annotations

import select
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["Reader"]


class Reader:
    """The process, from ``with`` to its verdict."""

    def __init__(self, path: Path, module: str = "sqlite3") -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def finish(self) -> tuple[int, int]:
        """Have it end; (states read, last row). Its assertions are this one's."""
        told, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        states, last = told.split()
        return int(states), int(last)

    def kill(self) -> None:
        """End it, whatever happened."""
        self._process.kill()
        self._process.wait()


def _connect(path: str, module: str) -> Any:
    if module == "sqlite3":
        return sqlite3.connect(path, isolation_level=None, timeout=60)
    import apsw

    connection = apsw.Connection(path)
    connection.set_busy_timeout(60_000)
    return connection


def _main(path: str, module: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from support.ledger import _examine_chain

    db = _connect(path, module)
    states, last = 0, 0
    print("ready", flush=True)
    while not (states and select.select([sys.stdin], [], [], 0)[0]):
        db.execute("begin")
        found = _examine_chain(db)
        assert found["chain"] == "ok", found
        assert found["last"] >= last, "it never goes back"
        if states % 10 == 0:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        db.execute("commit")
        states, last = states + 1, found["last"]
        time.sleep(0.002)
    print(states, last, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
