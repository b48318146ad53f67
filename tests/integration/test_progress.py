"""Bars for what takes long, by the package that is installed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sqlitereplica import Replicator, branch, progress, restore, verify

OTHER = {"tqdm": "rich", "rich": "tqdm"}
SIZE = 3 << 20


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 3 MiB that compress badly."""
    folder = tmp_path_factory.mktemp("progress")
    with closing(sqlite3.connect(folder / "app.db")) as app:
        app.execute("PRAGMA journal_mode = wal")
        app.execute("CREATE TABLE t (body)")
        with Replicator(folder / "app.db", replicas=[folder / "replica"]):
            with app:
                app.execute("INSERT INTO t VALUES (?)", [os.urandom(SIZE)])
    return folder / "replica"


@pytest.fixture(params=sorted(OTHER))
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only package there is that draws bars; no widgets."""
    name: str = request.param
    monkeypatch.setitem(sys.modules, OTHER[name], None)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    return name


def test_restore_draws_a_bar_to_the_end(
    package: str, replica: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All bytes, with the description, on stderr and in one call."""
    result = restore(replica, tmp_path / "a.db", callback=progress("a [b]"))
    output, drawn = capfd.readouterr()
    assert result.bytes_fetched > SIZE
    assert "a [b]" in drawn and not output
    end = drawn.rpartition("a [b]")[2]
    assert "100%" in end if package == "tqdm" else "3.0/3.0 MiB" in end


def test_everything_that_takes_a_callback_draws(
    package: str, replica: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """verify counts bytes, a branch that is finished counts pages."""
    verify(replica, callback=progress("verify"))
    with branch(replica, tmp_path / "b.db") as made:
        with progress("finish", unit="pages") as bar:
            made.finish(bar)
    drawn = capfd.readouterr().err
    assert "verify" in drawn and "finish" in drawn
    if package == "tqdm":
        assert drawn.count("100%") == 2 and "pages/s" in drawn


def test_bar_with_nothing_to_count_draws_nothing(
    package: str, replica: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As when the database is there already."""
    restore(replica, tmp_path / "a.db")
    bar = progress("nothing")
    restore(replica, tmp_path / "a.db", if_exists="skip", callback=bar)
    bar.close()
    bar.close()
    del bar
    assert capfd.readouterr() == ("", "")


def test_bar_ends_when_a_restore_fails(
    package: str, replica: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing goes on drawing, and the error is that of the restore."""
    (tmp_path / "damaged" / "ltx").mkdir(parents=True)
    for file in replica.rglob("*.ltx"):
        copy = tmp_path / "damaged" / file.relative_to(replica)
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        copy.write_bytes(data)
    with pytest.raises(Exception, match="damaged"), progress("fails") as bar:
        restore(tmp_path / "damaged", tmp_path / "a.db", callback=bar)
    capfd.readouterr()
    del bar
    assert capfd.readouterr() == ("", "")


def test_bar_begins_anew_when_more_is_expected(
    package: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One call may have two parts; each is drawn to its end."""
    bar = progress("parts", unit="pages")
    for size in (10, 30):
        bar.set_size(size)
        bar.absolute_update(size)
    assert bar._bar is None
    drawn = capfd.readouterr().err
    ends = {"tqdm": ("10.0/10.0", "30.0/30.0"), "rich": ("10/10", "30/30")}[package]
    assert all(end in drawn for end in ends)


def test_without_a_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither is a dependency."""
    for name in OTHER:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'sqlitereplica\[progress\]'"):
        progress()


def test_import_of_the_package_is_free_of_what_draws() -> None:
    """Who draws nothing pays nothing."""
    code = (
        "import sys, sqlitereplica\n"
        "drawers = {'IPython', 'matplotlib', 'pandas', 'rich', 'tqdm'}\n"
        "print(sorted(drawers & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "[]\n"
