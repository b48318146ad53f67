"""How the turn of a host comes: late puts, slow uploads, many workers, stores that are away."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.capturing import make_database
from support.hosts import HostProcess, Place, stored
from support.leased import LeasedHost
from support.stepping import FakeClock
from support.switchable import SwitchableFileSystem
from support.told import LateStore, level0
from support.workers import until

from sqlitereplica import (
    AnotherWriterError,
    DatabaseStateError,
    Lease,
    LeaseHeldError,
    Replica,
    Replicator,
    verify,
)
from sqlitereplica.ltx import FileInfo, Header
from sqlitereplica.replicate.metafolder import MetaFolder, default_folder
from sqlitereplica.restore.following import Following
from sqlitereplica.store import LTXStore


@pytest.fixture
def one(tmp_path: Path) -> Iterator[LeasedHost]:
    """A host that has released the lease while a put of it is still on its way."""
    store = LateStore.open(tmp_path / "replica")
    host = LeasedHost(tmp_path / "one", store, FakeClock(), node=100)
    host.make()
    assert host.contend()
    host.replicate()
    host.commit(1)
    assert host.sync() is None
    store.delays = True
    host.commit(2)
    assert host.sync() == "waits"
    host.leasing.end(0.0)
    host.leasing._run()
    assert host.leasing.status().state == "released"
    yield host
    host.close()


def values(path: Path) -> list[int]:
    """What a database has."""
    db = sqlite3.connect(path)
    try:
        return [v for (v,) in db.execute("select v from t order by id")]
    finally:
        db.close()


def nodes(store: LTXStore) -> list[int]:
    """Who wrote the level-0 files."""
    return [Header.unpack(store.get(info, 0, 100)).node_id for info in level0(store)]


def test_late_put_that_comes_before_the_fence_of_a_standby_is_taken_in(
    one: LeasedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is part of the history then, and the standby goes on from it."""
    store = one.store
    assert isinstance(store, LateStore)
    real = LTXStore.put

    def put(self: LTXStore, *arguments: Any, **options: Any) -> FileInfo:
        if store.late is not None and self is not store:
            store.arrive()
        return real(self, *arguments, **options)

    monkeypatch.setattr(LTXStore, "put", put)
    path = tmp_path / "two" / "app.db"
    told = []
    with Replicator(
        path,
        tmp_path / "replica",
        standby=True,
        observer=lambda event: told.append(event.action),
    ) as two:
        two.wait_active(60)
        assert "standby-late-put" in told
        assert values(path) == [1, 2]
        two.sync(60)
    assert nodes(store)[:3] == [100] * 3
    assert 100 not in nodes(store)[3:]
    verify(store).raise_for_problems()


def test_late_put_that_comes_after_the_fence_of_a_standby_is_refused(
    one: LeasedHost, tmp_path: Path
) -> None:
    """The name is taken, and the old one is told."""
    store = one.store
    assert isinstance(store, LateStore)
    path = tmp_path / "two" / "app.db"
    with Replicator(path, tmp_path / "replica", standby=True) as two:
        two.wait_active(60)
        with pytest.raises(AnotherWriterError):
            store.arrive()
        assert values(path) == [1]
    verify(store).raise_for_problems()


def test_upload_that_hangs_does_not_delay_a_renewal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease has a thread of its own: it is renewed while a put is under way."""
    well, asked = threading.Event(), threading.Event()
    real = LTXStore.put

    def put(self: LTXStore, *arguments: Any, **options: Any) -> FileInfo:
        asked.set()
        assert well.wait(120)
        return real(self, *arguments, **options)

    path, lock = tmp_path / "app.db", tmp_path / "replica" / "lock"
    db = sqlite3.connect(path)
    db.execute("create table t(id integer primary key, v)")
    with Replicator(path, tmp_path / "replica", lease=3, sync_interval=0.05) as r:
        r.sync(60)
        monkeypatch.setattr(LTXStore, "put", put)
        db.execute("insert into t(v) values(1)")
        db.commit()
        assert asked.wait(60)

        def newest() -> str:
            return max(file.name for file in lock.glob("0*.json"))

        for _ in range(3):
            before = newest()
            until(lambda before=before: newest() > before)
        well.set()
        r.sync(60)
        status = r.status().lease
        assert status is not None and (status.state, status.epoch) == ("held", 1)
    db.close()


def test_workers_of_one_host_pass_the_lease_on_without_a_wait(tmp_path: Path) -> None:
    """The elected one is killed: the next has its metadata folder, so it is the same host."""
    place = Place(str(tmp_path / "replica"))
    first = HostProcess(tmp_path / "host", place, lease=3600)
    second = HostProcess(tmp_path / "host", place, lease=3600)
    with first, second:
        first("start")
        first("open")
        first("write", 1)
        first("sync")
        second("start")
        second("open")
        second("write", 2)
        second("sync")
        assert second("status")["pid"] == first.pid
        first.kill()
        second("write", 3)
        second("sync")
        status = second("status")
        assert status["pid"] == second.pid
        assert (status["lease"]["state"], status["lease"]["epoch"]) == ("held", 2)
        second("stop")
    assert stored(place, tmp_path) == [1, 2, 3]


def test_store_that_is_away_keeps_a_host_from_beginning(tmp_path: Path) -> None:
    """It cannot know whether another replicates: start says what fails, and begins nothing."""
    fs = SwitchableFileSystem()
    fs.fail()
    path = tmp_path / "app.db"
    replica = Replica(fs, path="/replica")
    replicator = Replicator(path, replica, lease=Lease(ttl=1, wait=0.5))
    with pytest.raises(LeaseHeldError, match="the store is away"):
        replicator.start()
    assert replicator.status().state == "stopped"
    fs.heal()
    replicator.start()
    replicator.stop()


def test_follower_that_hangs_keeps_its_metadata_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still write to the file: until it has ended nobody else on this host may."""
    stuck, going_on = threading.Event(), threading.Event()

    def step(following: Following) -> bool:
        stuck.set()
        going_on.wait(60)
        return False

    def is_free() -> bool:
        try:
            MetaFolder.locked(default_folder(str(path)), str(path)).close()
        except DatabaseStateError:
            return False
        return True

    replica, path = tmp_path / "replica", tmp_path / "standby.db"
    db = make_database(tmp_path / "app.db")
    with Replicator(tmp_path / "app.db", replica, lease=3600) as holder:
        holder.sync()
        monkeypatch.setattr(Following, "step", step)
        standby = Replicator(path, replica, lease=3600, standby=True)
        standby.start()
        assert stuck.wait(60)
        standby.stop(timeout=0.2)
        assert not is_free()
        going_on.set()
        until(is_free)
    db.close()


def test_lease_is_not_for_mirrors_and_has_a_time_that_makes_sense(
    tmp_path: Path,
) -> None:
    """What cannot be meant is refused at once."""
    from sqlitereplica import Mirror

    with pytest.raises(ValueError):
        Replicator(tmp_path / "a.db", Mirror(tmp_path / "m.db"), lease=True)
    for ttl in (0, 0.1, "2h", "soon"):
        with pytest.raises(ValueError):
            Replicator(tmp_path / "a.db", tmp_path / "r", lease=ttl)
