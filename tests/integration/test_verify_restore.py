"""The restore that ``verify`` makes: what SQLite says of it, and that nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.replicas import memory_store
from support.troubled import TroubledStore

from sqlitereplica import StoreError, VerifyReport, VerifyStoppedError, ltx, verify
from sqlitereplica.restore import check
from sqlitereplica.restore.workspace import workspace
from sqlitereplica.store import LTXStore

PAGE_SIZE = 4096


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary databases, in which nothing is left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def publish(store: LTXStore, image: bytes, page_size: int = PAGE_SIZE) -> LTXStore:
    """Publish bytes as the only state of a replica."""
    pages = [image[at : at + page_size] for at in range(0, len(image), page_size)]
    header = ltx.Header(
        page_size=page_size, commit=len(pages), min_txid=1, max_txid=1, timestamp=10**12
    )
    data = ltx.encode(header, enumerate(pages, 1))
    store.put(0, 1, 1, data, timestamp=header.timestamp)
    return store


def made_by(*statements: str) -> bytes:
    """The database that statements make."""
    connection = sqlite3.connect(":memory:")
    connection.create_function("double", 1, lambda x: x * 2, deterministic=True)
    connection.create_collation("folded", lambda a, b: (a.lower() > b.lower()) - 1)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    image = connection.serialize()
    connection.close()
    return image


def restored(image: bytes | bytearray, scratch: Path, **options: Any) -> VerifyReport:
    """The report on a replica that holds a database."""
    store = publish(memory_store(), bytes(image))
    return verify(store, "restore", scratch=scratch, **options)


ROWS = (
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT"
)


def test_database_that_was_damaged_before_it_was_replicated(scratch: Path) -> None:
    """The replica is exact and the database is not sound: that is told, by SQLite."""
    image = made_by("CREATE TABLE t(b)", f"{ROWS} 900) SELECT hex(i * 99) FROM n")
    image = image[:PAGE_SIZE] + b"\x0d" + b"\xff" * 99 + image[PAGE_SIZE + 100 :]
    report = restored(image, scratch)
    assert report.latest_error is None and not report.latest_ok
    assert report.restored is not None and report.restored.integrity
    assert all(problem.startswith("SQLite: ") for problem in report.problems)


def test_index_that_disagrees_with_its_table_is_found_by_the_full_check(
    scratch: Path,
) -> None:
    """The quick one does not look, and says so in the report."""
    image = bytearray(
        made_by(
            "CREATE TABLE t(a)", "CREATE INDEX i ON t(a)", "INSERT INTO t VALUES (1000)"
        )
    )
    at = image.rindex((1000).to_bytes(2, "big"))
    assert at > 2 * PAGE_SIZE, "the index has the last page"
    image[at + 1] ^= 1
    report = restored(image, scratch)
    assert report.restored is not None and report.restored.integrity
    report = restored(image, scratch, check="quick")
    assert report.ok and report.restored is not None
    assert report.restored.check == "quick"


ORPHANS = (
    "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent)",
    "CREATE TABLE part(k TEXT PRIMARY KEY, p REFERENCES parent) WITHOUT ROWID",
)


def test_foreign_keys_that_are_violated_are_problems(scratch: Path) -> None:
    """Each is named by its row; for a database that does not enforce them not to ask."""
    image = made_by(
        *ORPHANS, "INSERT INTO child VALUES (7, 1)", "INSERT INTO part VALUES ('x', 2)"
    )
    report = restored(image, scratch)
    assert report.restored is not None and not report.restored.integrity
    assert set(report.problems) == {
        "foreign key: row 7 of table 'child' has no parent in 'parent'",
        "foreign key: a row of table 'part' has no parent in 'parent'",
    }
    assert restored(image, scratch, foreign_keys=False).ok


def test_only_the_first_violations_are_kept(scratch: Path) -> None:
    """A report on a million orphans is as short as any."""
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 300)"
    image = made_by(*ORPHANS, f"INSERT INTO child {rows} SELECT i, i FROM n")
    report = restored(image, scratch)
    assert report.restored is not None and report.restored.more_violations
    assert len(report.restored.foreign_key_violations) == 20
    assert report.problems[-1] == "foreign key: and more rows"


def test_foreign_key_that_cannot_be_checked_is_a_note(scratch: Path) -> None:
    """A key that refers to no unique column is a slip in the schema, no lost data."""
    image = made_by(
        "CREATE TABLE parent(a)",
        "CREATE TABLE child(p REFERENCES parent(a))",
        "INSERT INTO child VALUES (1)",
    )
    report = restored(image, scratch)
    assert report.ok
    [note] = report.notes
    assert note.kind == "unchecked" and "foreign key mismatch" in note.text


def test_full_check_that_needs_the_application_gives_way_to_the_quick_one(
    scratch: Path,
) -> None:
    """Functions and collations of the application are no problem of the replica."""
    image = made_by(
        "CREATE TABLE t(a TEXT COLLATE folded PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE u(a INT, b AS (double(a)) NOT NULL)",
        "CREATE INDEX i ON u(b)",
        "INSERT INTO t VALUES ('x')",
        "INSERT INTO u(a) VALUES (1)",
    )
    report = restored(image, scratch)
    assert report.ok and report.restored is not None
    assert report.restored.check == "quick"
    assert [note.kind for note in report.notes] == ["unchecked"]


def test_encrypted_database_needs_to_be_left_unchecked(scratch: Path) -> None:
    """It looks like noise; its checksums prove it all the same."""
    image = os.urandom(3 * PAGE_SIZE)
    report = restored(image, scratch)
    assert not report.ok and "not a database" in report.problems[0]
    report = restored(image, scratch, check=None)
    assert report.ok and report.restored is not None
    assert report.restored.check is None


def test_pages_of_another_size_than_the_databases_are_a_problem(scratch: Path) -> None:
    """What the files say of their pages has to be what the database says."""
    store = publish(memory_store(), made_by("CREATE TABLE t(a)"), page_size=1024)
    report = verify(store, "restore", scratch=scratch)
    assert "pages of 4096 bytes, in the replica of 1024" in report.problems[0]


# -- the place ---------------------------------------------------------------------------


def test_disk_without_room_is_no_problem_of_the_replica(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised as what it is, and nothing is left."""
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(total=10**9, free=10)
    )
    with pytest.raises(OSError) as caught:
        restored(made_by("CREATE TABLE t(a)"), scratch)
    assert caught.value.errno == errno.ENOSPC


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A scratch folder is not made; by default it is that for temporary files."""
    with pytest.raises(FileNotFoundError):
        restored(made_by("CREATE TABLE t(a)"), tmp_path / "missing")


def test_store_that_fails_during_the_restore(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it answers to nothing that is an error, if only one file fails a problem."""
    store = publish(memory_store(), made_by("CREATE TABLE t(a)"))
    assert isinstance(store, TroubledStore)
    reads: list[int] = []

    def fail(file: ltx.FileInfo, start: int) -> None:
        reads.append(1)
        if len(reads) > 1:
            raise StoreError("denied", operation="get", transient=False)

    store.before_get = fail
    report = verify(store, "restore", scratch=scratch)
    assert report.problems == ("the restore failed: denied",)

    def go(file: ltx.FileInfo, start: int) -> None:
        reads.append(1)
        if len(reads) > 1:
            monkeypatch.setattr(store, "list_level", lambda *_, **__: store.list_all())
            store.down = True
            raise StoreError("no answer", operation="get")

    reads.clear()
    store.before_get = go
    with pytest.raises(StoreError):
        verify(store, "restore", scratch=scratch)


def test_inspection_by_sqlite_can_be_stopped(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take minutes for a large database."""
    monkeypatch.setattr(check, "_TICK", 50)
    image = made_by("CREATE TABLE t(b)", f"{ROWS} 2000) SELECT hex(i) FROM n")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > most

    most = 10**9
    assert restored(image, scratch, stop=stop, scope="latest").ok
    assert asked > 50
    most, asked = asked - 5, 0
    with pytest.raises(VerifyStoppedError):
        restored(image, scratch, stop=stop, scope="latest")


def test_workspace_of_a_killed_process_is_removed_by_the_next(scratch: Path) -> None:
    """That of a living one is not, nor one that is just being made."""
    code = (
        "import sys, time; from sqlitereplica.restore.workspace import workspace\n"
        "with workspace(sys.argv[1]) as folder:\n"
        "    open(folder + '/database', 'w').close(); print(folder, flush=True)\n"
        "    time.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(scratch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    with workspace(scratch) as folder:
        assert left.exists(), "its process lives"
        assert Path(folder).stat().st_mode & 0o777 == 0o700
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    os.utime(left)
    with workspace(scratch):
        assert left.exists(), "it may be just being made"
    os.utime(left, (long_ago, long_ago))
    stranger = scratch / "sqlitereplica-verify-file"
    stranger.touch()
    os.utime(stranger, (long_ago, long_ago))
    with workspace(scratch):
        assert not left.exists()
    assert stranger.exists()
    stranger.unlink()
