"""Keeping the database that a restore replaces, and going back to it."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback
from support.crashed import make_crashed
from support.recording import Recording

from sqlitereplica.errors import DatabaseStateError, TargetExistsError
from sqlitereplica.restore import aside as aside_module
from sqlitereplica.restore import restore
from sqlitereplica.restore import target as target_module
from sqlitereplica.store import LTXStore

OLD, NEW = ["old", "old_in_wal"], ["fresh"]


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """A replica whose database has one table, ``fresh``."""
    folder = tmp_path / "replica"
    made = Recording(tmp_path / "source.db", LTXStore.open(folder))
    made.commit("CREATE TABLE fresh(a)")
    made.close()
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of a crashed application, half of it in its WAL, in a folder of its own."""
    (tmp_path / "out").mkdir()
    make_crashed(tmp_path / "out" / "app.db")
    return tmp_path / "out" / "app.db"


def tables(path: Path) -> list[str]:
    """What a database has; opening it replays its WAL or journal."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
    connection.close()
    return [name for (name,) in rows]


def over(replica: Path, path: Path, **options: Any) -> Path | None:
    """Restore over what is there; where that is now."""
    result = restore(replica, path, if_exists="replace", **options)
    assert result.restored
    return result.old


def test_replaced_database_is_kept_whole_under_a_name_with_the_time(
    replica: Path, path: Path
) -> None:
    """Its WAL goes with it, so that no commit is lost."""
    old = over(replica, path, keep_old=True)
    assert old is not None and old.parent == path.parent
    assert re.fullmatch(r"app\.db\.before-\d{8}T\d{6}Z", old.name)
    assert sorted(os.listdir(path.parent)) == ["app.db", old.name, f"{old.name}-wal"]
    assert tables(path) == NEW
    assert tables(old) == OLD


def test_replaced_database_is_kept_under_the_name_given(
    replica: Path, path: Path
) -> None:
    """In another folder, which is made, or relative to the present one."""
    wanted = path.parent / "kept" / "yesterday.db"
    assert over(replica, path, keep_old=wanted) == wanted
    assert tables(wanted) == OLD and tables(path) == NEW
    make_crashed(path.with_name("second.db"))
    relative = os.path.relpath(path.with_name("third.db"))
    assert over(replica, path.with_name("second.db"), keep_old=relative) == (
        path.with_name("third.db")
    )


def test_hot_journal_goes_with_the_database(replica: Path, path: Path) -> None:
    """A transaction that a crash interrupted is rolled back under the new name."""
    path.unlink()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE old(a)")
    connection.execute("INSERT INTO old VALUES (randomblob(20000))")
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("UPDATE old SET a = randomblob(20000)")
    connection.execute("CREATE TABLE half AS SELECT * FROM old")
    crashed = path.with_name("crashed.db")
    shutil.copy(path, crashed)
    shutil.copy(f"{path}-journal", f"{crashed}-journal")
    connection.execute("ROLLBACK")
    connection.close()
    old = over(replica, crashed, keep_old=True)
    assert old is not None and old.with_name(old.name + "-journal").stat().st_size > 512
    assert tables(crashed) == NEW
    assert tables(old) == ["old"]


def test_going_back_brings_all_of_the_old_database(replica: Path, path: Path) -> None:
    """Let SQLite bring the WAL of each home, then rename; and forward again."""
    old = over(replica, path, keep_old=True)
    assert old is not None
    for database in (old, path):
        sqlite3.connect(database).execute("PRAGMA wal_checkpoint").connection.close()
    os.replace(old, path)
    assert tables(path) == OLD
    assert os.listdir(path.parent) == ["app.db"]
    again = over(replica, path, keep_old=True)
    assert tables(path) == NEW and again is not None and tables(again) == OLD


def test_kept_copy_is_restored_over_like_any_other(replica: Path, path: Path) -> None:
    """Its note goes with it, so going forward again fetches next to nothing."""
    restore(replica, path, if_exists="replace")
    made = LTXStore.open(replica)
    [file] = made.list_all()
    copied = sqlite3.connect(path)
    copied.execute("CREATE TABLE changed(a)")
    copied.close()
    old = over(replica, path, keep_old=True)
    assert old is not None and tables(old) == ["changed", "fresh"]
    result = restore(made, path, if_exists="replace")
    assert result.reason == "unchanged" and result.bytes_fetched < file.size


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_name_that_is_taken_is_refused_before_anything_is_fetched(
    replica: Path, path: Path, suffix: str
) -> None:
    """Nothing is overwritten, nor is a WAL of somebody else put beside the old file."""
    kept = path.with_name("kept.db")
    taken = path.with_name(f"kept.db{suffix}")
    taken.write_bytes(b"precious")
    store = LTXStore.open(replica)
    with pytest.raises(TargetExistsError, match="pass another path") as caught:
        restore(store, path, if_exists="replace", keep_old=kept)
    assert caught.value.path == os.fspath(taken)
    assert taken.read_bytes() == b"precious" and tables(path) == OLD
    assert not store.requests


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
@pytest.mark.parametrize("by", ["name", "time"])
def test_name_taken_meanwhile_is_not_overwritten(
    replica: Path, path: Path, suffix: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last instant: a name that was asked for is an error, others are passed over."""
    keep = target_module.Aside.claim
    taken: list[Path] = []

    def race(aside: target_module.Aside) -> None:
        if not taken:
            taken.append(Path(aside.away + suffix))
            taken[0].write_bytes(b"precious")
        keep(aside)

    monkeypatch.setattr(target_module.Aside, "claim", race)
    if by == "name":
        with pytest.raises(TargetExistsError):
            over(replica, path, keep_old=path.with_name("kept.db"))
        assert tables(path) == OLD
        assert sorted(os.listdir(path.parent)) == ["app.db", taken[0].name]
    else:
        old = over(replica, path, keep_old=True)
        assert old is not None and old.name.endswith("Z-2") and tables(old) == OLD
    assert taken[0].read_bytes() == b"precious"


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_name_taken_after_the_look_is_not_overwritten(
    replica: Path, path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is taken by the very call that finds it free."""
    look = aside_module.refuse_taken
    kept = path.with_name("kept.db")
    looks: list[str] = []

    def race(away: str) -> None:
        look(away)
        looks.append(away)
        if len(looks) == 2:  # the first one comes before anything is fetched
            Path(away + suffix).write_bytes(b"precious")

    monkeypatch.setattr(aside_module, "refuse_taken", race)
    monkeypatch.setattr(target_module, "refuse_taken", race)
    with pytest.raises(TargetExistsError):
        over(replica, path, keep_old=kept)
    assert path.with_name(f"kept.db{suffix}").read_bytes() == b"precious"
    names = {"app.db", "app.db-wal", "app.db-shm", f"kept.db{suffix}"}
    assert set(os.listdir(path.parent)) <= names
    assert tables(path) == OLD


def test_empty_file_at_the_name_counts_as_none(replica: Path, path: Path) -> None:
    """As at the path of the database itself."""
    kept = path.with_name("kept.db")
    kept.touch()
    assert over(replica, path, keep_old=kept) == kept
    assert tables(kept) == OLD


def test_several_are_kept_under_names_of_their_own(replica: Path, path: Path) -> None:
    """Within one second, too."""
    found = {over(replica, path, keep_old=True)}
    for _ in range(3):
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE more(a)")
        connection.close()
        found.add(over(replica, path, keep_old=True))
    assert len(found) == 4 and all(old and old.exists() for old in found)


def test_nothing_is_kept_if_nothing_was_there(replica: Path, path: Path) -> None:
    """No file, an empty one, or the WAL of one that is gone: there is no old database."""
    for name in ("one.db", "two.db", "three.db"):
        assert not path.with_name(name).exists()
    path.with_name("two.db").touch()
    path.with_name("three.db-wal").write_bytes(b"left")
    for name in ("one.db", "two.db", "three.db"):
        result = restore(
            replica, path.with_name(name), if_exists="replace", keep_old=True
        )
        assert result.restored and result.old is None
    assert not [n for n in os.listdir(path.parent) if "before" in n or "three.db-" in n]


@pytest.mark.parametrize("if_exists", ["error", "skip"])
def test_keeping_without_replacing_makes_no_sense(
    replica: Path, path: Path, if_exists: Any
) -> None:
    """The mistake is named."""
    with pytest.raises(ValueError, match="keep_old is for"):
        restore(replica, path, if_exists=if_exists, keep_old=True)


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal", "-shm"])
def test_database_cannot_be_kept_as_itself(
    replica: Path, path: Path, suffix: str
) -> None:
    """Nor as its own WAL."""
    with pytest.raises(ValueError, match="the database itself"):
        restore(
            replica,
            path,
            if_exists="replace",
            keep_old=path.with_name("app.db" + suffix),
        )
    assert tables(path) == OLD


def test_other_filesystem_is_refused_at_once(
    replica: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename does not lead there, and copying would not be atomic."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    stat = os.stat

    def other_device(where: Any, **options: Any) -> os.stat_result:
        status = stat(where, **options)
        if os.fspath(where) != os.fspath(elsewhere):
            return status
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:]))

    monkeypatch.setattr(os, "stat", other_device)
    with pytest.raises(ValueError, match="not on the filesystem"):
        restore(replica, path, if_exists="replace", keep_old=elsewhere / "kept.db")
    assert tables(path) == OLD


def test_database_opened_meanwhile_is_neither_replaced_nor_kept(
    replica: Path, path: Path
) -> None:
    """No placeholder is left of the attempt."""
    opened: list[sqlite3.Connection] = []

    class Open(Callback):
        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            if not opened:
                opened.append(sqlite3.connect(path, check_same_thread=False))
                opened[0].execute("SELECT * FROM old").fetchall()

    with pytest.raises(DatabaseStateError):
        restore(replica, path, if_exists="replace", keep_old=True, callback=Open())
    opened[0].close()
    assert os.listdir(path.parent) == ["app.db"] and tables(path) == OLD


def test_symbolic_link_stays_and_its_database_is_kept(
    replica: Path, path: Path
) -> None:
    """The old file is kept beside the real one, where its WAL is."""
    link = path.parent.parent / "link.db"
    link.symlink_to(path)
    old = over(replica, link, keep_old=True)
    assert link.is_symlink() and tables(link) == NEW
    assert old is not None and old.parent == path.parent and tables(old) == OLD


def test_second_name_left_by_a_killed_restore_is_removed(
    replica: Path, path: Path
) -> None:
    """A WAL that has its place and a second name would keep its room for ever."""
    second = path.with_name(".app.db.0123456789abcdef.old-wal")
    os.link(f"{path}-wal", second)
    restore(replica, path, if_exists="replace")
    assert second.exists(), "it may belong to a restore that lives"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(target_module, "_STALE_SECONDS", -1)
        path.write_bytes(path.read_bytes()[:-1])
        restore(replica, path, if_exists="replace")
    assert not second.exists()
    whole = path.with_name(".app.db.0123456789abcdef.old")
    for left in (whole, second):
        left.write_bytes(b"all there is of an old database")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(target_module, "_STALE_SECONDS", -1)
        restore(replica, path, if_exists="replace")
    assert whole.exists() and second.exists()
