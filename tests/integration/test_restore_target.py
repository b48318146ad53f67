"""What a restore does to the path it is given, and to what is there already."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback
from support.crashed import make_crashed
from support.recording import Recording

from sqlitereplica.errors import (
    DatabaseStateError,
    InvalidFileError,
    TargetExistsError,
)
from sqlitereplica.restore import restore
from sqlitereplica.store import LTXStore

SIDECARS = ("-wal", "-journal", "-shm")


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """A replica whose database has one table, ``fresh``."""
    folder = tmp_path / "replica"
    made = Recording(tmp_path / "source.db", LTXStore.open(folder))
    made.commit("CREATE TABLE fresh(a)")
    made.close()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The path to restore to, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "app.db"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of this process."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def tables(path: Path) -> list[str]:
    """What a database has; opening it replays its WAL or journal."""
    with opened(path) as connection:
        rows = connection.execute("SELECT name FROM sqlite_schema ORDER BY name")
        return [name for (name,) in rows]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupt(Callback):
    """Runs something when the first bytes have been fetched."""

    def __init__(self, action: Any) -> None:
        super().__init__()
        self.action = action

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Called by fsspec after each change."""
        if self.value and self.action:
            self.action()
            self.action = None


def test_existing_database_is_an_error_and_stays(replica: Path, target: Path) -> None:
    """By default nothing is overwritten, and the error says what to pass."""
    target.write_bytes(b"precious")
    with pytest.raises(TargetExistsError, match="if_exists='skip'") as caught:
        restore(replica, target)
    assert caught.value.path == os.fspath(target)
    assert contents(target.parent) == {"app.db": b"precious"}


@pytest.mark.parametrize("suffix", SIDECARS)
def test_sidecar_alone_is_an_error(replica: Path, target: Path, suffix: str) -> None:
    """A WAL or journal without its database would corrupt the restored one."""
    sidecar = target.with_name(target.name + suffix)
    sidecar.write_bytes(b"left")
    with pytest.raises(TargetExistsError) as caught:
        restore(replica, target)
    assert caught.value.path == os.fspath(sidecar)
    assert contents(target.parent) == {sidecar.name: b"left"}


@pytest.mark.parametrize("if_exists", ["error", "skip", "replace"])
def test_empty_file_counts_as_none(replica: Path, target: Path, if_exists: Any) -> None:
    """An empty database file, as tools create it, is no database (litestream.md 5.3)."""
    target.touch()
    assert restore(replica, target, if_exists=if_exists).restored
    assert tables(target) == ["fresh"]


def test_skip_keeps_the_database_and_asks_nothing(target: Path, tmp_path: Path) -> None:
    """With a database there not even a replica that cannot exist is looked at."""
    target.write_bytes(b"precious")
    result = restore(tmp_path / "nowhere" / "\0", target, if_exists="skip")
    assert (result.restored, result.reason) == (False, "exists")
    assert contents(target.parent) == {"app.db": b"precious"}


def test_skip_removes_sidecars_without_a_database(replica: Path, target: Path) -> None:
    """What a crashed replacement left does not stop an application from starting."""
    for suffix in SIDECARS:
        target.with_name(target.name + suffix).write_bytes(b"left")
    assert restore(replica, target, if_exists="skip").restored
    assert os.listdir(target.parent) == ["app.db"]


def test_replace_puts_the_new_database_alone_in_place(
    replica: Path, target: Path
) -> None:
    """Neither the old database nor its WAL, journal or -shm is left."""
    make_crashed(target)
    assert restore(replica, target, if_exists="replace").restored
    assert os.listdir(target.parent) == ["app.db"]
    assert tables(target) == ["fresh"]


def test_replace_without_anything_there_is_a_restore(
    replica: Path, target: Path
) -> None:
    """There need not be anything to replace."""
    assert restore(replica, target, if_exists="replace").restored


def test_replace_keeps_the_permissions(replica: Path, target: Path) -> None:
    """Who could read the old database can read the new one, and nobody else."""
    target.write_bytes(b"old")
    target.chmod(0o640)
    restore(replica, target, if_exists="replace")
    assert target.stat().st_mode & 0o777 == 0o640


def test_database_is_never_open_to_more_users_while_it_is_restored(
    replica: Path, target: Path
) -> None:
    """The temporary file is as private as the database that it replaces."""
    target.write_bytes(b"old")
    target.chmod(0o600)
    modes: list[int] = []

    class Look(Callback):
        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            modes.extend(p.stat().st_mode & 0o777 for p in target.parent.glob(".*.tmp"))

    restore(replica, target, if_exists="replace", callback=Look())
    assert set(modes) == {0o600}


def test_new_database_has_the_permissions_of_the_umask(
    replica: Path, target: Path
) -> None:
    """As for any new file."""
    before = os.umask(0o027)
    try:
        restore(replica, target)
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o640


def test_failed_verification_leaves_the_old_database(
    replica: Path, target: Path, tmp_path: Path
) -> None:
    """The old database goes only when the new one has been proven."""
    make_crashed(target)
    before = contents(target.parent)
    [file] = (tmp_path / "replica").rglob("*.ltx")
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    with pytest.raises(InvalidFileError):
        restore(replica, target, if_exists="replace")
    assert contents(target.parent) == before


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_database_open_in_this_process_is_not_replaced(
    replica: Path, target: Path, mode: str
) -> None:
    """Even a connection that holds no lock would go on with a file without a name."""
    with opened(target) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE old(a)")
        before = contents(target.parent)
        with pytest.raises(DatabaseStateError, match="open in this process") as caught:
            restore(replica, target, if_exists="replace")
        assert caught.value.kind == "busy"
        assert contents(target.parent) == before
        connection.execute("INSERT INTO old VALUES (1)")


def hold_open(path: Path, mode: str, ready: Any) -> None:
    """In a process of its own: keep a connection until killed."""
    with opened(path) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE old(a)")
        ready.set()
        time.sleep(600)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_database_open_in_another_process_is_not_replaced(
    replica: Path, target: Path, mode: str
) -> None:
    """The error names the process."""
    spawn = get_context("spawn")
    ready = spawn.Event()
    other = spawn.Process(target=hold_open, args=(target, mode, ready))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(DatabaseStateError, match=f"open in process {other.pid}"):
            restore(replica, target, if_exists="replace")
    finally:
        other.kill()
        other.join()
        other.close()
    assert restore(replica, target, if_exists="replace").restored


def test_locks_alone_tell_that_a_database_is_open(
    replica: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where other processes' files are hidden, the list of locks is enough in WAL mode."""
    from sqlitereplica.sqlite import descriptors, openfiles

    monkeypatch.setattr(descriptors, "is_open_here", lambda key: False)
    monkeypatch.setattr(openfiles, "other_processes", lambda: iter(()))
    with opened(target) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE old(a)")
        with pytest.raises(DatabaseStateError, match=f"process {os.getpid()}"):
            restore(replica, target, if_exists="replace")


def test_database_opened_meanwhile_is_not_replaced(replica: Path, target: Path) -> None:
    """The look at who has it open is repeated right before the replacement."""
    make_crashed(target)
    with contextlib.ExitStack() as stack:

        def open_it() -> None:
            stack.enter_context(opened(target)).execute("SELECT * FROM old").fetchall()

        with pytest.raises(DatabaseStateError):
            restore(replica, target, if_exists="replace", callback=Interrupt(open_it))
    assert tables(target) == ["old", "old_in_wal"]


def test_database_made_meanwhile_is_kept_by_skip(replica: Path, target: Path) -> None:
    """Of several workers that restore at once the first one wins, and may be writing."""
    with contextlib.ExitStack() as stack:

        def first() -> None:
            restore(replica, target)
            connection = stack.enter_context(opened(target))
            connection.execute("CREATE TABLE newer(a)")

        result = restore(replica, target, if_exists="skip", callback=Interrupt(first))
        assert (result.restored, result.reason) == (False, "exists")
        assert target.with_name(target.name + "-wal").stat().st_size > 0
    assert tables(target) == ["fresh", "newer"]
    assert os.listdir(target.parent) == ["app.db"]


def test_database_made_meanwhile_is_an_error(replica: Path, target: Path) -> None:
    """What was not there at first is not overwritten either."""
    action = Interrupt(lambda: target.write_bytes(b"precious"))
    with pytest.raises(TargetExistsError):
        restore(replica, target, callback=action)
    assert contents(target.parent) == {"app.db": b"precious"}


def test_database_made_in_the_last_instant_is_kept(
    replica: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes between the look at the path and the naming."""
    link = os.link

    def race(source: str, name: str) -> None:
        target.write_bytes(b"precious")
        link(source, name)

    monkeypatch.setattr(os, "link", race)
    assert restore(replica, target, if_exists="skip").reason == "exists"
    target.unlink()
    with pytest.raises(TargetExistsError):
        restore(replica, target)
    assert contents(target.parent) == {"app.db": b"precious"}


@pytest.mark.parametrize("if_exists", ["error", "skip", "replace"])
def test_filesystem_without_hard_links_will_do(
    replica: Path, target: Path, if_exists: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the exclusive way is not to be had, a rename takes its place."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    assert restore(replica, target, if_exists=if_exists).restored
    assert os.listdir(target.parent) == ["app.db"]


@pytest.mark.parametrize("if_exists", ["error", "skip", "replace"])
def test_what_is_no_file_is_never_replaced(
    replica: Path, target: Path, if_exists: Any
) -> None:
    """A folder or a pipe at the path is a mistake."""
    target.mkdir()
    with pytest.raises(TargetExistsError, match="not a regular file"):
        restore(replica, target, if_exists=if_exists)
    target.rmdir()
    os.mkfifo(target)
    with pytest.raises(TargetExistsError, match="not a regular file"):
        restore(replica, target, if_exists=if_exists)


def test_symbolic_link_is_followed(replica: Path, target: Path) -> None:
    """SQLite keeps the WAL beside the real file, so that is what counts."""
    link = target.with_name("link.db")
    link.symlink_to(target.name)
    assert restore(replica, link).path == link
    assert link.is_symlink() and tables(target) == ["fresh"]
    sidecar = target.with_name(target.name + "-wal")
    target.unlink()
    sidecar.write_bytes(b"left")
    with pytest.raises(TargetExistsError):
        restore(replica, link)


def test_missing_folders_are_made(replica: Path, target: Path) -> None:
    """As Litestream does."""
    deep = target.parent / "a" / "b" / "app.db"
    assert restore(replica, deep).restored
    assert tables(deep) == ["fresh"]


def test_disk_without_room_is_refused_before_writing(
    replica: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the numbers, and nothing is left."""
    usage = type("usage", (), {"total": 10**9, "free": 4096})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 8192 more bytes, 4096 are free") as caught:
        restore(replica, target)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(target.parent) == []


def restore_with_limit(replica: Path, target: Path) -> None:
    """In a process of its own: restore where files cannot grow."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    with pytest.raises(OSError, match="File too large"):
        restore(replica, target, if_exists="replace")
    os._exit(7)


def test_write_error_leaves_everything_as_it_was(replica: Path, target: Path) -> None:
    """A disk that fills up midway fails the restore and nothing else."""
    make_crashed(target)
    before = contents(target.parent)
    process = get_context("spawn").Process(
        target=restore_with_limit, args=(replica, target)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 7
    assert contents(target.parent) == before
