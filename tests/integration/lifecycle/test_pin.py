"""``Replicator.pin``: the state that a sync made durable, in every replica or in none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import unusable, write
from support.switchable import SwitchableFileSystem

from sqlitereplica import (
    NotRestorableError,
    PinExistsError,
    Replica,
    Replicator,
    ReplicatorClosedError,
    StoreError,
    SyncTimeoutError,
    restore,
)
from sqlitereplica.store import LTXStore, pinned_txids


class PinlessFileSystem(SwitchableFileSystem):
    """A store in memory that can be told to take no pins, or to let go of none."""

    takes = lets_go = True

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        """Write, unless it is a pin."""
        if not self.takes and "/pins/" in path:
            raise PermissionError(path)
        super().pipe_file(path, value, mode)

    def rm_file(self, path: str) -> None:
        """Delete, unless it is a pin."""
        if not self.lets_go and "/pins/" in path:
            raise PermissionError(path)
        super().rm_file(path)


def digest_of(replica: Path | Replica, name: str, out: Path) -> bytes:
    """The database as a pin keeps it."""
    restore(replica, out, at=name, if_exists="replace")
    return out.read_bytes()


def test_pin_keeps_what_was_committed_before_in_every_replica(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Each by its own number: one of them has a longer history than the other."""
    one, two = Replica(tmp_path / "one"), Replica(tmp_path / "two")
    with Replicator(path, [one], sync_interval=3600) as replicator:
        for _ in range(3):
            write(db)
            replicator.sync()
    with Replicator(path, [one, two], sync_interval=3600) as replicator:
        write(db)
        before = serialized(path)
        pins = replicator.pin("before-migration")
        db.execute("drop table t")
        replicator.sync()
    assert [pin.name for pin in pins] == ["before-migration"] * 2
    assert pins[0].txid > pins[1].txid
    for replica, pin in zip((one, two), pins, strict=True):
        assert replica.pins() == [pin]
        assert digest_of(replica, "before-migration", tmp_path / "r.db") == before


def test_pin_of_a_state_that_is_pinned_already_changes_nothing(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """An idle database may be pinned twice; a changed one needs another name."""
    with Replicator(path, replica) as replicator:
        write(db)
        first = replicator.pin("x")
        assert replicator.pin("x") == first
        write(db)
        with pytest.raises(PinExistsError):
            replicator.pin("x")
    assert pinned_txids(LTXStore.open(replica)) == {first[0].txid}


def test_pin_that_fails_in_one_replica_is_taken_away_in_the_others(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """So that it can be tried again under the same name."""
    fs = PinlessFileSystem()
    replicas = [Replica(replica), Replica(fs, path="/r", name="memory")]
    with Replicator(path, replicas, sync_interval=3600) as replicator:
        write(db)
        fs.takes = False
        with pytest.raises(StoreError) as caught:
            replicator.pin("x")
        assert caught.value.__notes__[0] == "in switchable:///r"
        assert replicas[0].pins() == []
        fs.takes = True
        write(db)
        assert len(replicator.pin("x")) == 2


def test_pin_that_cannot_be_taken_away_again_is_told(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """The error of the pin that failed has a note on it."""
    keeping, refusing = PinlessFileSystem(), PinlessFileSystem()
    keeping.lets_go = refusing.takes = False
    replicas = [Replica(keeping, path="/r"), Replica(refusing, path="/s")]
    with Replicator(path, replicas, sync_interval=3600) as replicator:
        write(db)
        with pytest.raises(StoreError) as caught:
            replicator.pin("x")
    assert [pin.name for pin in replicas[0].pins()] == ["x"]
    assert "switchable:///r keeps the pin 'x'" in caught.value.__notes__[1]


def test_pin_that_was_there_before_stays_when_another_fails(
    path: Path, db: sqlite3.Connection, replica: Path
) -> None:
    """Only what this call has made is undone."""
    fs = PinlessFileSystem()
    replicas = [Replica(replica), Replica(fs, path="/r")]
    with Replicator(path, replicas, sync_interval=3600) as replicator:
        write(db)
        first = replicator.pin("x")[0]
        replicas[1].unpin("x")
        fs.takes = False
        with pytest.raises(StoreError):
            replicator.pin("x")
    assert replicas[0].pins() == [first]


def test_all_failures_of_a_pin_are_told(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """The first is raised, notes on it name the others."""
    replicas = [Replica(tmp_path / name) for name in "abc"]
    with Replicator(path, replicas, sync_interval=3600) as replicator:
        write(db)
        replicator.pin("x")
        replicas[1].unpin("x")
        write(db)
        with pytest.raises(PinExistsError) as caught:
            replicator.pin("x")
    assert [len(replica.pins()) for replica in replicas] == [1, 0, 1]
    assert caught.value.__notes__[0] == f"in {tmp_path / 'a'}"
    assert f"{tmp_path / 'c'}: the pin 'x' keeps" in caught.value.__notes__[1]


def test_pin_raises_what_sync_raises(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Nothing is pinned that is not durable."""
    good = Replica(tmp_path / "good")
    replicator = Replicator(path, [good, unusable(tmp_path)], stop_timeout=0.1)
    replicator.start()
    write(db)
    with pytest.raises((StoreError, SyncTimeoutError)):
        replicator.pin("x", timeout=0.5)
    assert good.pins() == []
    with pytest.raises((StoreError, SyncTimeoutError)):
        replicator.stop()


def test_name_that_cannot_be_one_is_refused_at_once(path: Path, replica: Path) -> None:
    """Before anything is uploaded, and whether it runs or not."""
    replicator = Replicator(path, replica)
    with pytest.raises(ValueError, match="cannot be the name"):
        replicator.pin("2026-01-31")
    with pytest.raises(ReplicatorClosedError):
        replicator.pin("x")


def test_database_that_does_not_exist_cannot_be_pinned(
    path: Path, tmp_path: Path, replica: Path
) -> None:
    """Not even if the replica holds an older one: that is not its state."""
    older = make_database(tmp_path / "older.db")
    with Replicator(tmp_path / "older.db", replica):
        pass
    older.close()
    with Replicator(path, replica) as replicator:
        with pytest.raises(NotRestorableError, match="no database yet") as caught:
            replicator.pin("x")
        assert caught.value.kind == "empty"
    assert Replica(replica).pins() == []
