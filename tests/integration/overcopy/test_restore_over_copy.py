"""Restores over an old copy: what is fetched, what is reused, and that the bytes are right."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.overcopy import LAST, PAGE_SIZE, copied, over, reasons, restored, size
from support.recording import Recording
from support.troubled import TroubledStore

from sqlitereplica import ltx
from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.restore import restore
from sqlitereplica.store import LTXStore

# -- the two ways ----------------------------------------------------------------------


@pytest.mark.parametrize("then", [1, 2, 3, 4, 5])
def test_copy_that_was_restored_needs_only_the_files_after_it(
    recording: Recording, store: TroubledStore, path: Path, then: int
) -> None:
    """Its note says of which transaction it is; nothing older is fetched."""
    restored(store, path, then)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    later = range(then + 1, LAST + 1)
    assert result.bytes_fetched <= size(store, *later) + 2 * ltx.HEADER_SIZE
    assert result.restored and result.files == len(later)
    changed = sum(
        a != b
        for a, b in zip(recording.pages(then), recording.pages(LAST), strict=False)
    )
    grown = len(recording.pages(LAST)) - len(recording.pages(then))
    # Each file has the pages that its transaction changed, and some twice.
    assert changed + grown <= len(recording.pages(LAST)) - result.pages_reused < 40


@pytest.mark.parametrize("then", range(1, LAST + 1))
@pytest.mark.parametrize("txid", range(3, LAST + 1))
def test_copy_without_a_note_needs_the_pages_that_differ(
    recording: Recording, store: TroubledStore, path: Path, then: int, txid: int
) -> None:
    """Page checksums of the snapshot tell which; forward and back in time."""
    copied(recording, path, then)
    result = over(store, path, txid=txid)
    assert path.read_bytes() == recording.images[txid]
    assert result.txid == txid
    full = sum(f.size for f in store.list_level(9))
    assert result.bytes_fetched < full // 10
    assert result.pages_reused > 480


def test_copy_of_a_file_that_holds_the_transaction_in_its_middle(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """The note needs no file that ends with its transaction: merged ones will do."""
    restored(store, path, 4)
    merged = recording.file(3, 6)
    store.put(1, 3, 6, merged, timestamp=recording.store.list_level(0)[-1].timestamp)
    store.delete(f for f in store.list_level(0) if f.max_txid > 1)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.files == 1 and result.bytes_fetched <= len(merged) + 200


def test_state_of_a_snapshot_is_reached_by_the_files_before_it(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """The plan is the snapshot alone; over a copy the small file that ends with it does."""
    restored(store, path, 2)
    result = over(store, path, txid=3)
    assert path.read_bytes() == recording.images[3]
    assert result.files == 1 and result.bytes_fetched < size(store, 3) + 300


def test_copy_that_is_larger_or_smaller_is_brought_to_size(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """What is beyond the end of the state goes, what is lacking comes."""
    for image in (
        recording.images[3] + bytes(3 * PAGE_SIZE),
        recording.images[3][: -30 * PAGE_SIZE],
        recording.images[3][:-1],
        recording.images[3] + b"?",
    ):
        path.write_bytes(image)
        result = over(store, path)
        assert path.read_bytes() == recording.images[LAST]
        assert result.pages_reused > 400


@pytest.mark.parametrize("noted", [True, False])
def test_two_pages_that_changed_alike_are_not_overlooked(
    recording: Recording, store: TroubledStore, path: Path, noted: bool
) -> None:
    """The database checksum of such a copy is that of a state which it is not."""
    if noted:
        restored(store, path, LAST)
    else:
        copied(recording, path, LAST)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE t SET flag = 5 WHERE id IN (350, 450)")
    connection.close()
    image = path.read_bytes()
    assert image != recording.images[LAST]
    sums = (
        ltx.page_checksum(at // PAGE_SIZE + 1, image[at : at + PAGE_SIZE])
        for at in range(0, len(image), PAGE_SIZE)
    )
    assert ltx.database_checksum(sums) == recording.checksum(LAST)
    result = over(store, path)
    assert result.restored and path.read_bytes() == recording.images[LAST]


@pytest.mark.parametrize("noted", [True, False])
def test_copy_with_a_hot_wal_is_used_without_it(
    recording: Recording, store: TroubledStore, path: Path, noted: bool
) -> None:
    """A crashed application leaves pages in the WAL: it goes with the replaced file."""
    if noted:
        restored(store, path, 4)
    else:
        copied(recording, path, 4)
    crash(path, "UPDATE t SET b = randomblob(3000) WHERE id % 50 = 3", checkpoint=0)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert os.listdir(path.parent) == ["app.db"]
    assert result.pages_reused > 480


def test_copy_whose_checkpoint_was_interrupted_is_used(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """The file alone is no state at all then; its pages are judged one by one."""
    copied(recording, path, 4)
    crash(path, "UPDATE t SET b = randomblob(3000) WHERE id % 50 = 3", checkpoint=1)
    with path.open("r+b") as file:  # as if it had not come far
        file.seek(200 * PAGE_SIZE)
        file.write(recording.images[4][200 * PAGE_SIZE :])
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused > 480


def crash(path: Path, sql: str, checkpoint: int) -> None:
    """Let another process change the database and die with its WAL in place."""
    script = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA wal_autocheckpoint=0')\n"
        "c.execute(sys.argv[2])\n"
        "if int(sys.argv[3]): c.execute('PRAGMA wal_checkpoint(PASSIVE)')\n"
        "os._exit(0)"
    )
    command = [sys.executable, "-c", script, path, sql, str(checkpoint)]
    subprocess.run(command, check=True)
    assert path.with_name(path.name + "-wal").stat().st_size > 0


# -- nothing to do ---------------------------------------------------------------------


@pytest.mark.parametrize("txid", [3, LAST])
def test_copy_that_is_the_state_already_is_left_alone(
    recording: Recording, store: TroubledStore, path: Path, txid: int
) -> None:
    """Nothing is written, kept or fetched but a header; the result says what is there."""
    restored(store, path, txid)
    before = path.stat()
    full = restore(store, path.with_name("full.db"), txid=txid)
    result = over(store, path, txid=txid, keep_old=True)
    after = path.stat()
    assert (result.restored, result.reason) == (False, "unchanged")
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert result.bytes_fetched == ltx.HEADER_SIZE and result.files == 0
    assert result.old is None
    for name in ("source", "txid", "timestamp", "page_size", "commit", "checksum"):
        assert getattr(result, name) == getattr(full, name)
    assert result.pages_reused == result.commit
    assert sorted(os.listdir(path.parent)) == ["app.db", "full.db"]


def test_copy_that_page_checksums_prove_is_left_alone(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """It need not have come from a restore."""
    copied(recording, path, 3)
    result = over(store, path, txid=3)
    assert (result.restored, result.reason) == (False, "unchanged")


@pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
def test_state_with_a_sidecar_is_replaced(
    recording: Recording, store: TroubledStore, path: Path, suffix: str
) -> None:
    """The file is the state, the database is not: with its WAL it may be another."""
    restored(store, path, LAST)
    path.with_name(path.name + suffix).write_bytes(b"left")
    result = over(store, path)
    assert result.restored and result.bytes_fetched <= 2 * ltx.HEADER_SIZE
    assert os.listdir(path.parent) == ["app.db"]
    assert path.read_bytes() == recording.images[LAST]


def test_open_database_is_not_called_unchanged(
    recording: Recording, store: TroubledStore, path: Path
) -> None:
    """It is looked at again who has it open, as before a replacement."""
    restored(store, path, LAST)
    connections = []

    def open_it(file: ltx.FileInfo, start: int) -> None:
        connections.append(sqlite3.connect(path))
        connections[0].execute("SELECT * FROM t").fetchone()

    store.before_get = open_it
    with pytest.raises(DatabaseStateError):
        over(store, path)
    connections[0].close()


# -- copies that are of no use ---------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no database", "too little is known"),
        (os.urandom(600 * PAGE_SIZE), "too little is known"),
        (b"SQLite format 3\0\x02\0" + bytes(5000), "pages have another size"),
    ],
)
def test_other_file_is_replaced_in_full(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
    why: str,
) -> None:
    """What has nothing in common with the state is no reason to fail, and is named."""
    path.write_bytes(content)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert (result.restored, result.pages_reused) == (True, 0)
    [reason] = reasons(caplog)
    assert why in reason


def test_copy_without_note_or_page_checksums_is_replaced_in_full(
    recording: Recording,
    store: TroubledStore,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database checksum alone proves nothing, so it is not gone by."""
    copied(recording, path, 5)
    store.delete_side(store.list_side("sums"))
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused == 0
    assert "too little is known" in reasons(caplog)[0]


def test_replica_without_checksums_is_restored_in_full(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of Litestream carry none: nothing could prove the result."""
    made = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"), signed=False)
    made.commit("CREATE TABLE t(a)")
    restored(made.store, path, 1)
    made.commit("INSERT INTO t VALUES (1)")
    made.close()
    result = over(made.store, path)
    assert path.read_bytes() == made.images[2] and result.pages_reused == 0
    assert "no database checksums" in reasons(caplog)[0]


def test_note_of_another_replica_is_not_believed(
    recording: Recording, store: TroubledStore, path: Path, tmp_path: Path
) -> None:
    """Its transaction 5 is another one."""
    other = Recording(tmp_path / "other.db", LTXStore.open(tmp_path / "other"))
    other.commit("CREATE TABLE t(a)")
    for _ in range(4):
        other.commit("INSERT INTO t VALUES (randomblob(50000))")
    other.close()
    restored(other.store, path, 5)
    result = over(store, path)
    assert path.read_bytes() == recording.images[LAST]
    assert result.pages_reused < 5


def test_small_database_costs_no_more_requests_than_before(
    tmp_path: Path, path: Path
) -> None:
    """Below some size all of it comes faster than what tells what to fetch."""
    made = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    made.commit("CREATE TABLE t(a)")
    made.publish_sums(1)
    made.close()
    path.write_bytes(made.images[1] + bytes(PAGE_SIZE))
    before = made.store.requests["get"]
    over(made.store, path)
    assert made.store.requests["get"] == before + 2
