"""The demonstration: replicate, lose, restore, prove."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlitereplica.cli.arguments import Parser
from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.replicate import Replicator
from sqlitereplica.restore import restore
from sqlitereplica.sizes import size_text

__all__ = ["add", "run_demo"]

_WRITER = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute("create table if not exists sqlitereplica_demo(id integer primary key, v)")
while True:
    at = db.execute("insert into sqlitereplica_demo(v) values(?)", (os.urandom(99),))
    print(at.lastrowid, flush=True)
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser: Parser = commands.add_parser(
        "demo",
        help="replicate a database while it is written to, lose it, restore it",
        description="Replicate a database to a local folder while a second process"
        " writes to it, kill that process, delete the database, restore it and prove"
        " that nothing is missing. Works in a temporary folder.",
    )
    parser.add_argument(
        "path", nargs="?", help="a SQLite database to copy and use; it is only read"
    )
    parser.flag(
        "seconds", type=float, default=3.0, help="how long to write (default: 3)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_demo(arguments.path, seconds=arguments.seconds)


def run_demo(source: str | None, *, seconds: float) -> int:
    """Run it in a temporary folder and print what happens; 0 when the proof holds.

    Raises:
        DatabaseStateError: ``source`` is not a database.
        SQLiteReplicaError: a step failed.
    """
    with tempfile.TemporaryDirectory(prefix="sqlitereplica-demo-") as folder:
        database, replica = Path(folder, "app.db"), Path(folder, "replica")
        _prepare(source, database)
        size = database.stat().st_size
        print(f"database   {database} ({size_text(size)})")
        with Replicator(database, replicas=[replica], sync_interval=0.1) as replicator:
            written = _write_and_kill(database, replicator, seconds)
            replicator.sync()
            status = replicator.status()
            expected = _digest_of_state(database)
        print(f"durable    transaction {status.txid} is in the replica")
        files = [f for f in replica.rglob("*") if f.is_file()]
        total = sum(f.stat().st_size for f in files)
        print(f"replica    {len(files)} files, {size_text(total)}, in {replica}")
        _lose(database)
        print("lost       database, WAL and metadata are deleted")
        began = time.perf_counter()
        result = restore(replica, database)
        took = time.perf_counter() - began
        print(f"restored   transaction {result.txid} in {took:.2f} s")
        return _prove(database, expected, written)


def _prepare(source: str | None, database: Path) -> None:
    """Make a database, or copy one the way SQLite itself does."""
    copy = sqlite3.connect(database)
    try:
        if source is None:
            copy.execute("create table customer(id integer primary key, name text)")
            names = ((f"customer {i}",) for i in range(10_000))
            copy.executemany("insert into customer(name) values(?)", names)
            copy.commit()
        else:
            _copy(source, copy)
        copy.execute("pragma journal_mode=wal")
    finally:
        copy.close()


def _copy(source: str, copy: sqlite3.Connection) -> None:
    try:
        original = sqlite3.connect(
            f"{Path(source).absolute().as_uri()}?mode=ro", uri=True
        )
        try:
            original.backup(copy)
        finally:
            original.close()
    except sqlite3.Error as error:
        raise DatabaseStateError(
            f"{source}: {error}", path=source, kind="not-a-database"
        ) from error


def _write_and_kill(database: Path, replicator: Replicator, seconds: float) -> int:
    """Let another process write for a while, kill it, return the last row it reported."""
    command = [sys.executable, "-c", _WRITER, str(database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        print(f"writing    process {writer.pid} commits row after row")
        assert writer.stdout is not None
        end, last = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            last = int(writer.stdout.readline())
        writer.kill()
        lines = [line for line in writer.stdout.read().split("\n")[:-1] if line]
        last = int(lines[-1]) if lines else last
    print(f"killed     process {writer.pid} by SIGKILL after {last} commits")
    return last


def _digest_of_state(database: Path) -> str:
    """SHA-256 of the database as SQLite reads it now, WAL included."""
    connection = sqlite3.connect(database)
    try:
        return hashlib.sha256(connection.serialize()).hexdigest()
    finally:
        connection.close()


def _lose(database: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    shutil.rmtree(database.with_name(f".{database.name}-sqlitereplica"))


def _prove(database: Path, expected: str, written: int) -> int:
    with database.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    connection = sqlite3.connect(database)
    try:
        (integrity,) = connection.execute("pragma integrity_check").fetchone()
        query = "select count(*) from sqlitereplica_demo where id <= ?"
        (rows,) = connection.execute(query, (written,)).fetchone()
    finally:
        connection.close()
    same = actual == expected
    print(f"digest     {'identical' if same else 'DIFFERENT'}: sha256 {actual[:32]}...")
    print(f"integrity  {integrity}; {rows} of {written} committed rows are there")
    return 0 if same and integrity == "ok" and rows == written else 1
