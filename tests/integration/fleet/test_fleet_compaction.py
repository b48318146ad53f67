"""Compaction without the database, also beside a Replicator that is alive."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.capturing import make_database
from support.fleets import damage, history, image, members, plant
from support.lifetime import write

from sqlitereplica import (
    Encryption,
    EncryptionError,
    InvalidFileError,
    Lease,
    LeaseHeldError,
    Replica,
    Replicator,
    Retention,
    ltx,
    restore,
    verify,
)
from sqlitereplica.fleet import CompactReport, compact_all, compact_replica
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The application's connection."""
    with closing(make_database(tmp_path / "app.db")) as connection:
        yield connection


def names(replica: Replica | Path) -> set[tuple[int, int, int]]:
    """The files of a replica."""
    where = replica if isinstance(replica, Replica) else Replica(replica)
    return {(f.level, f.min_txid, f.max_txid) for f in where.open().list_all()}


def test_every_level_is_made_of_the_one_below_and_nothing_is_deleted(
    tmp_path: Path,
) -> None:
    """Every state stays, and doing it again makes nothing."""
    replica = plant(Replica(tmp_path / "r"))
    before = names(replica)
    report = compact_replica(replica)
    after = names(replica)
    # The first file is a full image: it becomes a snapshot, and levels go on behind it.
    made = {(1, 2, 5), (2, 2, 5), (3, 2, 5), (9, 1, 1)}
    assert after == before | made
    assert (report.files, report.merged, report.deleted) == (4, 6, 0)
    assert report.total_bytes > 0 and b'"files":4' in report.to_json()
    assert compact_replica(replica).files == 0 and names(replica) == after
    assert verify(replica).ok
    for txid in range(1, 6):
        restore(replica, tmp_path / f"{txid}.db", txid=txid)
        assert (tmp_path / f"{txid}.db").read_bytes() == image(txid)


def test_many_are_compacted_and_one_that_is_damaged_is_told(tmp_path: Path) -> None:
    """With the file that is; nothing was made of it."""
    replicas = members(tmp_path, 3)
    damage(tmp_path / "db-1", 4)
    found = {o.replica.display_name[-1]: o for o in compact_all(replicas, levels=1)}
    assert [found[n].ok for n in "012"] == [True, False, True]
    error = found["1"].error
    assert isinstance(error, InvalidFileError)
    assert f"{4:016x}" in str(error) and error.__cause__ is not None
    assert not {f for f in names(replicas[1]) if f[0] == 1}
    assert (1, 2, 5) in names(replicas[0])


def test_encrypted_replica_is_compacted_with_its_key_only(tmp_path: Path) -> None:
    """What only writes cannot."""
    identity = Encryption.new_identity()
    reader = Encryption(identities=[identity])
    writer = Encryption(recipients=[Encryption.recipient(identity)])
    plant(Replica(tmp_path / "r", encryption=reader))
    with pytest.raises(EncryptionError) as caught:
        compact_replica(Replica(tmp_path / "r", encryption=writer))
    assert caught.value.kind == "no-key"
    sealed = Replica(tmp_path / "r", encryption=reader)
    assert compact_replica(sealed).files == 4
    assert verify(sealed).ok


def test_retention_deletes_only_when_asked_for(tmp_path: Path) -> None:
    """By the times in the files; a pin keeps its state."""
    replica = plant(Replica(tmp_path / "r"))
    replica.pin("keep", txid=3)
    report = compact_replica(replica, retention=Retention(window=0, fine=0))
    left = names(replica)
    assert report.deleted > 0 and report.deleted_bytes > 0
    assert not {(0, 2, 2), (0, 4, 4)} <= left
    found = verify(replica)
    assert found.latest_ok and not found.lost_pins
    for txid in (3, 5):
        restore(replica, tmp_path / f"{txid}.db", txid=txid)
        assert (tmp_path / f"{txid}.db").read_bytes() == image(txid)
    kept = plant(Replica(tmp_path / "all"))
    assert compact_replica(kept, retention=Retention(delete=False)).deleted == 0


def test_retention_goes_by_the_times_in_the_files(tmp_path: Path) -> None:
    """Those of the store are of a copy, perhaps: it looks older, or younger, than it is."""
    replica = plant(Replica(tmp_path / "r"))
    compact_replica(replica)
    for path in tmp_path.rglob("*.ltx"):
        os.utime(path, (1, 1))

    def states() -> int:
        return sum(found.states for found in verify(replica).ranges)

    compact_replica(replica, retention=Retention(window="20000d", fine="20000d"))
    assert states() == 5
    for path in tmp_path.rglob("*.ltx"):
        os.utime(path)
    compact_replica(replica, retention=Retention(window="1d"))
    assert states() < 5


# -- beside others ------------------------------------------------------------------------


def test_replicator_that_is_alive_goes_on_as_before(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Whoever merges what: nothing fails, and every state can be restored."""
    replica = Replica(tmp_path / "r")
    images: dict[int, str] = {}
    path = str(tmp_path / "app.db")

    def commit(replicator: Replicator) -> None:
        write(db)
        replicator.sync()
        images[replicator.status().txid] = "\n".join(db.iterdump())

    with Replicator(path, replica, levels=("1h", "2h")) as replicator:
        for turn in range(4):
            for _ in range(3):
                commit(replicator)
            compact_replica(replica, levels=2)
            commit(replicator)
            if turn % 2:
                replicator.compact()
            assert replicator.status().ok
    assert verify(replica, "restore").ok
    overlapping = {f for f in names(replica) if f[0] == 1}
    assert len(overlapping) > 2
    for txid, dump in images.items():
        out = tmp_path / "out.db"
        restore(replica, out, txid=txid, if_exists="replace")
        with closing(sqlite3.connect(out)) as copy:
            assert "\n".join(copy.iterdump()) == dump
    with Replicator(path, replica, levels=("1h", "2h")) as replicator:
        commit(replicator)
        replicator.compact()
        assert replicator.status().ok
    assert verify(replica).ok


def test_two_that_merge_the_same_make_the_same(tmp_path: Path) -> None:
    """Both succeed, and what the first stored is what is there."""
    replica = plant(Replica(tmp_path / "r"))
    barrier = threading.Barrier(2)
    reports: list[CompactReport | BaseException] = []

    def work() -> None:
        barrier.wait()
        try:
            reports.append(compact_replica(replica))
        except BaseException as error:  # noqa: BLE001
            reports.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(report, CompactReport) for report in reports), reports
    assert verify(replica).ok and (3, 2, 5) in names(replica)


def test_what_another_made_of_the_same_files_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes under a name of ours, put just before we do: theirs are gone on from."""
    replica = plant(Replica(tmp_path / "r"))
    theirs = _at_another_time(history().file(2, 5))
    original, stored = LTXStore.put, list[bytes]()

    def put(store: LTXStore, *args: Any, **more: Any) -> FileInfo:
        if args[0] == 1 and not stored:
            stored.append(theirs)
            original(replica.open(), 1, 2, 5, theirs, **more)
        return original(store, *args, **more)

    monkeypatch.setattr(LTXStore, "put", put)
    compact_replica(replica)
    (path,) = (tmp_path / "r" / "ltx" / "1").iterdir()
    assert stored and path.read_bytes() == theirs
    assert {(2, 2, 5), (3, 2, 5)} <= names(replica) and verify(replica).ok


def _at_another_time(data: bytes) -> bytes:
    """A file of the same pages: other bytes, as another program may make them."""
    header, pages = ltx.decode(data)
    return ltx.encode(replace(header, timestamp=header.timestamp + 1), pages)


def test_inputs_that_retention_of_another_deletes_are_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica is looked at again, and what is there is merged."""
    replica = plant(Replica(tmp_path / "r"))
    compact_replica(replica, levels=1)
    store = replica.open()
    level0 = store.list_level(0)
    for file in store.list_level(1):
        store.delete([file])
    original, gone = LTXStore.get, list[str]()

    def get(self: LTXStore, info: FileInfo, *span: int) -> bytes:
        if not gone and info.min_txid == 4:
            gone.append(info.name)
            replica.open().delete([f for f in level0 if f.min_txid >= 4])
        return original(self, info, *span)

    monkeypatch.setattr(LTXStore, "get", get)
    compact_replica(replica)
    assert gone and (1, 2, 3) in names(replica)
    assert verify(replica).latest_txid == 3


def test_holder_of_a_lease_is_left_alone(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    """It compacts by itself. What was given back is anybody's."""
    replica = Replica(tmp_path / "r")
    with Replicator(
        str(tmp_path / "app.db"), replica, lease=Lease(), levels=("1h",)
    ) as replicator:
        write(db)
        replicator.sync()
        write(db)
        replicator.sync()
        with pytest.raises(LeaseHeldError, match="even_if_held") as caught:
            compact_replica(replica)
        assert caught.value.holder and caught.value.epoch == 1
        assert not {f for f in names(replica) if f[0] == 1}
        assert compact_replica(replica, even_if_held=True).files > 0
        write(db)
        replicator.sync()
        assert replicator.status().ok
    assert compact_replica(replica).files > 0
    assert verify(replica).ok
