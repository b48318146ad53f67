"""Replicas with the files of Litestream 0.3, with LTX files, or with both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.oldreplica import START as OLD_START
from support.oldreplica import OldReplica
from support.recording import START, Recording

from sqlitereplica import Replica, restore
from sqlitereplica.errors import InvalidFileError, NotRestorableError, StoreError
from sqlitereplica.store import LTXStore
from sqlitereplica.store.reach import to_datetime

MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[OldReplica]:
    """An old replica with a snapshot and three segments."""
    made = OldReplica(tmp_path)
    made.snapshot()
    for size in (10, 2000, 9000):
        made.commit(f"INSERT INTO t(v) VALUES (randomblob({size}))")
        made.segment()
    yield made
    made.close()


def shift(old: OldReplica, seconds: int) -> None:
    """Give the files of an old replica times as if it had been written later."""
    for path in old.replica.rglob("*.lz4"):
        time = path.stat().st_mtime_ns + seconds * 10**9
        os.utime(path, ns=(time, time))
    old.states = [(time + seconds * 1000, image) for time, image in old.states]


@pytest.fixture
def ltx(tmp_path: Path, old: OldReplica) -> Iterator[Recording]:
    """LTX files in the same place, of transactions 1 to 3, a second each."""
    made = Recording(tmp_path / "new.db", LTXStore.open(old.replica))
    made.commit("CREATE TABLE u(v)")
    made.commit("INSERT INTO u VALUES (1)")
    made.commit("INSERT INTO u VALUES (2)")
    for path in old.replica.rglob("*.ltx"):
        assert path.stat().st_mtime_ns >= START * 1_000_000
    yield made
    made.close()


def restored(old: OldReplica, **wanted: Any) -> bytes:
    """What is restored from the place of an old replica."""
    target = old.replica.parent / "restored.db"
    restore(old.replica, target, if_exists="replace", **wanted)
    return target.read_bytes()


def refusal(source: Any, path: Path, **wanted: Any) -> NotRestorableError:
    """The error of a restore."""
    with pytest.raises(NotRestorableError) as caught:
        restore(source, path / "refused.db", **wanted)
    return caught.value


# -- only the old one --------------------------------------------------------------------


def test_transaction_cannot_be_asked_of_the_old_layout(
    old: OldReplica, tmp_path: Path
) -> None:
    """The error says why, and between what times there are states."""
    error = refusal(old.replica, tmp_path, txid=2)
    assert error.kind == "txid" and "Litestream 0.3" in str(error)
    for bound, number in ((error.earliest, 1), (error.latest, -1)):
        assert restored(old, at=bound) == old.states[number][1]


def test_pin_cannot_be_asked_of_the_old_layout(old: OldReplica, tmp_path: Path) -> None:
    """It has none; the latest state is not what was asked for."""
    assert refusal(old.replica, tmp_path, at="before-migration").kind == "pin"


def test_time_before_the_first_snapshot_names_the_bounds(
    old: OldReplica, tmp_path: Path
) -> None:
    """And both can be asked for."""
    error = refusal(old.replica, tmp_path, at=to_datetime(OLD_START))
    assert error.kind == "time"
    assert restored(old, at=error.earliest) == old.states[1][1]
    assert restored(old, at=error.latest) == old.states[-1][1]


def test_missing_backup_is_skipped_only_if_there_is_nothing(
    old: OldReplica, tmp_path: Path
) -> None:
    """An old replica is a backup, whatever is asked of it."""
    assert restored(old, missing="skip") == old.image
    assert refusal(old.replica, tmp_path, txid=1, missing="skip").kind == "txid"
    nothing = restore(tmp_path / "nothing", tmp_path / "x.db", missing="skip")
    assert nothing.reason == "missing"


def test_existing_database_is_kept(old: OldReplica, tmp_path: Path) -> None:
    """The target is treated as for any replica."""
    (tmp_path / "a.db").write_bytes(b"mine")
    assert restore(old.replica, tmp_path / "a.db", if_exists="skip").reason == "exists"
    assert (tmp_path / "a.db").read_bytes() == b"mine"


def test_restored_database_is_checked_by_sqlite(
    old: OldReplica, tmp_path: Path
) -> None:
    """What its checksums cannot tell, such as a lost end of a WAL, SQLite may."""
    old.commit("CREATE INDEX i ON t(v)")
    old.checkpoint()
    old.commit("INSERT INTO t(v) VALUES (randomblob(5000))")
    old.segment()
    lost = max(old.replica.rglob("00000000_*.wal.lz4"))
    lost.unlink()
    with pytest.raises(InvalidFileError) as caught:
        restore(old.replica, tmp_path / "a.db", verify="full")
    assert caught.value.kind == "integrity"
    assert not (tmp_path / "a.db").exists()


# -- both ----------------------------------------------------------------------------------


def test_layout_written_to_last_is_restored(old: OldReplica, ltx: Recording) -> None:
    """After an upgrade the new one, after a downgrade the old one again."""
    assert restored(old) == ltx.images[3]
    shift(old, (START - OLD_START) // 1000 + 100)
    assert restored(old) == old.image


def test_time_is_looked_up_in_the_layout_of_that_time(
    old: OldReplica, ltx: Recording
) -> None:
    """History goes on over the change of layouts, in either direction."""
    for time, image in old.states[1:]:
        assert restored(old, at=to_datetime(time) + MILLISECOND) == image
    for txid in (1, 2, 3):
        moment = to_datetime(START + txid * 1000)
        assert restored(old, at=moment + MILLISECOND) == ltx.images[txid]
    assert restored(old, at=to_datetime(START + 1000)) == old.image
    shift(old, (START - OLD_START) // 1000 + 100)
    assert restored(old, at=to_datetime(START + 4000)) == ltx.images[3]
    last, _ = old.states[-1]
    assert restored(old, at=to_datetime(last)) == old.states[-2][1]


def test_time_before_both_names_the_bounds_of_both(
    old: OldReplica, ltx: Recording, tmp_path: Path
) -> None:
    """The earliest is of one layout, the latest of the other."""
    error = refusal(old.replica, tmp_path, at="2001-01-01T00:00:00Z")
    assert error.kind == "time"
    assert restored(old, at=error.earliest) == old.states[1][1]
    assert restored(old, at=error.latest) == ltx.images[3]


def test_layout_without_a_whole_state_leaves_the_other(
    old: OldReplica, ltx: Recording
) -> None:
    """A time behind the first LTX files, but before a whole database among them."""
    ltx.store.delete([file for file in ltx.store.list_all() if file.max_txid == 1])
    ltx.publish(9, 1, 3)
    assert restored(old, at=to_datetime(START + 2500)) == old.image


def test_gap_in_the_newer_layout_is_not_passed_over(
    old: OldReplica, ltx: Recording, tmp_path: Path
) -> None:
    """What the other one has is older: that has to be asked for."""
    ltx.store.delete([file for file in ltx.store.list_all() if file.max_txid == 2])
    assert refusal(old.replica, tmp_path).kind == "gap"
    ltx.publish(0, 2, 2)
    shift(old, (START - OLD_START) // 1000 + 100)
    sorted(old.replica.rglob("*.wal.lz4"))[1].unlink()
    assert refusal(old.replica, tmp_path).kind == "gap"


def test_transactions_are_those_of_the_ltx_files(
    old: OldReplica, ltx: Recording, tmp_path: Path
) -> None:
    """The old files do not matter then, and are not asked for."""
    store = LTXStore.open(old.replica)
    restore(store, tmp_path / "a.db", txid=2)
    assert (tmp_path / "a.db").read_bytes() == ltx.images[2]
    assert store.requests["list"] == 1


# -- several replicas ------------------------------------------------------------------------


def test_newest_of_an_old_and_a_new_replica_is_used(
    old: OldReplica, tmp_path: Path
) -> None:
    """Whichever layout it has."""
    made = Recording(tmp_path / "new.db", LTXStore.open(tmp_path / "new"))
    made.commit("CREATE TABLE u(v)")
    sources = [str(old.replica), str(tmp_path / "new")]
    result = restore(sources, tmp_path / "1.db")
    assert (result.source, result.txid) == (sources[1], 1)
    shift(old, (START - OLD_START) // 1000 + 100)
    result = restore(sources, tmp_path / "2.db")
    assert (result.source, result.txid) == (sources[0], None)
    result = restore(sources, tmp_path / "3.db", txid=1)
    assert result.source == sources[1]
    made.close()


def test_damaged_old_replica_leaves_the_other(old: OldReplica, tmp_path: Path) -> None:
    """As any replica that fails."""
    made = Recording(tmp_path / "new.db", LTXStore.open(tmp_path / "new"))
    made.commit("CREATE TABLE u(v)")
    shift(old, (START - OLD_START) // 1000 + 100)
    sorted(old.replica.rglob("*.wal.lz4"))[1].write_bytes(b"nonsense")
    sources = [str(old.replica), str(tmp_path / "new")]
    assert restore(sources, tmp_path / "a.db").source == sources[1]
    made.close()


# -- stores that are not local ---------------------------------------------------------------


def copied(old: OldReplica, fs: MemoryFileSystem) -> Replica:
    """The old replica in a memory of its own, whose times are those of the copy."""
    for path in sorted(old.replica.rglob("*.lz4")):
        fs.pipe_file(f"/r/{path.relative_to(old.replica)}", path.read_bytes())
    return Replica(fs, path="/r")


def test_old_replica_on_any_filesystem_is_restored(
    old: OldReplica, tmp_path: Path
) -> None:
    """Litestream 0.5 does that in folders and on S3."""
    fs = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    result = restore(copied(old, fs), tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == old.image
    assert isinstance(result.timestamp, datetime)


class Timeless(MemoryFileSystem):
    """A filesystem that does not tell when a file was written."""

    protocol = "timeless"

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        """A listing without times."""
        entries = super().ls(path, detail=True, **kwargs)
        for entry in entries:
            entry.pop("created", None)
        return entries if detail else [entry["name"] for entry in entries]


def test_without_times_only_the_latest_state_can_be_had(
    old: OldReplica, tmp_path: Path
) -> None:
    """A guess might be later than the time asked for."""
    fs = Timeless(global_store=False, skip_instance_cache=True)
    replica = copied(old, fs)
    restore(replica, tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == old.image
    error = refusal(replica, tmp_path, at="1 minute ago")
    assert error.kind == "time" and "does not tell" in str(error)


def test_store_that_cannot_list_the_old_files_is_an_error(
    old: OldReplica, ltx: Recording, tmp_path: Path
) -> None:
    """They might be the newer ones."""
    generations = old.replica / "generations"
    generations.rename(tmp_path / "away")
    generations.write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory"):
        restore(old.replica, tmp_path / "a.db")
