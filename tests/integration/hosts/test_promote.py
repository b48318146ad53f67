"""A Follower becomes the one that writes: it has the lease, and nobody else can go on."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from support.hosts import HostProcess, Place, begin, stored
from support.recording import Recording
from support.workers import Refused, until

from sqlitereplica import (
    AnotherWriterError,
    Encryption,
    EncryptionError,
    Follower,
    FollowTimeoutError,
    LeaseHeldError,
    Replica,
    Replicator,
    TargetExistsError,
)
from sqlitereplica.events import Event
from sqlitereplica.ltx import Header
from sqlitereplica.replicate import fence as fences
from sqlitereplica.replicate.leasing import Leasing
from sqlitereplica.store import LTXStore

LEASE = {"lease": 15}
only_folder = pytest.mark.parametrize("kind", ["folder"], indirect=True, scope="module")


def holder_told(host: HostProcess) -> str:
    """Who keeps a host from being promoted; it may take a while to find out."""

    def holder() -> str:
        with pytest.raises(Refused) as refused:
            host("promote", 1)
        assert refused.value.answer["error"] == "LeaseHeldError"
        return str(refused.value.answer["data"]["holder"])

    return str(until(holder))


def test_living_holder_is_left_alone_and_followed_by_the_promoted_file(
    tmp_path: Path, place: Place
) -> None:
    """The promoted one has the lease without a gap, whoever else wants it."""
    old = HostProcess(tmp_path / "old", place, **LEASE)
    new = HostProcess(tmp_path / "new", place, **LEASE)
    third = HostProcess(tmp_path / "third", place, **LEASE)
    with old, new, third:
        begin(old, 1)
        new("follow")
        third("follow")
        assert holder_told(new).startswith("old:")
        old("write", 2)
        old("sync")
        assert new("follow")["state"] == "following"
        old("write", 3)  # flushed by its stop
        old("stop")
        assert new("promote", 60, 15)["state"] == "promoted"
        assert holder_told(third).startswith("new:")
        new("start")
        new("open")
        assert new("values") == [1, 2, 3]
        new("write", 4)
        new("sync")
        assert new("status")["lease"]["epoch"] == 3  # old, promote, Replicator
        new("stop")
        with pytest.raises(Refused) as refused:
            old("start")
        assert refused.value.answer["error"] == "DivergedError"
    assert stored(place, tmp_path) == [1, 2, 3, 4]


def test_writer_without_a_lease_that_wakes_up_is_fenced_off(
    tmp_path: Path, place: Place
) -> None:
    """SIGSTOP, promote, SIGCONT: the next sync raises, nothing of it is put."""
    old = HostProcess(tmp_path / "old", place)
    new = HostProcess(tmp_path / "new", place, **LEASE)
    with old, new:
        begin(old, 1)
        old("write", 666)
        old.kill(signal.SIGSTOP)
        new("follow")
        new("promote", 60)
        old.kill(signal.SIGCONT)
        with pytest.raises(Refused) as refused:
            old("sync")
        assert refused.value.answer["error"] == "AnotherWriterError"
        new("start")
        new("open")
        new("write", 2)
        new("sync")
        new("stop")
    assert stored(place, tmp_path) == [1, 2]


@only_folder
def test_killed_holder_is_waited_for_as_long_as_it_may_live(
    tmp_path: Path, place: Place
) -> None:
    """For its TTL; then the lease is free."""
    old = HostProcess(tmp_path / "old", place, lease=5)
    new = HostProcess(tmp_path / "new", place, **LEASE)
    with old, new:
        begin(old, 1)
        new("follow")
        old.kill()
        with pytest.raises(Refused) as refused:
            new("promote", 0.5)
        assert refused.value.answer["error"] == "LeaseHeldError"
        new("promote", 60)
        new("start")
        new("open")
        new("write", 2)
        new("sync")
        new("stop")
    assert stored(place, tmp_path) == [1, 2]


@pytest.fixture
def recorded(tmp_path: Path) -> LTXStore:
    """A replica of one table."""
    made = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    made.commit("create table t(v integer primary key)", "insert into t values(1)")
    made.close()
    return made.store


def leasing(store: LTXStore, database: Path, node: int) -> Leasing:
    """Another host."""
    return Leasing(
        store.lease_object,
        replica=store.name,
        database=str(database),
        node=node,
        ttl=3600,
        observer=lambda event: None,
        host="another",
    )


def test_promotion_that_fails_gives_the_lease_back_and_follows_on(
    recorded: LTXStore, tmp_path: Path
) -> None:
    """A replica that is away in the middle of it; another host need not wait then."""
    copy, level0, told = tmp_path / "f.db", tmp_path / "r" / "ltx" / "0", list[Event]()
    with Follower(
        tmp_path / "r", copy, interval=0.01, observer=told.append
    ) as follower:
        follower.wait()
        shutil.move(level0, tmp_path / "away")
        with pytest.raises(FollowTimeoutError):
            follower.promote(timeout=0.5)
        shutil.move(tmp_path / "away", level0)
        other = leasing(recorded, copy, 7)
        other.begin()
        assert other.held.wait(60)
        with pytest.raises(LeaseHeldError, match="another:"):
            follower.promote(timeout=0.2)
        other.end(30)
        for _ in range(3):  # each is a look of its own
            follower.wait()
        kinds = [getattr(event.error, "kind", "") for event in told]
        assert "lease-unconfirmed" not in kinds, "it does not try on in the background"
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("pragma journal_mode").fetchone() == ("delete",)
        assert follower.promote().state == "promoted"


def test_file_is_not_given_away_when_another_has_written_behind_the_fence(
    recorded: LTXStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not be the newest state; the next promotion takes in what is there."""
    real, copy = fences.Fence.put, tmp_path / "f.db"

    def put(fence: fences.Fence, held: Any, page: bytes) -> None:
        real(fence, held, page)
        node, fence.node, txid = fence.node, 7, fence._txid
        real(fence, _after(held), page)
        fence.node, fence._txid = node, txid

    with Follower(tmp_path / "r", copy, interval=0.01) as follower:
        with monkeypatch.context() as patched:
            patched.setattr(fences.Fence, "put", put)
            with pytest.raises(AnotherWriterError):
                follower.promote()
        assert follower.wait().txid == 3
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("pragma journal_mode").fetchone() == ("delete",)
        assert follower.promote().txid == 4


def _after(held: Any) -> Any:
    from dataclasses import replace

    return replace(held, txid=held.txid + 1, timestamp=held.timestamp + 10_000)


def test_store_that_holds_no_lease_is_named_and_the_fence_is_put(
    recorded: LTXStore, tmp_path: Path
) -> None:
    """A filesystem that only looks before it writes."""
    replica = Replica(DirFileSystem(tmp_path / "r", LocalFileSystem()), path="/")
    told = list[str]()
    follower = Follower(
        replica, tmp_path / "f.db", observer=lambda event: told.append(event.action)
    )
    follower.start()
    assert follower.promote().txid == 2
    assert "lease-unsupported" in told and "follow-promoted" in told
    assert not (tmp_path / "r" / "lock").exists()


def test_promotion_without_a_lease_writes_nothing_to_the_replica(
    recorded: LTXStore, tmp_path: Path
) -> None:
    """As for a replica that may only be read, or a database that shall go elsewhere."""
    with Follower(tmp_path / "r", tmp_path / "f.db") as follower:
        assert follower.promote(lease=False).txid == 1
    assert [file.name for file in (tmp_path / "r").rglob("*") if file.is_file()] == [
        "0000000000000001-0000000000000001.ltx"
    ]


def test_replica_that_cannot_be_written_to_is_told_at_once(tmp_path: Path) -> None:
    """An encrypted one, by who has only an old key: nothing is done, nobody waits."""
    keys = [Encryption.new_key() for _ in range(2)]
    writer = Replica(tmp_path / "r", encryption=Encryption(key=keys[0]))
    made = Recording(tmp_path / "s.db", writer.open())
    made.commit("create table t(v integer primary key)")
    made.close()
    reader = Replica(tmp_path / "r", encryption=Encryption(old_keys=[keys[0]]))
    with Follower(reader, tmp_path / "f.db", interval=0.01) as follower:
        with pytest.raises(EncryptionError) as caught:
            follower.promote(timeout=None)
        assert caught.value.kind == "no-recipient"
        assert follower.wait().ok
        assert follower.promote(lease=False).state == "promoted"


def test_what_was_given_away_already_is_promoted_again_unless_it_was_written_to(
    recorded: LTXStore, tmp_path: Path
) -> None:
    """As after a process that was killed before it could say so."""
    replica, copy = tmp_path / "r", tmp_path / "f.db"
    for mode in ("wal", "delete", "wal"):
        with Follower(replica, copy) as follower:
            assert follower.promote().txid == 2
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("pragma journal_mode").fetchone() == ("wal",)
            db.execute(f"pragma journal_mode={mode}")
    with closing(sqlite3.connect(copy)) as db:
        db.execute("insert into t values(2)")
        db.commit()
        with Follower(replica, copy) as follower, pytest.raises(TargetExistsError):
            follower.promote()
    with Follower(replica, copy) as follower, pytest.raises(TargetExistsError):
        follower.promote()
    with Replicator(copy, replica, lease=True) as replicator:
        replicator.sync()
    store = LTXStore.open(replica)
    headers = [
        Header.unpack(store.get(file, 0, 100)) for file in store.list_level(0)[1:]
    ]
    assert len({header.node_id for header in headers}) == 1
    assert headers[1].pre_checksum == headers[0].post_checksum
