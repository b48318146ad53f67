"""What a Replicator costs in memory."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.capturing import digest, make_database, serialized
from support.lifetime import restored

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
SIZE = 120 * MEBIBYTE
TESTS = Path(__file__).parents[1]

# Peak memory of the replicating process, beyond that of a small replication, which
# has come first. The writer is another process: its transaction is larger than any buffer.
PROBE = """
import sys
from support.memory import peak_memory
from sqlitereplica import Replicator
small, large, *replicas = sys.argv[1:]
with Replicator(small, replicas[0]) as replicator:
    replicator.sync()
before = peak_memory()
with Replicator(large, replicas[1], buffer_size=8 << 20) as replicator:
    replicator.sync(timeout=None)
    print("first", flush=True)
    sys.stdin.readline()
    replicator.sync(timeout=None)
    replicator.snapshot(timeout=None)
print(peak_memory() - before)
"""


def fill(db: sqlite3.Connection, size: int) -> None:
    """Rows of 32 KB, in one transaction."""
    with db:
        db.execute("begin")
        for _ in range(size // 32_000):
            db.execute("insert into t(v) values(randomblob(32000))")


def test_memory_does_not_grow_with_database_or_transaction(tmp_path: Path) -> None:
    """First upload, one transaction of 60 MB, a snapshot: in less than 40 MB."""
    make_database(tmp_path / "small.db").close()
    db = make_database(tmp_path / "large.db")
    fill(db, SIZE // 2)
    db.execute("pragma wal_checkpoint(truncate)").fetchall()
    paths = [tmp_path / name for name in ("small.db", "large.db", "one", "two")]
    command = [sys.executable, "-c", PROBE, *map(str, paths)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "first\n"
        fill(db, SIZE // 2)
        process.stdin.write("\n")
        process.stdin.close()
        grown = int(process.stdout.read())
    assert process.returncode == 0
    print(f"{grown / MEBIBYTE:.1f} MiB")
    assert grown < 40 * MEBIBYTE
    assert digest(restored(tmp_path / "two")) == digest(serialized(paths[1]))
    db.close()
