"""A mirror beside a store, every step taken by the test."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.histories import fill, steps
from support.stepping import Stepped

from sqlitereplica import DatabaseStateError, Mirror, StoreError, TargetExistsError
from sqlitereplica.replicate.anyworker import Phase
from sqlitereplica.store import LTXStore


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The application's connection."""
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as made:
        made.execute("pragma page_size=1024")
        made.execute("pragma auto_vacuum=incremental")
        made.execute("pragma journal_mode=wal")
        made.execute("create table t(id integer primary key, v)")
        yield made


@pytest.fixture
def stepped(db: sqlite3.Connection, tmp_path: Path) -> Iterator[Stepped]:
    """A store and a mirror."""
    made = start(tmp_path, Mirror(tmp_path / "m" / "a.db"))
    yield made
    made.kill()


def start(folder: Path, mirror: Mirror, **settings: int) -> Stepped:
    """The engine, with a store and a mirror."""
    return Stepped(
        folder / "app.db",
        [lambda: LTXStore.open(folder / "replica")],
        mirrors=[mirror],
        **settings,
    )


def same(db: sqlite3.Connection, path: Path) -> bool:
    """Whether a file is the database, page by page but for the header."""
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("pragma integrity_check").fetchone() == ("ok",)
        return reader.serialize()[100:] == db.serialize()[100:]


def deltas(stepped: Stepped) -> list[object]:
    """How many pages each comparison brought to the mirror."""
    name = stepped.mirrors[0].name
    return [
        event.data["pages"]
        for event in stepped.events
        if event.action == "delta" and event.replica == name
    ]


def test_each_increment_reaches_the_mirror(
    db: sqlite3.Connection, stepped: Stepped, tmp_path: Path
) -> None:
    """Growth, overflow, VACUUM, shrinking: the file is the database after each sync."""
    for _ in steps(db, 1024):
        assert stepped.durable()
        assert same(db, tmp_path / "m" / "a.db")
    assert len(deltas(stepped)) == 1, "it was compared at the start only"
    status = stepped.mirrors[0].status()
    assert (status.state, status.error) == ("streaming", None)
    assert status.txid > 5


def test_restart_brings_only_what_differs(
    db: sqlite3.Connection, stepped: Stepped, tmp_path: Path
) -> None:
    """What changed while nobody replicated is found by comparing; nothing else moves."""
    fill(db, 300)
    assert stepped.durable()
    txid = stepped.mirrors[0].txid
    stepped.restart()
    assert stepped.durable()
    assert stepped.mirrors[0].txid == txid
    stepped.kill()
    db.execute("update t set v = 'x' where id = 7")
    stepped.begin()
    assert stepped.durable()
    assert same(db, tmp_path / "m" / "a.db")
    assert stepped.mirrors[0].txid == txid + 1
    assert 0 < deltas(stepped)[-1] < 5  # type: ignore[operator]


def test_mirror_that_lost_its_place_is_brought_up(
    db: sqlite3.Connection, stepped: Stepped, tmp_path: Path
) -> None:
    """It compares again, and goes on."""
    assert stepped.durable()
    fill(db, 50)
    stepped.mirrors[0].fall_behind(None)
    assert stepped.durable()
    assert same(db, tmp_path / "m" / "a.db")
    assert len(deltas(stepped)) == 2


def test_reader_in_the_way_is_waited_for_and_then_shown(
    db: sqlite3.Connection, stepped: Stepped, tmp_path: Path
) -> None:
    """Other replicas are not delayed; sync waits; nothing is lost or done twice."""
    path = tmp_path / "m" / "a.db"
    assert stepped.durable()
    mirror, store = stepped.mirrors[0], stepped.workers[0]
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from t").fetchone()
        fill(db, 3)
        ticket = stepped.sync()
        assert not ticket.future.done()
        assert store.acked > mirror.acked
        assert mirror.status().error is None
        assert mirror.pause > 0
        stepped.clock.advance(2)
        stepped.run()
        assert "reader" in (mirror.status().error or "")
        assert not ticket.future.done()
        fill(db, 3)
        second = stepped.sync()
        assert store.acked == stepped.engine.capture.seq
        assert reader.execute("select count(*) from t").fetchone() == (0,)
        reader.execute("commit")
        stepped.clock.advance(2)
        stepped.run()
    assert ticket.future.result(0) is None
    assert second.future.result(0) is None
    assert mirror.status().error is None
    assert same(db, path)


@pytest.mark.parametrize("written", [False, True], ids=["stranger", "written"])
def test_what_is_at_the_path_is_not_overwritten(
    db: sqlite3.Connection, stepped: Stepped, tmp_path: Path, written: bool
) -> None:
    """A stranger's database, or somebody's write, is an error; ``overwrite`` takes it."""
    path = tmp_path / "m" / "a.db"
    if written:
        assert stepped.durable()
        stepped.kill()
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("create table precious(x)")
    stepped.begin()
    ticket = stepped.sync()
    expected = DatabaseStateError if written else TargetExistsError
    with pytest.raises(expected):
        ticket.future.result(0)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("select count(*) from precious").fetchone() == (0,)
    again = start(tmp_path, Mirror(path, overwrite=True))
    stepped.kill()
    assert again.durable()
    assert same(db, path)
    again.kill()


def test_disk_that_fails_is_tried_again(
    db: sqlite3.Connection,
    stepped: Stepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An increment that could not be written stays in line, and the file is as it was."""
    assert stepped.durable()
    fill(db, 30)
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if len(data) > 128:
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        ticket = stepped.sync()
        assert not ticket.future.done()
        error = stepped.mirrors[0].health.error
        assert isinstance(error, StoreError)
        assert isinstance(error.__cause__, OSError)
    stepped.clock.advance(70)
    stepped.run()
    assert ticket.future.result(0) is None
    assert same(db, tmp_path / "m" / "a.db")
    assert len(deltas(stepped)) == 1, "nothing had to be compared"


def test_dated_mirror_rolls_over_and_old_files_go(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Each day has the state at its end; of four the newest two stay, plain and whole."""
    folder = tmp_path / "daily"
    stepped = start(tmp_path, Mirror(folder / "%Y-%m-%d.db", keep=2))
    ends = []
    for _ in range(4):
        fill(db, 10)
        assert stepped.durable()
        ends.append(db.serialize()[100:])
        stepped.clock.advance("24h")
    days = sorted(name for name in os.listdir(folder) if name.endswith(".db"))
    assert days == ["2027-01-17.db", "2027-01-18.db"]
    stepped.run()
    fill(db, 10)
    assert stepped.durable()
    assert same(db, folder / "2027-01-19.db")
    assert sorted(os.listdir(folder)) == [
        ".2027-01-19.db-sqlitereplica",
        "2027-01-18.db",
        "2027-01-19.db",
    ]
    with closing(sqlite3.connect(folder / "2027-01-18.db")) as reader:
        assert reader.serialize()[100:] == ends[3]
        assert reader.execute("pragma journal_mode").fetchone() == ("delete",)
    assert stepped.mirrors[0].pause > 0, "it looks at the time by itself"
    assert stepped.mirrors[0].phase is Phase.STREAM
    stepped.kill()
