"""What a restore costs in memory."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.oldreplica import OldReplica

from sqlitereplica import ltx
from sqlitereplica.restore.sums import put_sums
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.slow

PAGE_SIZE = 4096
MEBIBYTE = 1 << 20
SIZE = 300 * MEBIBYTE
TESTS = Path(__file__).parents[1]
NOISE = random.Random(1).randbytes(MEBIBYTE + PAGE_SIZE)

# Peak memory of a process before and after; a small restore has come first, so
# that only what grows with the database makes a difference.
PROBE = """
import sys
from support.memory import peak_memory
from sqlitereplica.restore import plan_restore, read_checksums, restore
from sqlitereplica.store import LTXStore
small, large, out = sys.argv[1:]
restore(small, out + "/small.db", verify=None)
before = peak_memory()
{action}
print(peak_memory() - before)
"""
OVER = """
result = restore(large, out + "/large.db", verify=None, if_exists="replace")
assert result.pages_reused > 70_000 and result.bytes_fetched < 5 << 20
"""
RESTORE = 'restore(large, out + "/large.db", verify=None)'
CHECKSUMS = """
store = LTXStore.open(large)
assert len(read_checksums(store, plan_restore(store.list_all())).pages) > 70_000
"""


def noise(pgno: int) -> bytes:
    """A page that cannot be compressed."""
    at = pgno * 977 % MEBIBYTE
    return NOISE[at : at + PAGE_SIZE]


def publish(folder: Path, page_count: int) -> None:
    """A snapshot with the database checksum."""
    numbers = range(1, page_count + 1)
    sums = array("Q", (ltx.page_checksum(n, noise(n)) for n in numbers))
    header = ltx.Header(
        page_size=PAGE_SIZE,
        commit=page_count,
        min_txid=1,
        max_txid=1,
        timestamp=1_700_000_000_000,
        post_checksum=ltx.database_checksum(sums),
    )
    path = folder / "file"
    folder.mkdir()
    with path.open("wb") as file:
        encoder = ltx.Encoder(file.write, header)
        encoder.add((n, noise(n)) for n in numbers)
        encoder.finish()
    store = LTXStore.open(folder)
    store.put(9, 1, 1, path, timestamp=header.timestamp)
    put_sums(store, header, sums)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """A small and a large replica, and a folder for what is restored."""
    folder = tmp_path_factory.mktemp("cost")
    publish(folder / "small", 100)
    publish(folder / "large", SIZE // PAGE_SIZE)
    (folder / "out").mkdir()
    yield [folder / "small", folder / "large", folder / "out"]
    (folder / "out" / "large.db").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "action", [RESTORE, CHECKSUMS, OVER], ids=["restore", "checksums", "over a copy"]
)
def test_memory_does_not_grow_with_the_database(
    replicas: list[Path], action: str
) -> None:
    """300 MB pass through less than 100 MB, whatever is ahead of the disk."""
    if action is OVER:
        with (replicas[2] / "large.db").open("wb") as file:
            for n in range(1, SIZE // PAGE_SIZE + 1):
                file.write(noise(n + (n % 500 == 0)))
    command = [sys.executable, "-c", PROBE.format(action=action), *replicas]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=TESTS
    )
    print(f"{int(done.stdout) / MEBIBYTE:.1f} MiB")
    assert int(done.stdout) < 100 * MEBIBYTE
    (replicas[2] / "small.db").unlink()


def test_memory_does_not_grow_with_a_replica_of_litestream_03(tmp_path: Path) -> None:
    """Nor with its snapshot, a WAL or a transaction, though these are large files."""
    (tmp_path / "small").mkdir()
    (tmp_path / "out").mkdir()
    replicas = []
    for folder, rows in ((tmp_path / "small", 10), (tmp_path, 20_000)):
        old = OldReplica(folder, page_size=PAGE_SIZE, images=False)
        old.commit(
            "INSERT INTO t(v) WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL"
            f" SELECT i + 1 FROM n LIMIT {rows}) SELECT randomblob(3900) FROM n"
        )
        old.checkpoint()
        old.commit("UPDATE t SET v = randomblob(3900)")
        replicas.append(old.replica)
        old.snapshot()
        old.segment()
        old.close()
    assert sum(p.stat().st_size for p in old.replica.rglob("*.lz4")) > 150 * MEBIBYTE
    command = [sys.executable, "-c", PROBE.format(action=RESTORE), *replicas]
    done = subprocess.run(
        [*command, tmp_path / "out"],
        check=True,
        capture_output=True,
        text=True,
        cwd=TESTS,
    )
    assert int(done.stdout) < 100 * MEBIBYTE
    assert (tmp_path / "out/large.db").read_bytes() == old.database.read_bytes()
    for path in (old.replica, tmp_path / "out"):
        shutil.rmtree(path)
    old.database.unlink()
