"""A file changes from one state to the next as SQLite would change it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.plainfiles import Image, begin, images_of, open_file

from sqlitereplica.errors import (
    ChecksumMismatchError,
    DatabaseStateError,
    InvalidFileError,
)
from sqlitereplica.restore import livefile
from sqlitereplica.restore.held import Goal, Held, HeldFile, cookie_of, head_of
from sqlitereplica.restore.livefile import LiveFile
from sqlitereplica.restore.pages import Gathered
from sqlitereplica.sqlite import SourceBusyError


class Changed:
    """The pages by which one image differs from another."""

    def __init__(self, old: Image, new: Image) -> None:
        self._new = new
        same_size = old.page_size == new.page_size
        self._pgnos = [
            pgno
            for pgno in new.pgnos()
            if not same_size or pgno > old.commit or old.page(pgno) != new.page(pgno)
        ]

    def pgnos(self) -> list[int]:
        """Their numbers."""
        return self._pgnos

    def page(self, pgno: int) -> bytes:
        """One of them."""
        return self._new.page(pgno)


class InjectedError(OSError):
    """What the test makes a call raise."""


def content(path: Path) -> bytes:
    """The bytes of a file, which is closed in this process."""
    return path.read_bytes()


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_every_step_makes_the_file_exactly_the_next_state(
    tmp_path: Path, page_size: int
) -> None:
    """Growth, overflow, schema, VACUUM, shrinking, and all of it backwards."""
    path = tmp_path / "f.db"
    images = list(images_of(tmp_path / "s.db", page_size))
    begin(path, images[0])
    old = images[0]
    with closing(sqlite3.connect(path)) as reader:
        for image in [*images[1:], *reversed(images)]:
            with closing(open_file(path)) as file:
                held = file.apply(Changed(old, image), image.goal)
                assert held.checksum == image.goal.checksum
                (state,) = reader.execute("pragma integrity_check").fetchone()
                assert state == "ok"
                (pages,) = reader.execute("pragma page_count").fetchone()
                assert pages == image.commit
                assert file.is_as_held()
            old = image
    assert content(path) == old.plain(held.counter, held.cookie)
    assert sorted(os.listdir(tmp_path)) == [".f.db.held", "f.db", "s.db"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_journal_is_for_those_whom_the_file_is_for(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has pages of it: nobody else may read them, and no reader must fail at it."""
    path = tmp_path / "f.db"
    first, second, *_ = images_of(tmp_path / "s.db", 4096)
    begin(path, first)
    path.chmod(mode)
    seen: list[int] = []
    rename = os.rename

    def watched(source: str, target: str) -> None:
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        rename(source, target)

    with closing(open_file(path)) as file, monkeypatch.context() as patched:
        patched.setattr(os, "rename", watched)
        file.apply(Changed(first, second), second.goal)
    assert seen == [mode]


def test_applying_a_state_again_changes_nothing_but_the_counter(tmp_path: Path) -> None:
    """Overlapping files bring pages that are there: that is harmless."""
    path = tmp_path / "f.db"
    *_, image = images_of(tmp_path / "s.db")
    begin(path, image)
    with closing(open_file(path)) as file:
        held = file.apply(image, image.goal)
    assert content(path) == image.plain(held.counter, held.cookie)


def test_another_page_size_replaces_every_page(tmp_path: Path) -> None:
    """After a VACUUM with a new page size a reader that is open sees the new state."""
    path = tmp_path / "f.db"
    *_, small = images_of(tmp_path / "a.db", 512)
    *_, large = images_of(tmp_path / "b.db", 8192)
    begin(path, small)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("select count(*) from t").fetchone()
        with closing(open_file(path)) as file:
            file.apply(large, large.goal)
            assert reader.execute("pragma integrity_check").fetchone() == ("ok",)
            held = file.apply(small, small.goal)
            assert reader.execute("pragma integrity_check").fetchone() == ("ok",)
    assert content(path) == small.plain(held.counter, held.cookie)


@pytest.mark.parametrize("fault", ["checksum", "missing page"])
def test_pages_that_do_not_lead_to_the_state_leave_the_file_alone(
    tmp_path: Path, fault: str
) -> None:
    """A wrong base, or a hole, is noticed before the first byte is written."""
    path = tmp_path / "f.db"
    first, *_, last = images_of(tmp_path / "s.db")
    begin(path, first)
    before = content(path)
    pages, checksum = Changed(first, last), last.goal.checksum ^ 1
    if fault == "missing page":
        del pages.pgnos()[-1]
        checksum = 0  # Litestream records none
    goal = replace(last.goal, checksum=checksum)
    expected = ChecksumMismatchError if fault == "checksum" else InvalidFileError
    with closing(open_file(path)) as file:
        with pytest.raises(expected):
            file.apply(pages, goal)
        assert file.is_as_held()
    assert content(path) == before
    assert sorted(os.listdir(tmp_path)) == [".f.db.held", "f.db", "s.db"]


def test_write_by_somebody_else_is_refused(tmp_path: Path) -> None:
    """Nothing of what they wrote is overwritten; ``replace`` does when told to."""
    path = tmp_path / "f.db"
    first, *_, last = images_of(tmp_path / "s.db")
    begin(path, first)
    with closing(open_file(path)) as file:
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("insert into t(v) values('theirs')")
        assert not file.is_as_held()
        with pytest.raises(DatabaseStateError) as caught:
            file.apply(Changed(first, last), last.goal)
        assert caught.value.kind == "written"
    with closing(sqlite3.connect(path)) as reader:
        rows = reader.execute("select v from t where v = 'theirs'").fetchall()
        assert rows == [("theirs",)]
    with closing(open_file(path)) as file:
        assert file.held is None
        held = file.replace(last, last.goal)
    assert content(path) == last.plain(held.counter, held.cookie)


def test_switch_to_wal_by_somebody_else_is_refused_and_can_be_reclaimed(
    tmp_path: Path,
) -> None:
    """In WAL mode our lock keeps no reader out, so nothing is written then."""
    path = tmp_path / "f.db"
    first, *_, last = images_of(tmp_path / "s.db")
    notes = begin(path, first)
    with closing(open_file(path)) as file:
        with closing(sqlite3.connect(path)) as other:
            other.execute("pragma journal_mode=wal").fetchall()
            with pytest.raises(DatabaseStateError) as caught:
                file.apply(Changed(first, last), last.goal)
            assert caught.value.kind == "written"
    with pytest.raises(DatabaseStateError) as caught:
        open_file(path)
    assert caught.value.kind == "written"
    with closing(
        LiveFile(str(path), sqlite3.connect, notes, copy="sqlite3", reclaim=True)
    ) as file:
        held = file.replace(last, last.goal)
    assert content(path) == last.plain(held.counter, held.cookie)


def test_reader_is_waited_for_and_keeps_its_state(tmp_path: Path) -> None:
    """While a read transaction is open the step is refused, and others can still read."""
    path = tmp_path / "f.db"
    first, *_, last = images_of(tmp_path / "s.db")
    begin(path, first)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as reader,
        closing(sqlite3.connect(path)) as other,
        closing(open_file(path)) as file,
    ):
        reader.execute("begin")
        count = reader.execute("select count(*) from t").fetchone()
        with pytest.raises(SourceBusyError):
            file.apply(Changed(first, last), last.goal)
        assert other.execute("select count(*) from t").fetchone() == count
        assert reader.execute("select count(*) from t").fetchone() == count
        reader.execute("commit")
        file.apply(Changed(first, last), last.goal)
        assert reader.execute("select count(*) from t").fetchone() != count


def test_reader_forgets_the_schema_of_a_source_that_was_replaced(
    tmp_path: Path,
) -> None:
    """Another schema under the same cookie, by increments, and a history that goes back."""
    path = tmp_path / "f.db"
    images = []
    for number, table in enumerate(("t(a, b)", "t(b, a, c)"), 1):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as db:
            db.execute("pragma journal_mode=wal")
            db.execute(f"create table {table}")
            db.execute("insert into t(a, b) values('a', 'b')")
            db.commit()
            images.append(Image(db.serialize(), number))
    one, two = images
    assert cookie_of(one.data) == cookie_of(two.data)
    begin(path, one)
    seen = []
    with (
        closing(sqlite3.connect(path)) as reader,
        closing(open_file(path)) as file,
    ):
        for old, new in ((one, two), (two, one), (one, two)):
            assert reader.execute("select a, b from t").fetchall() == [("a", "b")]
            held = file.apply(Changed(old, new), new.goal)
            seen.append(held.cookie)
        assert reader.execute("select a, b, c from t").fetchall() == [("a", "b", None)]
        held = file.replace(two, two.goal)
        assert held.cookie == seen[-1], "the same schema: nothing to be read anew"
    assert len(set(seen)) == 3


@pytest.mark.parametrize("call", ["pwrite", "fsync", "ftruncate", "unlink", "rename"])
def test_failure_of_the_disk_leaves_the_old_state(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a call fails, SQLite puts the old state back, and the next try succeeds."""
    path = tmp_path / "f.db"
    *_, large, small = sorted(images_of(tmp_path / "s.db"), key=lambda i: -i.commit)
    begin(path, large)
    real = getattr(os, call)
    for failing in range(1, 9):
        calls = 0

        def fail(*arguments: object, at: int = failing) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                raise InjectedError(errno.EIO, "injected")
            return real(*arguments)

        with closing(open_file(path)) as file:
            with monkeypatch.context() as patched:
                patched.setattr(os, call, fail)
                with suppress(InjectedError):
                    file.apply(small, small.goal)
            if calls < failing:
                assert failing > 1, "the call is made"
                break
            assert file.held is not None
            assert file.held.txid == large.goal.txid
            with closing(sqlite3.connect(path)) as reader:
                (pages,) = reader.execute("pragma page_count").fetchone()
                assert pages == large.commit
                state = reader.execute("pragma integrity_check").fetchone()
                assert state == ("ok",)
            assert file.is_as_held()


def test_journal_that_comes_back_after_a_power_failure_finds_its_state_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a journal is gone is on disk when the next one's name is, and not before."""
    path, journal = tmp_path / "f.db", tmp_path / "f.db-journal"
    notes = path.with_name(f".{path.name}.held")
    first, second, third, *_ = images_of(tmp_path / "s.db")
    begin(path, first)
    kept = b""
    unlink = os.unlink

    def keep(name: str) -> None:
        nonlocal kept
        kept = Path(name).read_bytes()
        unlink(name)

    def fail(folder: str) -> None:
        nonlocal noted
        noted = notes.read_bytes()
        raise InjectedError(errno.EIO, "the power fails")

    noted = b""
    with closing(open_file(path)) as file:
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", keep)
            file.apply(Changed(first, second), second.goal)
        with monkeypatch.context() as patched:
            patched.setattr(livefile, "sync_directory", fail)
            with suppress(InjectedError):
                file.apply(Changed(second, third), third.goal)
    assert kept and noted and not journal.exists()
    journal.write_bytes(kept)
    notes.write_bytes(noted)
    with closing(open_file(path)) as file:
        assert file.held is not None and file.held.txid == first.goal.txid
        file.apply(Changed(first, third), third.goal)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("pragma integrity_check").fetchone() == ("ok",)


def test_lock_page_is_never_written(tmp_path: Path) -> None:
    """Across 1 GiB a hole stays where SQLite has its locks; only there."""
    path, size, lock = tmp_path / "f.db", 65536, 16385
    *_, image = images_of(tmp_path / "s.db", size)
    zero = bytes(size)
    with path.open("wb") as sparse:
        sparse.write(image.plain(7)[:size])
        sparse.truncate((lock - 2) * size)
    notes = HeldFile(path.with_name(".f.db.held"))
    old = Held(
        txid=1,
        timestamp=1,
        page_size=size,
        commit=lock - 2,
        checksum=1 << 63,
        counter=7,
        head=head_of(image.page(1)),
        cookie=cookie_of(image.data),
    )
    notes.note(old)
    with Gathered(size, folder=str(tmp_path)) as pages:
        grown = [(pgno, b"x" * size) for pgno in (lock - 1, lock + 1, lock + 2)]
        pages.add(grown, lock + 2)
        goal = Goal(txid=2, timestamp=2, page_size=size, commit=lock + 2)
        with closing(open_file(path)) as file:
            held = file.apply(pages, goal)
            assert held.checksum != old.checksum
            assert path.stat().st_size == (lock + 2) * size
            back = Goal(txid=3, timestamp=3, page_size=size, commit=lock - 2)
            with Gathered(size, folder=str(tmp_path)) as nothing:
                nothing.add([], lock - 2)
                assert file.apply(nothing, back).checksum == old.checksum
            assert path.stat().st_size == (lock - 2) * size
            file.apply(pages, goal)
    with path.open("rb") as file_there:
        file_there.seek((lock - 2) * size)
        assert file_there.read(size) == b"x" * size
        assert file_there.read(size) == zero
        assert file_there.read() == b"x" * 2 * size


def test_gathered_pages_outgrow_memory_and_stay_the_newest(tmp_path: Path) -> None:
    """Past the limit pages go to a file; later copies win, dropped ones are gone."""
    with Gathered(512, folder=str(tmp_path), memory=1024) as pages:
        pages.add([(p, bytes([p]) * 512) for p in range(1, 8)], 7)
        pages.add([(p, bytes([100 + p]) * 512) for p in (1, 6)], 6)
        assert list(pages.pgnos()) == [1, 2, 3, 4, 5, 6]
        assert [pages.page(p)[0] for p in pages.pgnos()] == [101, 2, 3, 4, 5, 106]
        assert os.listdir(tmp_path) == []
        assert pages.size == 6 * 512
