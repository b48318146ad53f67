"""A group of databases: taken in, parked, woken, removed; what fails stops no other."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.group import Tenants, parked, until, until_state

from sqlitereplica import (
    DatabaseStateError,
    Mirror,
    Replicator,
    ReplicatorClosedError,
    ReplicatorGroup,
    SyncTimeoutError,
)
from sqlitereplica.events import Event


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    """An empty folder."""
    return Tenants(tmp_path)


def threads() -> Counter[str]:
    """The threads that are alive, by name."""
    return Counter(thread.name for thread in threading.enumerate())


def test_databases_are_replicated_and_parked(tenants: Tenants) -> None:
    """Each to its own replica; then nothing is open, and two threads are left for all."""
    names = [f"t{i}.db" for i in range(6)]
    tenants.make(*names)
    before = threads()
    with tenants.group() as group:
        assert len(group) == 6
        assert group.databases == [str(tenants.path(n)) for n in names]
        group.sync(timeout=90)
        assert tenants.restored("t3.db") == [0]
        parked(group, 6)
        left = {"sqlitereplica-group", "sqlitereplica-notices"}
        until(lambda: set(threads() - before) <= left, f"two threads: {threads()}")
        assert group.status_of("t3.db").state == "parked"
    for name in names:
        assert tenants.restored(name) == [0]


def test_a_parked_one_wakes_for_a_commit(tenants: Tenants) -> None:
    """By itself, without a call; and is parked again."""
    tenants.make("a.db", "b.db")
    with tenants.group() as group:
        parked(group, 2)
        tenants.write("a.db", 7)
        until(lambda: tenants.restored("a.db") == [0, 7], "the commit in the replica")
        parked(group, 2)
        assert tenants.restored("b.db") == [0]


def test_reading_wakes_nobody(tenants: Tenants) -> None:
    """Connections that write nothing come and go."""
    tenants.make("a.db")
    events: list[Event] = []
    with tenants.group(observer=events.append) as group:
        parked(group, 1)
        events.clear()
        for _ in range(3):
            assert tenants.rows("a.db") == [0]
            looked = group.status().last_look
            until(lambda looked=looked: group.status().last_look != looked, "a look")
        assert group.status().parked == 1
        assert "attach" not in {event.action for event in events}


def test_sync_starts_nobody_who_has_nothing_to_say(tenants: Tenants) -> None:
    """Those that are parked and unchanged count as synchronised at once."""
    tenants.make("a.db", "b.db")
    events: list[Event] = []
    with tenants.group(observer=events.append) as group:
        parked(group, 2)
        events.clear()
        group.sync(timeout=90)
        group.sync("a.db", timeout=90)
        assert "attach" not in {event.action for event in events}
        tenants.write("a.db", 1)
        group.sync(tenants.path("a.db"), timeout=90)
        assert tenants.restored("a.db") == [0, 1]


def test_sync_is_for_commits_made_before_it(tenants: Tenants) -> None:
    """In any of the databases, also while they are being parked."""
    tenants.make("a.db", "b.db", "c.db")
    with tenants.group(park_after=0.05, max_running=2) as group:
        for value in range(1, 9):
            name = "abc"[value % 3] + ".db"
            tenants.write(name, value)
            group.sync(timeout=90)
            assert tenants.restored(name)[-1] == value


class Late(ReplicatorGroup):
    """A group in which somebody commits right after each flush, a few times."""

    commits: list[Callable[[], None]]

    def _make(self, rel: str) -> Replicator:
        replicator = super()._make(rel)
        stop = replicator.stop

        def late(timeout: float | None = None) -> None:
            stop(timeout)
            if self.commits:
                self.commits.pop()()

        replicator.stop = late  # type: ignore[method-assign]
        return replicator


def test_a_commit_behind_the_last_flush_is_not_missed(tenants: Tenants) -> None:
    """It came too late for the Replicator, but its files tell; nobody calls sync."""
    tenants.make("a.db")
    Late.commits = [lambda: tenants.write("a.db", 2), lambda: tenants.write("a.db", 1)]
    with Late(
        tenants.dir, str(tenants.backups), park_after=0.1, scan_interval=0.05
    ) as group:
        until(lambda: not Late.commits, "both commits")
        parked(group, 1)
        assert tenants.restored("a.db") == [0, 1, 2]


def test_the_history_of_a_parked_database_is_tended(tenants: Tenants) -> None:
    """It is started once to merge what waits, and then not for as long as nothing is due."""
    tenants.make("a.db")
    levels = tenants.backups / "a.db" / "ltx"
    with tenants.group(levels=("1s", "4s"), snapshot_interval=None) as group:
        for value in (1, 2, 3):
            tenants.write("a.db", value)
            group.sync("a.db", timeout=90)
        assert len(list((levels / "0").iterdir())) >= 3
        until(
            lambda: (levels / "2").is_dir() and list((levels / "2").iterdir()),
            "level 2",
        )
        parked(group, 1)
        due = group.status_of("a.db").next_tending
        # What was merged is deleted after its grace of five minutes: not before.
        assert due is not None and due > datetime.now(UTC) + timedelta(minutes=2)
    assert tenants.restored("a.db") == [0, 1, 2, 3]


def test_databases_come_and_go(tenants: Tenants) -> None:
    """New ones are taken in; of one that is deleted the replica stays."""
    tenants.make("a.db")
    with tenants.group() as group:
        parked(group, 1)
        tenants.make("b.db")
        until(lambda: len(group) == 2, "the new one")
        group.sync("b.db", timeout=90)
        assert tenants.restored("b.db") == [0]
        parked(group, 2)
        os.unlink(tenants.path("a.db"))
        until_state(group, "a.db", "removed")
        assert group.databases == [str(tenants.path("b.db"))]
        assert group.status().removed == 1
        with pytest.raises(DatabaseStateError) as caught:
            group.sync("a.db", timeout=90)
        assert caught.value.kind == "removed"
        assert tenants.restored("a.db") == [0]


def test_one_that_runs_is_deleted(tenants: Tenants) -> None:
    """Its Replicator is stopped at once; the others go on."""
    tenants.make("a.db", "b.db")
    with tenants.group(park_after=60) as group:
        group.sync(timeout=90)
        until_state(group, "a.db", "running")
        for path in tenants.dir.glob("a.db*"):
            path.unlink()
        until_state(group, "a.db", "removed")
        until(lambda: group.status().running == 1, "one running")
        tenants.write("b.db", 1)
        group.sync(timeout=90)
        assert tenants.restored("b.db") == [0, 1]


def test_one_that_was_deleted_comes_back(tenants: Tenants) -> None:
    """As another database: its replica goes on with what it holds now."""
    tenants.make("a.db", rows=3)
    with tenants.group() as group:
        parked(group, 1)
        os.unlink(tenants.path("a.db"))
        until_state(group, "a.db", "removed")
        tenants.make("a.db", rows=1)
        group.sync("a.db", timeout=90)
        assert tenants.restored("a.db") == [0]


def test_a_database_is_replaced_while_parked(tenants: Tenants) -> None:
    """By a rename, as a restore does."""
    tenants.make("a.db", "elsewhere/new.db", rows=2)
    with tenants.group() as group:
        parked(group, 1)
        tenants.path("elsewhere/new.db").rename(tenants.path("a.db"))
        tenants.write("a.db", 9)
        until(lambda: tenants.restored("a.db") == [0, 1, 9], "the new content")


def test_without_watch_only_those_of_the_start_count(tenants: Tenants) -> None:
    """But those are still woken."""
    tenants.make("a.db")
    with tenants.group(watch=False) as group:
        parked(group, 1)
        tenants.make("b.db")
        tenants.write("a.db", 1)
        until(lambda: tenants.restored("a.db") == [0, 1], "the commit")
        parked(group, 1)
        assert group.status_of("b.db").state == "unknown"


def test_folders_below_and_names(tenants: Tenants) -> None:
    """The path below the folder tells databases of one name apart."""
    tenants.make("eu/a.db", "us/a.db", "us/b.sqlite")
    tenants.write("us/a.db", 5)
    with tenants.group(recursive=True) as group:
        group.sync(timeout=90)
        assert len(group) == 2
    assert tenants.restored("eu/a.db") == [0]
    assert tenants.restored("us/a.db") == [0, 5]


def test_a_busy_database_starves_nobody(tenants: Tenants) -> None:
    """With one slot, and a database in which a transaction is always open."""
    tenants.make("a.db", "b.db", "c.db")
    with closing(sqlite3.connect(tenants.path("a.db"), isolation_level=None)) as busy:
        busy.execute("begin immediate")
        busy.execute("insert into t values(1)")
        with tenants.group(max_running=1) as group:
            until(lambda: group.status().parked == 2, "the others")
            busy.execute("commit")
            parked(group, 3)
            assert tenants.restored("a.db") == [0, 1]


def test_a_burst_is_bounded_and_fair(tenants: Tenants) -> None:
    """All databases written at once: never more at work than allowed, and all come."""
    names = [f"t{i:03}.db" for i in range(24)]
    tenants.make(*names)
    with tenants.group(max_running=8) as group:
        parked(group, 24)
        for value, name in enumerate(names):
            tenants.write(name, value)
        most = 0
        while (status := group.status()).parked < 24 or not most:
            most = max(most, status.running)
            time.sleep(0.01)
        assert 1 <= most <= 8
        group.sync(timeout=90)
    for value, name in list(enumerate(names))[::7]:
        assert tenants.restored(name) == [0, value]


def test_the_one_replicator_of_a_database(tenants: Tenants) -> None:
    """It stays at work as long as somebody has it in use, and is parked then."""
    tenants.make("a.db", "b.db")
    with tenants.group(max_running=1, park_after=0.1) as group:
        parked(group, 2)
        with group.replicator("a.db") as replicator:
            assert replicator.database == str(tenants.path("a.db"))
            tenants.write("a.db", 1)
            replicator.sync()
            replicator.snapshot()
            with pytest.raises(SyncTimeoutError), group.replicator("b.db", timeout=0.2):
                pass
            assert group.status_of("a.db").status is not None
            assert group.status_of("a.db").state == "running"
        parked(group, 2)
        assert group.status_of("a.db").status is None
    assert tenants.restored("a.db") == [0, 1]


def test_names_of_databases(tenants: Tenants, tmp_path: Path) -> None:
    """Absolute, below the folder, through a link to the folder; unknown ones are told."""
    tenants.make("eu/a.db")
    (tmp_path / "link").symlink_to(tenants.dir)
    with tenants.group(recursive=True) as group:
        for name in ("eu/a.db", tenants.path("eu/a.db"), tmp_path / "link/eu/a.db"):
            group.sync(name, timeout=90)
            assert group.status_of(name).state != "unknown"
        for name in ("b.db", "/nowhere/b.db"):
            assert group.status_of(name).state == "unknown"
            with pytest.raises(DatabaseStateError) as caught:
                group.sync(name, timeout=90)
            assert caught.value.kind == "unknown"


def test_several_replicas_and_a_mirror(tenants: Tenants, tmp_path: Path) -> None:
    """Each database has all of them."""
    tenants.make("a.db")
    second, mirrors = tmp_path / "second", tmp_path / "mirrors"
    mirrors.mkdir()
    replicas = [
        str(tenants.backups),
        str(second / "{name}"),
        Mirror(mirrors / "{file}"),
    ]
    with tenants.group(replica=None, replicas=replicas) as group:
        group.sync(timeout=90)
        parked(group, 1)
    assert tenants.restored("a.db") == [0]
    assert tenants.restored("", str(second / "a")) == [0]
    with closing(sqlite3.connect(mirrors / "a.db")) as db:
        assert db.execute("select x from t").fetchall() == [(0,)]


def test_metadata_elsewhere(tenants: Tenants, tmp_path: Path) -> None:
    """Nothing is written beside the databases but what SQLite writes."""
    tenants.make("eu/a.db")
    with tenants.group(recursive=True, meta_dir=tmp_path / "meta") as group:
        parked(group, 1)
    assert os.listdir(tenants.dir / "eu") == ["a.db"]
    assert (tmp_path / "meta/eu/a.db-sqlitereplica/parked").exists()


def test_before_and_after(tenants: Tenants) -> None:
    """What is asked of a group that does not run; starting and stopping are idempotent."""
    tenants.make("a.db")
    group = tenants.group()
    assert (group.status().state, group.databases, len(group)) == ("stopped", [], 0)
    assert not group.health() and group
    assert group.status_of("a.db").state == "unknown"
    group.stop()
    with pytest.raises(ReplicatorClosedError):
        group.sync(timeout=90)
    with pytest.raises(ReplicatorClosedError), group.replicator("a.db"):
        pass
    group.start()
    group.start()
    group.stop()
    group.stop()
    assert tenants.restored("a.db") == [0]
    tenants.write("a.db", 1)
    with group:
        group.sync(timeout=90)
        assert b'"databases":1' in group.status().to_json()
        assert b'"ok":true' in group.health().to_json()
    assert tenants.restored("a.db") == [0, 1]


def test_for_asyncio(tenants: Tenants) -> None:
    """The same in a loop, which is not blocked."""
    tenants.make("a.db")

    async def use() -> None:
        async with tenants.group() as group:
            await group.sync_async()

    asyncio.run(use())
    assert tenants.restored("a.db") == [0]


@pytest.mark.parametrize(
    "options",
    [
        {"replica": None},
        {"replicas": "elsewhere"},
        {"pattern": ""},
        {"pattern": "eu/*.db"},
        {"max_running": 0},
        {"park_after": 0},
        {"scan_interval": 0},
        {"sync_interval": 0},
        {"retention": "soon"},
        {"replica": "nosuch://b/{name}"},
    ],
)
def test_arguments_that_cannot_be_meant(
    tenants: Tenants, options: dict[str, object]
) -> None:
    """They are refused at once."""
    with pytest.raises(ValueError):
        tenants.group(**options)
