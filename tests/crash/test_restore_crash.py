"""A restore that is killed, or fails, at any of its steps on names."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from support.crashed import make_crashed
from support.recording import Recording

from sqlitereplica.restore import restore
from sqlitereplica.restore.aside import Aside
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.crash

STEPS = ("rename", "replace", "link", "unlink", "fsync", "utime")
"""What changes names, or makes them durable."""

OLD, NEW = ["old", "old_in_wal"], ["fresh"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replica, and ``old``: a folder with a database whose WAL was not checkpointed."""
    folder = tmp_path_factory.mktemp("made")
    recording = Recording(folder / "source.db", LTXStore.open(folder / "replica"))
    recording.commit("CREATE TABLE fresh(a)")
    recording.close()
    (folder / "old").mkdir()
    app = folder / "old" / "app.db"
    make_crashed(app)
    (folder / "old" / "app.db-journal").write_bytes(b"")
    return folder


def interrupt(step: int, how: str) -> list[int]:
    """Make the given step on names fail, or end the process just before it."""
    count = [0]

    def wrap(call: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == step:
                if how == "kill":
                    os._exit(9)
                raise KeyboardInterrupt(call.__name__)
            return call(*arguments, **options)

        return run

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name)))
    return count


def restore_interrupted(made: Path, app: Path, if_exists: Any, step: int) -> None:
    """In a process of its own: be killed just before a step."""
    interrupt(step, "kill")
    restore(made / "replica", app, if_exists=if_exists)
    os._exit(0)


def run_killed(made: Path, app: Path, if_exists: str, step: int) -> bool:
    """Restore in a child that is killed at a step; True if it had fewer steps."""
    child = get_context("spawn").Process(
        target=restore_interrupted, args=(made, app, if_exists, step)
    )
    child.start()
    child.join(60)
    assert child.exitcode in (0, 9)
    return child.exitcode == 0


def tables(path: Path) -> list[str]:
    """What a copy of a database and its sidecars has."""
    copy = path.parent / "copy"
    copy.mkdir()
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, copy)
    connection = sqlite3.connect(copy / path.name)
    rows = connection.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
    connection.close()
    shutil.rmtree(copy)
    return [name for (name,) in rows]


def judge(app: Path) -> str:
    """Which database has the name: none, the old one whole or the new one alone."""
    if not app.exists():
        return "none"
    if tables(app) == OLD:
        return "old"
    assert tables(app) == NEW
    beside = [f.name for f in app.parent.iterdir() if f.name.startswith("app.db-")]
    assert beside == [], "a sidecar of the old database beside the new one"
    return "new"


def old_set_aside(folder: Path) -> Path:
    """The old database under the name that it has meanwhile, or is kept under."""
    found = [*folder.glob(".app.db.*.old"), *folder.glob("app.db.before-*[0-9Z]")]
    [path] = [path for path in found if path.stat().st_size]
    return path


def test_killed_replacement_never_mixes_old_and_new(made: Path, tmp_path: Path) -> None:
    """At every step the path has nothing, all of the old, or only the new; then go on."""
    seen = []
    for step in range(1, 40):
        folder = tmp_path / str(step)
        shutil.copytree(made / "old", folder)
        finished = run_killed(made, folder / "app.db", "replace", step)
        seen.append(judge(folder / "app.db"))
        if seen[-1] == "none":
            assert tables(old_set_aside(folder)) == OLD
        again = restore(made / "replica", folder / "app.db", if_exists="replace")
        assert again.restored == (seen[-1] != "new")
        assert judge(folder / "app.db") == "new"
        if finished:
            break
    assert finished and set(seen) == {"old", "none", "new"}


def test_restart_after_a_killed_replacement_may_skip(
    made: Path, tmp_path: Path
) -> None:
    """An application that restores only when nothing is there gets a sound database."""
    for step in range(1, 40):
        folder = tmp_path / str(step)
        shutil.copytree(made / "old", folder)
        finished = run_killed(made, folder / "app.db", "replace", step)
        restore(made / "replica", folder / "app.db", if_exists="skip")
        assert judge(folder / "app.db") in ("old", "new")
        if finished:
            return
    pytest.fail("the restore never got through")


@pytest.mark.parametrize("if_exists", ["error", "skip"])
def test_killed_restore_leaves_nothing_or_the_whole(
    made: Path, tmp_path: Path, if_exists: str
) -> None:
    """A new database appears whole, and a further restore or skip needs no help."""
    for step in range(1, 40):
        folder = tmp_path / str(step)
        folder.mkdir()
        finished = run_killed(made, folder / "app.db", if_exists, step)
        assert judge(folder / "app.db") in ("none", "new")
        restore(made / "replica", folder / "app.db", if_exists="skip")
        assert judge(folder / "app.db") == "new"
        if finished:
            return
    pytest.fail("the restore never got through")


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_interrupted_replacement_puts_the_old_database_back(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, links: bool
) -> None:
    """An exception at any step leaves all of the old database, or the new one alone."""
    seen = []
    for step in range(1, 40):
        folder = tmp_path / str(step)
        shutil.copytree(made / "old", folder)
        with monkeypatch.context() as patched:
            for name in STEPS:  # so that they are put back
                patched.setattr(os, name, getattr(os, name))
            if not links:
                patched.setattr(os, "link", refuse_links)
            count = interrupt(step, "raise")
            app = folder / "app.db"
            try:
                restore(made / "replica", app, if_exists="replace", keep_old=keep)
            except KeyboardInterrupt:
                pass
        seen.append(judge(folder / "app.db"))
        assert seen[-1] in ("old", "new")
        if seen[-1] == "old":
            names = {"app.db", "app.db-wal", "app.db-journal", "app.db-shm"}
            assert set(os.listdir(folder)) <= names
        elif keep:
            assert tables(old_set_aside(folder)) == OLD
        if count[0] < step:
            break
    assert count[0] < step and set(seen) == {"old", "new"}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_old_database_is_whole_at_every_step(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, links: bool
) -> None:
    """As if killed there: all of it is under one of its names, and never beside the new.

    Without hard links its WAL may still be under the old name when the file is not.
    """
    seen = []
    for step in range(1, 40):
        folder = tmp_path / str(step)
        shutil.copytree(made / "old", folder)
        app = folder / "app.db"
        with monkeypatch.context() as patched:
            patched.setattr(Aside, "back", lambda aside: None)
            for name in STEPS:  # so that they are put back
                patched.setattr(os, name, getattr(os, name))
            if not links:
                patched.setattr(os, "link", refuse_links)
            count = interrupt(step, "raise")
            try:
                restore(made / "replica", app, if_exists="replace", keep_old=keep)
            except KeyboardInterrupt:
                pass
        seen.append(judge(app))
        if seen[-1] == "none" or (seen[-1] == "new" and keep):
            aside = old_set_aside(folder)
            without_wal = not links and (folder / "app.db-wal").exists()
            assert without_wal or tables(aside) == OLD
        again = restore(made / "replica", app, if_exists="replace", keep_old=keep)
        assert judge(app) == "new"
        if again.old is not None:
            assert tables(again.old) == OLD
        if count[0] < step:
            break
    assert count[0] < step and set(seen) == {"old", "none", "new"}


def refuse_links(*_: Any) -> None:
    """A filesystem without hard links."""
    raise OSError(errno.EPERM, "no hard links")


@pytest.mark.parametrize("links", [True, False])
def test_each_step_of_a_replacement_is_durable_before_the_next(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The folder is synced between them: a power loss cannot reorder them."""
    folder = tmp_path / "out"
    shutil.copytree(made / "old", folder)
    events: list[str] = []

    def noting(name: str) -> Any:
        call = getattr(os, name)

        def run(*arguments: Any) -> None:
            what = name
            if name == "fsync":
                is_folder = stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
                what = "sync folder" if is_folder else "sync file"
            events.append(what)
            call(*arguments)

        return run

    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    for name in ("fsync", "rename", "replace", "link", "unlink"):
        monkeypatch.setattr(os, name, noting(name))
    restore(made / "replica", folder / "app.db", if_exists="replace")
    end = ["replace", "sync folder", *["unlink"] * 3, "unlink"]  # of the temporary name
    if links:
        second = ["link", "link", "sync folder", "rename", "sync folder"]
        assert events == [
            *("sync file", *second),
            *["unlink"] * 3,  # the first names of WAL and journal, and the -shm
            *("sync folder", *end),
        ]
    else:
        moved = ["rename", "sync folder"] * 3
        tried = ["link", "link"]
        assert events == ["sync file", *tried, *moved, "unlink", "sync folder", *end]


@pytest.mark.parametrize("links", [True, False])
def test_database_comes_back_after_what_belongs_to_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """When a replacement fails its steps are undone in reverse order."""
    folder = tmp_path / "out"
    shutil.copytree(made / "old", folder)
    made_names: list[str] = []

    def noting(name: str) -> Any:
        call = getattr(os, name)

        def run(source: str, target: str) -> None:
            if name == "link" and not links:
                refuse_links()
            made_names.append(os.path.basename(target))
            call(source, target)

        return run

    def fail(source: str, target: str) -> None:
        raise PermissionError(target)

    monkeypatch.setattr(os, "rename", noting("rename"))
    monkeypatch.setattr(os, "link", noting("link"))
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError):
        restore(made / "replica", folder / "app.db", if_exists="replace")
    names = ["app.db-wal", "app.db-journal", "app.db"]
    assert made_names[3:] == names
    moved = [name.rpartition(".old")[2] for name in made_names[:3]]
    assert moved == (["-wal", "-journal", ""] if links else ["", "-wal", "-journal"])
    assert judge(folder / "app.db") == "old"
    assert sorted(os.listdir(folder)) == sorted(names)


def test_interrupt_right_after_the_naming_keeps_the_new_database(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the new database has the name the old WAL must not come back to it."""
    folder = tmp_path / "out"
    shutil.copytree(made / "old", folder)
    replace = os.replace

    def interrupted(source: str, target: str) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore(made / "replica", folder / "app.db", if_exists="replace")
    assert judge(folder / "app.db") == "new"
