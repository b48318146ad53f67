"""What a group meets that is no database, or cannot be replicated: it stops no other."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.group import Tenants, parked, until, until_state

from sqlitereplica import DatabaseStateError, StoreError, SyncTimeoutError
from sqlitereplica.testing import Fault, FaultyStore


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    """An empty folder."""
    return Tenants(tmp_path)


def test_two_databases_of_one_replica(tenants: Tenants) -> None:
    """The second is refused by name; the first is replicated."""
    tenants.make("eu/a.db", "us/a.db")
    replica = str(tenants.backups / "{name}")
    with tenants.group(recursive=True, replica=replica) as group:
        with pytest.raises(DatabaseStateError, match="has the replica of") as caught:
            group.sync(timeout=90)
        assert caught.value.kind == "twice"
        assert tenants.restored("", "a") == [0]
        status = group.status()
        assert (status.failed, len(status.errors), status.ok) == (1, 1, False)


def test_two_names_of_one_file(tenants: Tenants) -> None:
    """Links, hard or soft: SQLite keeps one WAL for each name, or locks one file twice."""
    tenants.make("a.db")
    tenants.path("b.db").symlink_to("a.db")
    with tenants.group() as group:
        until(lambda: group.status().failed == 1, "one refused")
        with pytest.raises(DatabaseStateError, match="is the same file as"):
            group.sync(timeout=90)
    os.unlink(tenants.path("b.db"))
    os.link(tenants.path("a.db"), tenants.path("b.db"))
    with tenants.group() as group, pytest.raises(DatabaseStateError, match="same file"):
        group.sync(timeout=90)


def test_a_link_to_a_database_elsewhere(tenants: Tenants) -> None:
    """It is replicated under its own name, and woken by what happens where it leads."""
    tenants.make("../outside/real.db")
    tenants.path("a.db").symlink_to("../outside/real.db")
    with tenants.group() as group:
        parked(group, 1)
        tenants.write("../outside/real.db", 3)
        until(lambda: tenants.restored("a.db") == [0, 3], "the commit")
        assert group.status_of("a.db").database == str(tenants.path("a.db"))


def test_files_that_are_no_databases(tenants: Tenants) -> None:
    """Each is named with its error, is left as it is, and stops no other."""
    tenants.make("good.db")
    contents = {"text.db": b"hello\n" * 500, "short.db": b"hi", "empty.db": b""}
    for name, content in contents.items():
        tenants.path(name).write_bytes(content)
    tenants.path("lost.db").symlink_to("nowhere")
    with tenants.group() as group:
        until(lambda: group.status().failed == 2, "two that failed")
        parked(group, 1)
        kinds = {
            name: getattr(group.status_of(name).error, "kind", None)
            for name in (*contents, "lost.db", "good.db")
        }
        assert kinds == {
            "text.db": "not-a-database",
            "short.db": "not-a-database",
            "empty.db": None,
            "lost.db": "link",
            "good.db": None,
        }
        assert group.status_of("empty.db").state == "empty"
        assert not group.health().ok
        with pytest.raises(DatabaseStateError) as caught:
            group.sync(timeout=90)
        assert len(caught.value.__notes__) == 2
        with pytest.raises(DatabaseStateError) as caught:
            group.sync(timeout=90)
        assert len(caught.value.__notes__) == 2
    for name, content in contents.items():
        assert tenants.path(name).read_bytes() == content
    assert tenants.restored("good.db") == [0]


def test_whoever_waits_hears_why(tenants: Tenants) -> None:
    """At whichever moment of the refusal: what is wrong with the file, not that it ended."""
    with tenants.group() as group:
        for number in range(12):
            path = tenants.path(f"{number}.db")
            path.write_bytes(b"hello\n" * 500)
            with pytest.raises(DatabaseStateError) as caught:
                group.sync(path, timeout=90)
            assert caught.value.kind == "not-a-database"
            path.unlink()


def test_what_was_no_database_becomes_one(tenants: Tenants) -> None:
    """An empty file is filled, a broken one is replaced."""
    tenants.path("a.db").touch()
    tenants.path("b.db").write_bytes(b"hello\n" * 500)
    with tenants.group() as group:
        until_state(group, "b.db", "failed")
        tenants.make("a.db", "elsewhere/c.db")
        os.replace(tenants.path("elsewhere/c.db"), tenants.path("b.db"))
        until(lambda: group.status().ok and group.status().empty == 0, "all well")
        group.sync(timeout=90)
        assert tenants.restored("a.db") == tenants.restored("b.db") == [0]


def test_the_folder_disappears_and_comes_back(tenants: Tenants) -> None:
    """It is said; what was there is let go, and taken in again."""
    tenants.make("a.db", "b.db")
    away = tenants.dir.with_name("away")
    with tenants.group() as group:
        parked(group, 2)
        tenants.dir.rename(away)
        until(lambda: "" in group.status().errors, "the error of the folder")
        until(lambda: len(group) == 0, "none left")
        with pytest.raises(FileNotFoundError):
            group.sync(timeout=90)
        away.rename(tenants.dir)
        until(lambda: len(group) == 2, "both back")
        tenants.write("a.db", 1)
        group.sync(timeout=90)
        assert group.status().ok
    assert tenants.restored("a.db") == [0, 1]


def test_a_folder_that_comes_later(tenants: Tenants) -> None:
    """With watch it is waited for; without it would be for nothing."""
    shutil.rmtree(tenants.dir)
    with pytest.raises(DatabaseStateError) as caught:
        tenants.group(watch=False).start()
    assert caught.value.kind == "folder"
    with tenants.group() as group:
        assert group.status().errors
        tenants.make("a.db")
        until(lambda: len(group) == 1, "the database")
        group.sync(timeout=90)
    assert tenants.restored("a.db") == [0]


def test_a_store_that_is_away_starves_nobody(tenants: Tenants, tmp_path: Path) -> None:
    """Slots are taken from those that cannot be flushed, and they are tried again."""
    tenants.make("a.db", "b.db", "c.db", "d.db")
    store = FaultyStore()
    store.plan = lambda operation: (
        Fault.BEFORE if operation.kind == "write" and "b.db" in operation.path else None
    )
    with tenants.group(replica=store.replica, max_running=1, stop_timeout=0.5) as group:
        until(lambda: group.status().parked == 3, "three parked")
        until(
            lambda: any("b.db" in why for why in group.health(max_lag=0.1).reasons),
            "one that is behind",
        )
        with pytest.raises((SyncTimeoutError, StoreError)):
            group.sync(timeout=1)
        store.heal()
        group.sync("b.db", timeout=90)
        parked(group, 4)


def test_settings_go_to_each_replicator(tenants: Tenants) -> None:
    """A database in another journal mode is an error if it must not be switched."""
    with closing(sqlite3.connect(tenants.path("a.db"))) as db:
        db.execute("create table t(x)")
    group = tenants.group(set_wal=False)
    group.start()
    with pytest.raises(DatabaseStateError) as caught:
        group.sync(timeout=90)
    assert caught.value.kind == "journal-mode"
    until(lambda: "a.db" in group.status().errors, "the error")
    with pytest.raises(DatabaseStateError):
        group.stop()
    assert group.status().state == "stopped"
