"""T19: databases that grow over the byte at 1 GiB which SQLite locks, and over 4 GiB.

The page that holds that byte is never written and is in no file of a replica. The databases
are sparse: pages that were never used, between the first few and those that the test adds.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.capturing import make_database

from sqlitereplica import Replicator, restore
from sqlitereplica.ltx import Decoder, FileInfo, lock_pgno
from sqlitereplica.store import LTXStore

HASH = """
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    print(hashlib.file_digest(file, "sha256").hexdigest())
"""
SCRIBBLE = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    file.write(b"garbage")
"""


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder for some large files, in memory if there is room."""
    shm = Path("/dev/shm")
    fits = shm.is_dir() and shutil.disk_usage(shm).free > 12 << 30
    with tempfile.TemporaryDirectory(dir=shm if fits else tmp_path) as folder:
        yield Path(folder)


def make_sparse(path: Path, page_size: int, pages: int) -> sqlite3.Connection:
    """A database of so many pages, of which only the first ones are used."""
    db = make_database(path, page_size=page_size)
    for _ in range(4):  # from now on a row takes one page more
        add_row(db)
    db.close()
    with path.open("r+b") as file:
        file.seek(28)
        file.write(struct.pack(">I", pages))
        file.truncate(pages * page_size)
    db = sqlite3.connect(path, isolation_level=None)
    assert size_of(db) == pages
    return db


def size_of(db: sqlite3.Connection) -> int:
    """Pages of the database."""
    (pages,) = db.execute("pragma page_count").fetchone()
    assert isinstance(pages, int)
    return pages


def add_row(db: sqlite3.Connection) -> None:
    """A row that takes most of a page."""
    (page_size,) = db.execute("pragma page_size").fetchone()
    db.execute("insert into t(v) values(zeroblob(?))", (page_size * 3 // 4,))


def grow_to(db: sqlite3.Connection, pages: int) -> None:
    """Add pages, each in a transaction, up to a size."""
    while size_of(db) < pages:
        add_row(db)
        db.execute("update t set v = randomblob(100) where id = 1")
    assert size_of(db) == pages


def digest(path: Path) -> str:
    """Of a file; in another process, since closing a database here would drop its locks."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", HASH, str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def state(db: sqlite3.Connection, path: Path) -> str:
    """The digest of the database with all that is in the WAL."""
    assert db.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0
    return digest(path)


def page_numbers(store: LTXStore, info: FileInfo) -> set[int]:
    """The pages in a file."""
    with store.open_file(info) as file:
        return {pgno for pgno, _ in Decoder(file).pages()}


def scribble(path: Path, offset: int) -> None:
    """Write a few bytes where the file has any, in another process."""
    if path.stat().st_size > offset:
        command = [sys.executable, "-I", "-S", "-c", SCRIBBLE, str(path), str(offset)]
        subprocess.run(command, check=True)


def check_growth(folder: Path, page_size: int, sizes: list[int]) -> None:
    """Every size is restored to the byte, and so is what a restart makes of them."""
    path, replica = folder / "app.db", folder / "replica"
    store = LTXStore.open(replica)
    lock = lock_pgno(page_size)
    db = make_sparse(path, page_size, sizes[0] - 1)
    digests: dict[int, str] = {}
    with Replicator(path, replica, sync_interval=3600) as replicator:
        replicator.sync()
        for size in sizes:
            grow_to(db, size)
            replicator.sync()
            digests[replicator.status().txid] = state(db, path)
        replicator.snapshot()
    shutil.rmtree(folder / ".app.db-sqlitereplica")
    db.execute("update t set v = randomblob(50) where id = 1")
    with Replicator(path, replica, sync_interval=3600) as replicator:
        replicator.sync()
        newest = replicator.status().txid
        assert newest == max(digests) + 1
        digests[newest] = state(db, path)
    db.close()
    infos = store.list_all()
    assert all(lock not in page_numbers(store, info) for info in infos)
    (delta,) = [i for i in infos if i.min_txid == newest]
    assert len(page_numbers(store, delta)) < 10
    out = folder / "out.db"
    for txid, expected in digests.items():
        if out.exists():  # what an old copy has in the lock page does not count
            scribble(out, (lock - 1) * page_size)
        result = restore(replica, out, txid=txid, verify=None, if_exists="replace")
        assert (result.pages_reused > 0) == (txid != min(digests))
        assert digest(out) == expected, txid
        assert os.path.getsize(out) % page_size == 0


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_growth_over_the_lock_page(roomy: Path) -> None:
    """With pages of 64 KiB, where these are the fewest: just before it and just after."""
    lock = lock_pgno(65536)
    check_growth(roomy, 65536, [lock - 1, lock + 1])


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("page_size", [512, 1024, 4096, 16384, 65536])
def test_growth_over_the_lock_page_at_every_step(roomy: Path, page_size: int) -> None:
    """Sizes of -2, -1, +1, +2 and +3 pages; there is no database that ends with it."""
    lock = lock_pgno(page_size)
    sizes = [lock - 2, lock - 1, lock + 1, lock + 2, lock + 3]
    check_growth(roomy, page_size, sizes)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_growth_over_four_gigabytes(roomy: Path, page_size: int) -> None:
    """No offset is cut to 32 bits."""
    last = (4 << 30) // page_size
    check_growth(roomy, page_size, [last - 1, last, last + 1, last + 2])
