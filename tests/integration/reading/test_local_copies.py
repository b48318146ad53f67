"""Reading from local copies of a replica: hydration, and a cache on the disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
from support.reading import masked, rows
from support.recording import Recording
from support.troubled import TroubledStore

from sqlitereplica import connect, replica_uri
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore

FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000)"
    " INSERT INTO t(b) SELECT randomblob(900) FROM n"
)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """A database and its replica in a folder."""
    made = Recording(tmp_path / "source.db", LTXStore.open(tmp_path / "replica"))
    made.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    made.commit(FILL)
    made.publish(9, 1, 2)
    return made


def wait_for_copy(connection: apsw.Connection, state: str = "complete") -> None:
    """Wait until the local copy is there, or is not to come."""
    deadline = time.monotonic() + 60
    while (found := rows(connection, "SELECT replica_hydration_status()")) != [
        (state,)
    ]:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@contextmanager
def nothing_from(store: TroubledStore, level: int) -> Iterator[None]:
    """Within, files of a level may not be read."""

    def refuse(info: FileInfo, start: int) -> None:
        assert info.level != level, f"{info.name} is read"

    store.before_get = refuse
    yield
    store.before_get = None


def test_pages_come_from_the_copy_and_what_is_newer_from_the_replica(
    recording: Recording, tmp_path: Path
) -> None:
    """The state stays right while the source goes on, and the image is not read again."""
    store = TroubledStore.at(tmp_path / "replica")
    with closing(connect(store, refresh=0, cache_size=1, hydrate=True)) as connection:
        wait_for_copy(connection)
        rows(connection, "SELECT count(*) FROM t")
        with nothing_from(store, 9):
            for change in ("UPDATE t SET b = 1 WHERE id % 9 = 0", "VACUUM", FILL):
                recording.commit(change)
                image = connection.serialize("main")
                assert masked(image) == masked(recording.images[-1])
                assert rows(connection, "PRAGMA integrity_check") == [("ok",)]


def test_copy_is_used_however_often_it_is_planned_anew(
    recording: Recording, tmp_path: Path
) -> None:
    """After many files, and when files are gone, they are applied to the copy."""
    store = TroubledStore.at(tmp_path / "replica")
    with closing(connect(store, refresh=0, cache_size=1, hydrate=True)) as connection:
        wait_for_copy(connection)
        rows(connection, "SELECT count(*) FROM t")
        with nothing_from(store, 9):
            for number in range(70):
                recording.commit(f"INSERT INTO t(b) VALUES ({number})")
                if number % 10 == 0:
                    rows(connection, "SELECT count(*) FROM t")
            last = recording.txid
            recording.publish(1, 3, last)
            store.delete([f for f in store.list_level(0) if f.max_txid < last])
            image = connection.serialize("main")
            assert masked(image) == masked(recording.images[-1])


def test_temporary_copy_is_gone_with_the_connection(
    recording: Recording, tmp_path: Path
) -> None:
    """Complete or not, nothing is left."""
    for wait in (True, False):
        connection = connect(tmp_path / "replica", hydrate=True)
        (path,) = rows(connection, "PRAGMA litestream_hydration_file")[0]
        if wait:
            wait_for_copy(connection)
            assert Path(path).is_file()
            asked = "SELECT litestream_hydration_progress()"
            assert rows(connection, asked) == [(100,)]
        connection.close()
        assert not Path(path).parent.exists()


def test_copy_that_is_kept_is_a_database_and_used_again(
    recording: Recording, tmp_path: Path
) -> None:
    """A path keeps it; with another state it is brought up to date."""
    path = tmp_path / "copy.db"
    for change in ("INSERT INTO t(b) VALUES (1)", "DELETE FROM t WHERE id < 500"):
        recording.commit(change)
        with closing(connect(tmp_path / "replica", hydrate=path)) as connection:
            wait_for_copy(connection)
            image = connection.serialize("main")
            assert masked(image) == masked(recording.images[-1])
        assert path.read_bytes() == recording.images[-1]


OTHER = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('begin immediate')"


def test_locks_on_a_copy_that_is_kept_stay(
    recording: Recording, tmp_path: Path
) -> None:
    """POSIX locks of a process go with any descriptor of it: ours is not closed."""
    path = tmp_path / "copy.db"
    connection = connect(tmp_path / "replica", hydrate=path)
    wait_for_copy(connection)
    with closing(sqlite3.connect(path, isolation_level=None)) as app:
        app.execute("pragma journal_mode=delete")  # whose locks are on the file itself
        app.execute("begin immediate")
        connection.close()
        command = [sys.executable, "-c", OTHER, str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "database is locked" in done.stderr


def test_copy_that_cannot_be_made_leaves_the_replica(
    recording: Recording, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said why, and everything is read in place."""
    path = tmp_path / "source.db" / "impossible.db"
    with closing(connect(tmp_path / "replica", hydrate=path)) as connection:
        wait_for_copy(connection, "failed")
        assert "no local copy was made" in caplog.text
        assert rows(connection, "SELECT count(*) FROM t") == [(1000,)]


def test_attached_replica_may_have_a_copy_and_a_cache(
    recording: Recording, tmp_path: Path
) -> None:
    """The options are those of a URI, too."""
    where = tmp_path / "replica"
    cache = tmp_path / "cache"
    uris = [
        replica_uri(where, hydrate=True, cache_dir=cache, cache_dir_size=1 << 20),
        f"file:x?vfs=sqlitereplica&replica={where}&cache_dir={cache}",
        f"file:x?vfs=sqlitereplica&replica={where}&hydrate={tmp_path / 'h.db'}",
    ]
    with closing(connect(where)) as connection:
        for number, uri in enumerate(uris):
            connection.execute(f"ATTACH ? AS a{number}", (uri,))
            count = f"SELECT count(*) FROM a{number}.t"
            assert rows(connection, count) == [(1000,)]
        assert list(cache.rglob("*"))


def test_cache_on_the_disk_serves_the_next_connection(
    recording: Recording, tmp_path: Path
) -> None:
    """What one connection fetched, another does not fetch again."""
    store = TroubledStore.at(tmp_path / "replica")
    cache = tmp_path / "cache"
    scan = "SELECT count(*), sum(length(b)) FROM t"
    with closing(connect(store, cache_dir=cache)) as connection:
        first = rows(connection, scan)
    with nothing_from(store, 9), nothing_from(store, 0):
        with closing(connect(store, cache_dir=cache)) as connection:
            assert rows(connection, scan) == first == [(1000, 900_000)]
