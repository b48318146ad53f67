"""Restores from folders: which state, what is proven, and how the result is described."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback
from support.recording import START, Recording

from sqlitereplica import ltx
from sqlitereplica.errors import (
    ChecksumMismatchError,
    NearestPoint,
    NotRestorableError,
)
from sqlitereplica.restore import RestoreResult, plan_restore, read_checksums, restore
from sqlitereplica.store import LTXStore, Replica

PAGE_SIZE = 4096


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """The folder of the replica."""
    return tmp_path / "replica"


@pytest.fixture
def recording(tmp_path: Path, replica: Path) -> Iterator[Recording]:
    """Nine transactions that grow, shrink (VACUUM), grow again and change the schema."""
    made = Recording(tmp_path / "source.db", LTXStore.open(replica))
    made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")
    made.commit(fill(40))
    made.commit("UPDATE t SET b = randomblob(900) WHERE id % 7 = 0")
    made.commit("DELETE FROM t WHERE id > 5", "VACUUM")
    made.commit("INSERT INTO t(b) VALUES (x'00')")
    made.commit(fill(30))
    made.commit("CREATE INDEX i ON t(b)")
    made.commit("DELETE FROM t WHERE id % 2 = 0")
    made.commit("PRAGMA user_version = 9")
    yield made
    made.close()


def fill(rows: int) -> str:
    """SQL that inserts this many rows, about four to a page."""
    return (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        " INSERT INTO t(b) SELECT randomblob(1000) FROM n"
    )


def at_ms(milliseconds: int) -> datetime:
    """A time as restore takes it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def leftovers(folder: Path) -> list[str]:
    """What a restore has left beside the databases."""
    return [name for name in os.listdir(folder) if name.startswith(".")]


class Recorder(Callback):
    """An fsspec callback that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Called by fsspec after each change."""
        self.seen.append(self.value)


def test_latest_state_is_byte_identical(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """The restored file is the source's, and the result says what it is."""
    target = tmp_path / "restored.db"
    result = restore(replica, target)
    assert target.read_bytes() == recording.images[9]
    assert result == RestoreResult(
        path=target,
        restored=True,
        reason="restored",
        source=LTXStore.open(replica).name,
        txid=9,
        timestamp=at_ms(START + 9000),
        page_size=PAGE_SIZE,
        commit=len(recording.images[9]) // PAGE_SIZE,
        files=9,
        bytes_fetched=sum(len(recording.files[n, n]) for n in range(1, 10)),
        checksum=recording.checksum(9),
    )
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("verify", ["quick", "full", None])
def test_every_transaction_is_restored_whatever_is_checked(
    recording: Recording, replica: Path, tmp_path: Path, verify: Any
) -> None:
    """Each TXID gives its own image; SQLite's check leaves no trace in it or beside it."""
    for txid in range(1, 10):
        target = tmp_path / "out" / f"{txid}.db"
        result = restore(replica, target, txid=txid, verify=verify)
        assert target.read_bytes() == recording.images[txid]
        assert result.txid == txid and result.checksum == recording.checksum(txid)
    assert len(os.listdir(tmp_path / "out")) == 9


def test_compacted_levels_and_snapshots_give_the_same_images(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """Overlapping files of all levels lead to the images of the single transactions."""
    for level, first, last in [(9, 1, 4), (2, 3, 6), (1, 5, 7), (1, 2, 3), (3, 1, 8)]:
        recording.publish(level, first, last)
    for txid in range(1, 10):
        target = tmp_path / f"{txid}.db"
        restore(replica, target, txid=txid)
        assert target.read_bytes() == recording.images[txid]


def test_image_that_replaces_the_snapshot_is_fetched_alone(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """What a later full image of the plan replaces costs no byte."""
    recording.publish(9, 1, 1)
    recording.publish(2, 1, 9)
    result = restore(replica, tmp_path / "restored.db")
    assert (result.files, result.bytes_fetched) == (1, len(recording.files[1, 9]))


@pytest.mark.parametrize("page_size", [512, 1024, 65536])
def test_any_page_size_is_restored(tmp_path: Path, page_size: int) -> None:
    """The smallest and the largest pages, too."""
    store = LTXStore.open(tmp_path / "replica")
    made = Recording(tmp_path / "source.db", store, page_size=page_size)
    made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)", fill(300))
    made.commit(fill(10))
    made.close()
    result = restore(store, tmp_path / "restored.db", verify="full")
    assert (tmp_path / "restored.db").read_bytes() == made.images[2]
    assert result.page_size == page_size


def test_restored_database_opens_in_wal_mode_with_its_rows(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """The header is kept as replicated, and any SQLite can go on with the file."""
    target = tmp_path / "restored.db"
    restore(replica, target)
    with sqlite3.connect(target) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA user_version").fetchone() == (9,)
        database.execute("INSERT INTO t(b) VALUES ('more')")
    database.close()


def test_at_gives_the_last_state_before_that_time(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """A state's own time is not before it; a time after all files means the latest."""
    for number, (at, txid) in enumerate(
        [
            (at_ms(START + 4001), 4),
            (at_ms(START + 4000), 3),
            (at_ms(START + 3999).isoformat(), 3),
            ((START + 1500) / 1000, 1),
            (at_ms(START + 9000), 8),
            ("1 minute ago", 9),
            (datetime.now(UTC) + timedelta(days=1), 9),
        ]
    ):
        target = tmp_path / f"{number}.db"
        assert restore(replica, target, at=at).txid == txid
        assert target.read_bytes() == recording.images[txid]


def test_time_before_the_first_state_names_the_bounds(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """The error says what can be asked for instead, and nothing is left behind."""
    with pytest.raises(NotRestorableError) as caught:
        restore(replica, tmp_path / "restored.db", at=at_ms(START + 1000))
    assert caught.value.kind == "time"
    assert caught.value.earliest == at_ms(START + 1001)
    assert not (tmp_path / "restored.db").exists() and leftovers(tmp_path) == []
    target = tmp_path / "bound.db"
    assert restore(replica, target, at=caught.value.earliest).txid == 1  # type: ignore[arg-type]
    target = tmp_path / "other.db"
    assert restore(replica, target, at=caught.value.latest).txid == 9  # type: ignore[arg-type]


def test_unreachable_transaction_names_its_neighbours(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """Once level 0 is gone only the ends of compacted files can be restored."""
    store = recording.store
    store.delete(store.list_all())
    recording.publish(9, 1, 3)
    recording.publish(1, 4, 7)
    for file in replica.rglob("*.ltx"):
        os.utime(file)  # as a copy has them: the times told are the files' own
    with pytest.raises(NotRestorableError, match=r"txid=3 of .* txid=7 of") as caught:
        restore(replica, tmp_path / "restored.db", txid=5)
    assert (caught.value.earliest, caught.value.latest) == (3, 7)
    assert caught.value.before == NearestPoint(3, at_ms(START + 3000))
    assert caught.value.after == NearestPoint(7, at_ms(START + 7000))
    assert not (tmp_path / "restored.db").exists()


def test_gap_is_an_error_for_the_latest_even_if_asked_by_a_time_after_all(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """The state before the gap is not passed off as the latest one."""
    store = recording.store
    store.delete([file for file in store.list_all() if file.max_txid in (5, 6)])
    for target in ({}, {"at": "1 minute ago"}):
        with pytest.raises(NotRestorableError) as caught:
            restore(replica, tmp_path / "restored.db", **target)  # type: ignore[arg-type]
        assert caught.value.kind == "gap" and caught.value.latest == 4
        assert caught.value.before == NearestPoint(4, at_ms(START + 4000))
    assert restore(replica, tmp_path / "restored.db", txid=4).txid == 4


def test_gap_before_a_time_is_passed_over_with_a_warning(
    recording: Recording,
    replica: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As with Litestream the state before the gap is restored; the log says so."""
    store = recording.store
    store.delete([file for file in store.list_all() if file.max_txid == 5])
    result = restore(replica, tmp_path / "restored.db", at=at_ms(START + 8500))
    assert result.txid == 4
    assert [r.__dict__["action"] for r in caplog.records] == ["restore-gap"]


def test_no_backup_is_an_error_or_skipped(replica: Path, tmp_path: Path) -> None:
    """A folder that is empty or not there has no backup."""
    target = tmp_path / "restored.db"
    for _ in range(2):
        with pytest.raises(NotRestorableError) as caught:
            restore(replica, target)
        assert caught.value.kind == "empty"
        result = restore(replica, target, missing="skip")
        assert result == RestoreResult(target, restored=False, reason="missing")
        assert os.listdir(tmp_path) == (["replica"] if replica.exists() else [])
        replica.mkdir(exist_ok=True)


def test_missing_skip_covers_nothing_but_an_empty_replica(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """A state that cannot be had is an error even if a missing backup is not."""
    for target in ({"txid": 99}, {"at": 1}):
        with pytest.raises(NotRestorableError):
            restore(replica, tmp_path / "r.db", missing="skip", **target)  # type: ignore[arg-type]


def test_replica_may_be_given_in_every_form(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """A string, a path, a Replica and an open store are the same."""
    forms = [str(replica), replica, Replica(url=replica), recording.store]
    for number, form in enumerate(forms):
        target = tmp_path / f"{number}.db"
        assert restore(form, os.fspath(target)).path == target
        assert target.read_bytes() == recording.images[9]


def test_callback_hears_of_every_byte(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """The size is that of the plan, and the value reaches it."""
    callback = Recorder()
    result = restore(replica, tmp_path / "restored.db", callback=callback)
    assert callback.size == callback.value == result.bytes_fetched
    assert callback.seen == sorted(callback.seen) and len(callback.seen) >= 9


def test_requests_are_a_listing_of_each_layout_and_one_get_per_small_file(
    recording: Recording, tmp_path: Path
) -> None:
    """Nothing is asked twice, and the last file's header costs nothing extra."""
    before = recording.store.requests.copy()
    restore(recording.store, tmp_path / "restored.db")
    after = recording.store.requests
    assert after["list"] - before["list"] == 2
    assert after["get"] - before["get"] == 9


def test_wrong_database_checksum_is_refused(
    recording: Recording, replica: Path, tmp_path: Path
) -> None:
    """Files that are sound one by one but make another database are noticed."""
    header, pages = ltx.decode(recording.files[9, 9])
    forged = bytes(reversed(pages[0][1][100:])) + pages[0][1][:100]
    recording.store.delete(
        [file for file in recording.store.list_all() if file.max_txid == 9]
    )
    data = ltx.encode(header, [(2, forged), *pages[1:]])
    recording.store.put(0, 9, 9, data, timestamp=START + 9000)
    with pytest.raises(ChecksumMismatchError, match="database"):
        restore(replica, tmp_path / "restored.db", verify=None)
    assert not (tmp_path / "restored.db").exists() and leftovers(tmp_path) == []


def test_files_of_litestream_without_checksums_restore_unproven(
    tmp_path: Path,
) -> None:
    """Without our extension there is no database checksum to compare or report."""
    store = LTXStore.open(tmp_path / "replica")
    made = Recording(tmp_path / "source.db", store, signed=False)
    made.commit("CREATE TABLE t(b)")
    made.commit("INSERT INTO t VALUES (1)")
    made.close()
    assert restore(store, tmp_path / "restored.db").checksum is None
    assert (tmp_path / "restored.db").read_bytes() == made.images[2]


def test_read_checksums_is_the_table_of_the_restored_pages(
    recording: Recording,
) -> None:
    """The table has a checksum per page, without a file being written."""
    recording.publish(9, 1, 4)
    plan = plan_restore(recording.store.list_all())
    table = read_checksums(recording.store, plan)
    pages = enumerate(recording.pages(9), 1)
    assert list(table.pages) == [ltx.page_checksum(p, data) for p, data in pages]
    assert (table.page_size, table.txid) == (PAGE_SIZE, 9)
    assert table.commit == len(table.pages) and table.header.max_txid == 9


@pytest.mark.parametrize(
    "arguments",
    [
        {"if_exists": "overwrite"},
        {"missing": "ignore"},
        {"verify": "slow"},
        {"verify": False},
        {"txid": 0},
        {"txid": "5"},
        {"txid": 1, "at": 5},
        {"at": "2026-01-01T00:00:00"},
        {"at": "some time"},
        {"replica": []},
    ],
    ids=str,
)
def test_arguments_without_sense_are_refused(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """A mistake in the call is a ValueError before anything is asked or written."""
    call = {"replica": tmp_path / "replica", "path": tmp_path / "x.db", **arguments}
    with pytest.raises(ValueError, match=r".+"):
        restore(**call)
    assert os.listdir(tmp_path) == []


def test_options_for_an_open_store_are_refused(recording: Recording) -> None:
    """Storage options would have no effect on a store that is open already."""
    with pytest.raises(ValueError, match="storage_options"):
        restore(recording.store, "x.db", storage_options={"anon": True})
