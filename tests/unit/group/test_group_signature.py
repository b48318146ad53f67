"""Signatures of real files, and notes about them."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from sqlitereplica.group.record import Records, fingerprint
from sqlitereplica.group.signature import (
    Signature,
    holds,
    is_settled,
    look,
    sealed,
)

MS, SECOND = 1_000_000, 1_000_000_000
ODD = 123_456_789


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database in WAL mode that nobody has open."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(x)")
    return path


def settled_look(path: Path) -> Signature:
    """The signature, once the clock has ticked on."""
    time.sleep(0.11)
    found = look(str(path))
    assert found is not None
    return found


def test_reading_changes_no_signature(path: Path) -> None:
    """An empty WAL comes and goes with readers: it says nothing."""
    known = settled_look(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select count(*) from t").fetchone() == (0,)
        assert (path.parent / "a.db-wal").exists()
        seen = look(str(path))
    assert seen == known == look(str(path))


def test_a_commit_changes_it_and_a_close_after_a_checkpoint_does_not(
    path: Path,
) -> None:
    """What is in the database file already is no reason to open it."""
    before = settled_look(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("insert into t values(1)")
        db.commit()
        committed = look(str(path))
        assert committed is not None and committed.wal_size > 0
        assert not holds(before, committed)
        db.execute("pragma wal_checkpoint(passive)")
        known = settled_look(path)
    after = look(str(path))
    assert after is not None and after.wal_size == 0
    assert after != known and holds(known, after)
    assert not holds(after, known)


def test_a_close_that_copies_the_wal_changes_it(path: Path) -> None:
    """Without a checkpoint before, the close writes to the database file."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("insert into t values(1)")
        db.commit()
        known = settled_look(path)
    after = look(str(path))
    assert after is not None and not holds(known, after)


def test_no_file_has_no_signature(tmp_path: Path) -> None:
    """Nor has one in a folder that is not there, or is none."""
    (tmp_path / "file").touch()
    for name in ("a.db", "nowhere/a.db", "file/a.db"):
        assert look(str(tmp_path / name)) is None


@pytest.mark.parametrize(
    ("age", "settled"),
    [(0, False), (99 * MS, False), (101 * MS, True), (-99 * MS, False)],
)
def test_times_within_a_tick_are_not_settled(age: int, settled: bool) -> None:
    """Neither of the database, nor of a WAL; a WAL that is not there has none."""
    now = 1_000 * SECOND + ODD
    for times in ([now - age, 1], [1, now - age]):
        assert is_settled(Signature(1, 1, 4096, *times), now) is settled
        with_wal = Signature(1, 1, 4096, 1, 1, 2, 4152, *times)
        assert is_settled(with_wal, now) is settled
        without = Signature(1, 1, 4096, 1, 1, 0, 0, *times)
        assert is_settled(without, now)


def test_whole_seconds_need_more_time(path: Path) -> None:
    """They may be of a file system that knows no smaller ones."""
    stamp = Signature(1, 1, 4096, 1_000 * SECOND, 1_000 * SECOND)
    assert not is_settled(stamp, 1_002 * SECOND)
    assert is_settled(stamp, 1_003 * SECOND)


def test_times_of_a_clock_that_was_set_back_are_settled() -> None:
    """They are not met again by what is written now."""
    stamp = Signature(1, 1, 4096, 9_000 * SECOND + ODD, 9_000 * SECOND + ODD)
    assert is_settled(stamp, 1_000 * SECOND)


def test_a_seal_is_settled_and_holds(path: Path) -> None:
    """Also of a database that was written just now."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("insert into t values(1)")
        db.commit()
        seal = sealed(str(path), sqlite3.connect)
        seen = look(str(path))
    assert seal is not None and seen is not None
    assert holds(seal, seen)
    after = look(str(path))
    assert after is not None and holds(seal, after)


def test_no_seal_while_somebody_writes(path: Path) -> None:
    """A transaction that has written frames may end after any look."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma cache_size=1")
        db.execute("begin immediate")
        db.execute("insert into t values(zeroblob(100000))")  # spills into the WAL
        time.sleep(0.11)
        assert sealed(str(path), sqlite3.connect) is None
        db.execute("commit")
    assert sealed(str(path), sqlite3.connect) is not None


def test_no_seal_while_the_clock_stands(path: Path) -> None:
    """What is written later could have the same times."""
    mtime = os.stat(path).st_mtime_ns
    pauses: list[float] = []
    seal = sealed(str(path), sqlite3.connect, now=lambda: mtime, sleep=pauses.append)
    assert seal is None and len(pauses) == 3


def test_a_seal_writes_nothing(path: Path) -> None:
    """Not a byte of the database changes."""
    content = path.read_bytes()
    sealed(str(path), sqlite3.connect)
    assert path.read_bytes() == content


# -- notes ---------------------------------------------------------------------------------

KNOWN = Signature(1, 2, 3, 4, 5, 6, 7, 8, 9)


def test_a_note_is_read_as_written(tmp_path: Path) -> None:
    """With a time, and without."""
    records = Records(b"b" * 16)
    for due in (None, 12.5):
        records.write(tmp_path, "mark", KNOWN, due)
        found = records.read(tmp_path, "mark")
        assert found is not None
        assert (found.signature, found.tend_at) == (KNOWN, due)
        assert isinstance(found.signature, Signature)


def test_notes_that_do_not_count(tmp_path: Path) -> None:
    """Of another boot, of other replicas, damaged ones, none at all."""
    records = Records(b"b" * 16)
    assert records.read(tmp_path, "mark") is None
    records.write(tmp_path, "mark", KNOWN, None)
    assert Records(b"c" * 16).read(tmp_path, "mark") is None
    assert records.read(tmp_path, "other") is None
    note = tmp_path / "parked"
    data = note.read_bytes()
    for damaged in (b"", data[:-1], b"[]", b"\xff", data.replace(b"[1,", b'["1",')):
        note.write_bytes(damaged)
        assert records.read(tmp_path, "mark") is None


def test_a_note_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    """The next process opens the database once more, that is all."""
    records = Records()
    records.write(tmp_path / "nowhere", "mark", KNOWN, None)
    assert records.read(tmp_path / "nowhere", "mark") is None


def test_fingerprints_tell_settings_apart() -> None:
    """Other replicas or another retention: the note is of no use."""
    base = fingerprint(["s3://b/a"], ["24h"])
    assert base == fingerprint(["s3://b/a"], ["24h"])
    assert base != fingerprint(["s3://b/b"], ["24h"])
    assert base != fingerprint(["s3://b/a"], ["25h"])
    assert fingerprint(["a\udcff"], [])
