"""States restored from replicas in the layout of Litestream 0.3."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from fsspec.callbacks import Callback
from support.oldreplica import OldReplica
from support.oldstates import (
    INSERT,
    WatchedStore,
    after,
    fill,
    refusal,
    restored,
    segments,
    snapshots,
)

from sqlitereplica import restore
from sqlitereplica.errors import NotRestorableError, StoreError
from sqlitereplica.store import GenerationFile, LTXStore
from sqlitereplica.store.reach import to_datetime

GROW_AND_FREE = (
    "BEGIN",
    "CREATE TABLE big(v)",
    "INSERT INTO big VALUES (zeroblob(200000))",
    "DELETE FROM big",
    INSERT.format(9),
    "COMMIT",
)


# -- states ----------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_latest_state_is_what_sqlite_has(tmp_path: Path, page_size: int) -> None:
    """Bytes of the file, whatever the size of its pages."""
    old = OldReplica(tmp_path, page_size=page_size)
    fill(old)
    old.commit(*GROW_AND_FREE)
    old.segment()
    image = old.image
    assert restored(old.replica) == image
    old.close()  # which brings the WAL into the database
    assert old.database.read_bytes() == image


def test_every_state_can_be_had_by_its_time(old: OldReplica) -> None:
    """What was stored before the time, and never more."""
    fill(old)
    for time, image in old.states[1:]:
        assert restored(old.replica, at=after(time)) == image
    for (_, image), (time, _) in zip(old.states[1:], old.states[2:], strict=False):
        assert restored(old.replica, at=to_datetime(time)) == image


def test_result_says_what_there_is_to_say(old: OldReplica, tmp_path: Path) -> None:
    """No transaction, no checksum, but time, size and files."""
    fill(old)
    callback = Callback()
    result = restore(old.replica, tmp_path / "a.db", callback=callback)
    last, _ = old.states[-1]
    assert (result.txid, result.checksum) == (None, None)
    assert result.timestamp == to_datetime(last)
    assert (result.page_size, result.files) == (1024, 3)
    assert (result.commit or 0) * 1024 == len(old.image)
    assert result.source == str(old.replica)
    files = LTXStore.open(old.replica).list_generations()[-3:]
    fetched = sum(f.size for f in files if f.index == 2)
    assert callback.size == callback.value == result.bytes_fetched
    assert result.bytes_fetched >= fetched


def test_database_is_left_as_a_plain_file(old: OldReplica, tmp_path: Path) -> None:
    """No WAL beside it, and it can be written to."""
    fill(old)
    restore(old.replica, tmp_path / "a.db")
    assert not list(tmp_path.glob("a.db-*"))
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("INSERT INTO t(v) VALUES (1)")
        connection.commit()


def test_newest_generation_is_restored(old: OldReplica) -> None:
    """A new one begins with a snapshot and goes on from where the old one was."""
    fill(old)
    end, _ = old.states[-1]
    before = old.image
    old.commit(INSERT.format(7))
    old.checkpoint()
    old.begin_generation("0000000000000011")
    old.commit(INSERT.format(8))
    old.begin_generation("0000000000000011")
    old.snapshot()
    old.segment()
    assert restored(old.replica) == old.image
    assert restored(old.replica, at=after(end)) == before


def test_generation_that_lost_its_snapshot_is_said_to_be_overlooked(
    old: OldReplica, caplog: pytest.LogCaptureFixture
) -> None:
    """The older generation is restored, as by Litestream 0.5, but not in silence."""
    fill(old)
    image = old.image
    old.begin_generation("0000000000000011")
    path = old.snapshot()
    old.commit(INSERT.format(8))
    old.segment()
    path.unlink()
    assert restored(old.replica) == image
    actions = [record.__dict__.get("action") for record in caplog.records]
    assert "restore-gap" in actions


def test_transaction_in_two_segments_counts_when_it_is_whole(old: OldReplica) -> None:
    """Litestream 0.3 may read while it writes: a segment ends within a transaction."""
    old.snapshot()
    old.commit(INSERT.format(10))
    old.segment()
    whole = old.image
    frames = old.frames
    old.commit(INSERT.format(30_000))
    assert old.frames > frames + 9
    old.segment(frames + 5)
    assert restored(old.replica) == whole
    old.segment()
    assert restored(old.replica) == old.image
    time, _ = old.states[-2]
    assert restored(old.replica, at=after(time)) == whole


def test_wal_without_any_commit_changes_nothing(old: OldReplica) -> None:
    """All of it is the beginning of a transaction."""
    old.snapshot()
    old.checkpoint()
    image = old.image
    old.commit(INSERT.format(30_000))
    old.segment(4)
    assert restored(old.replica) == image


# -- snapshots that are ahead of their WAL -----------------------------------------------


def test_snapshot_that_is_ahead_of_the_time_is_not_used(old: OldReplica) -> None:
    """Pages that a checkpoint brought into it are of later transactions."""
    old.snapshot()
    old.commit(INSERT.format(100))
    old.checkpoint()
    old.commit(INSERT.format(200))
    old.segment()
    time, image = old.states[-1]
    old.commit(INSERT.format(5000), INSERT.format(7000))
    old.backfill()
    path = old.snapshot()
    os.utime(path, ns=(time * 1_000_000, time * 1_000_000))
    old.segment()
    assert restored(old.replica) == old.image
    assert restored(old.replica, at=after(time)) == image
    # Without the older snapshot there is none that can serve.
    snapshots(old)[0].unlink()
    error = refusal(old.replica, at=after(time))
    assert isinstance(error, NotRestorableError) and error.kind == "time"
    assert isinstance(error.earliest, datetime)
    assert restored(old.replica, at=error.earliest) == old.image


def test_snapshot_that_is_not_ahead_serves_in_the_middle_of_its_wal(
    old: OldReplica, caplog: pytest.LogCaptureFixture
) -> None:
    """What came later is looked at, and is not in it."""
    old.commit(INSERT.format(100))
    old.checkpoint()
    old.commit(INSERT.format(200))
    old.snapshot()
    old.segment()
    time, image = old.states[-1]
    old.commit(INSERT.format(3000), "UPDATE t SET v = randomblob(100)")
    old.segment()
    assert restored(old.replica, at=after(time)) == image
    assert caplog.records == [] or all(
        record.levelno < logging.WARNING for record in caplog.records
    )


def test_gap_behind_the_time_does_not_matter(old: OldReplica) -> None:
    """What is missing later tells nothing of the time before."""
    old.snapshot()
    old.segment()
    time, image = old.states[-1]
    for _ in range(3):
        old.commit(INSERT.format(300))
        old.segment()
    segments(old)[2].unlink()
    assert restored(old.replica, at=after(time)) == image


# -- a replica that changes ----------------------------------------------------------------


def test_files_that_retention_deletes_meanwhile_are_done_without(
    old: OldReplica,
) -> None:
    """A new snapshot takes the place of what is gone; the newest state is restored."""
    fill(old)
    store = WatchedStore.open(old.replica)
    assert isinstance(store, WatchedStore)
    done = []

    def prune(file: GenerationFile) -> None:
        if not done and file.offset is None:
            done.append(file)
            old.commit(INSERT.format(60))
            old.checkpoint()
            old.commit(INSERT.format(70))
            old.snapshot()
            old.segment()
            for path in (*snapshots(old)[:-1], *segments(old)[:-1]):
                path.unlink()

    store.before_get = prune
    assert restored(store) == old.image
    assert done


def test_file_that_is_listed_but_never_there_ends_after_retries(
    old: OldReplica, tmp_path: Path
) -> None:
    """A listing that lies for ever is not believed for ever."""
    fill(old)
    store = WatchedStore.open(old.replica)
    assert isinstance(store, WatchedStore)
    asked = []

    def deny(file: GenerationFile) -> None:
        if file.offset is None:
            asked.append(file)
            raise StoreError("gone", operation="get", transient=False, kind="missing")

    store.before_get = deny
    with pytest.raises(StoreError, match="gone"):
        restore(store, tmp_path / "a.db")
    assert len(asked) == 4
