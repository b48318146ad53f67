"""T41: full disks. The application's commits go on, the error is said, and with space again
everything recovers by itself."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import await_true, restored, write
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replica, Replicator, restore
from sqlitereplica.errors import DatabaseStateError, StoreError, SyncTimeoutError
from sqlitereplica.events import Event
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.crash

SIZE = 2 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small filesystem here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """A file that takes all space but ``leave`` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                continue
        except OSError:
            os.truncate(filler, max(0, file.tell() - leave))
    return filler


def blob(db: sqlite3.Connection, size: int) -> None:
    """A commit of a certain size, which does not compress."""
    db.execute("insert into t(v) values(?)", (os.urandom(size),))


def commit_for_ever(db: sqlite3.Connection) -> None:
    """Until there is no room."""
    while True:
        blob(db, 100_000)


def succeeds(replicator: Replicator) -> bool:
    """Whether a sync does."""
    try:
        replicator.sync(timeout=5)
    except (SyncTimeoutError, StoreError):
        return False
    return True


# -- the replica's folder ----------------------------------------------------------------


def test_full_disk_of_the_replica(
    path: Path, db: sqlite3.Connection, small: Path
) -> None:
    """The upload fails whole: no torn file, no rest of one; then it is made up for."""
    replica = small / "replica"
    with Replicator(path, replica, sync_interval=0.01) as replicator:
        write(db)
        replicator.sync()
        filler = fill(small, leave=20_000)
        for _ in range(5):
            blob(db, 100_000)
        # The first failure is known only after the store's own retries.
        await_true(lambda: replicator.status().replicas[0].error)
        with pytest.raises(SyncTimeoutError) as caught:
            replicator.sync(timeout=1)
        assert "No space left" in str(caught.value)
        (status,) = replicator.status().replicas
        assert "No space left" in (status.error or "")
        for file in replica.rglob("*.ltx"):
            assert file.stat().st_size > 0
        restore(replica, path.with_name("old.db"))
        filler.unlink()
        await_true(lambda: succeeds(replicator))
        assert replicator.status().ok
    restore(replica, path.with_name("new.db"))
    assert path.with_name("new.db").read_bytes() == serialized(path)
    assert [p.name for p in replica.rglob("*") if p.suffix == ".tmp"] == []


def test_one_full_replica_does_not_hold_up_the_other(
    path: Path, db: sqlite3.Connection, small: Path, tmp_path: Path
) -> None:
    """The other one has everything meanwhile, and the WAL stays short."""
    filler = fill(small)
    other = tmp_path / "other"
    replicas = [small / "replica", other]
    with Replicator(
        path, replicas, sync_interval=0.01, buffer_size=1 << 20, spool_size=1 << 20
    ) as replicator:
        for _ in range(400):
            blob(db, 100_000)
            db.execute("delete from t")
        await_true(lambda: replicator.status().replicas[1].txid)
        await_true(lambda: restored(other) == db.serialize())
        await_true(lambda: path.with_name("app.db-wal").stat().st_size < 20_000_000)
        assert "No space left" in (replicator.status().replicas[0].error or "")
        filler.unlink()
        await_true(lambda: succeeds(replicator))
    assert restored(small / "replica") == restored(other)


# -- the metadata folder -----------------------------------------------------------------


def test_start_on_a_full_disk_is_refused_and_can_be_repeated(
    path: Path, db: sqlite3.Connection, small: Path, tmp_path: Path
) -> None:
    """One error that says which folder; nothing stays locked by the attempt."""
    filler = fill(small)
    replicator = Replicator(path, tmp_path / "replica", meta_path=small / "meta")
    for _ in range(2):
        with pytest.raises(DatabaseStateError) as caught:
            replicator.start()
        assert caught.value.kind == "meta-folder"
        assert str(small) in str(caught.value)
    filler.unlink()
    with replicator:
        replicator.sync()
    assert restored(tmp_path / "replica") == db.serialize()


def test_no_room_for_the_page_table(
    path: Path, db: sqlite3.Connection, small: Path, tmp_path: Path
) -> None:
    """Replication goes on without one; that is said, and made up for."""
    events: list[Event] = []
    with Replicator(
        path,
        tmp_path / "replica",
        meta_path=small / "meta",
        observer=events.append,
    ) as replicator:
        replicator.sync()
        filler = fill(small)
        for _ in range(1000):
            write(db)
        replicator.sync()
        for _ in range(20):
            blob(db, 1_000_000)
            replicator.sync()
        await_true(lambda: "table-error" in [e.action for e in events])
        assert restored(tmp_path / "replica") == db.serialize()
        filler.unlink()
        write(db)
        replicator.sync()
    with Replicator(path, tmp_path / "replica", meta_path=small / "meta") as replicator:
        replicator.sync()
    assert restored(tmp_path / "replica") == db.serialize()


def test_no_room_to_spool_while_the_store_is_away(
    path: Path, db: sqlite3.Connection, small: Path
) -> None:
    """What does not fit is not kept but compared later; the WAL is not held meanwhile."""
    fs = SwitchableFileSystem()
    events: list[Event] = []
    with Replicator(
        path,
        Replica(fs, path="/r"),
        meta_path=small / "meta",
        sync_interval=0.01,
        buffer_size=1 << 20,
        observer=events.append,
    ) as replicator:
        replicator.sync()
        fs.fail()
        while "behind" not in [e.action for e in events]:
            blob(db, 100_000)
            assert path.with_name("app.db-wal").stat().st_size < 30_000_000
        await_true(lambda: replicator.status().replicas[0].error)
        # What is left of the database goes up by a delta, for which there must be room.
        db.execute("delete from t where id > 20")
        fs.heal()
        await_true(lambda: succeeds(replicator))
    restore(LTXStore.open(fs, path="/r"), path.with_name("out.db"))
    assert path.with_name("out.db").read_bytes() == serialized(path)


def test_no_room_for_a_large_first_upload(
    path: Path, db: sqlite3.Connection, small: Path, tmp_path: Path
) -> None:
    """A database larger than the room for its upload: said at once, done with space."""
    filler = fill(small, leave=100_000)
    for _ in range(60):
        blob(db, 100_000)
    meta = small / "meta"
    with Replicator(path, tmp_path / "replica", meta_path=meta) as replicator:
        with pytest.raises(StoreError, match="No space left") as caught:
            replicator.sync()
        assert caught.value.kind == "source"
        assert "No space left" in (replicator.status().replicas[0].error or "")
        blob(db, 1000)
        filler.unlink()
        subprocess.run(
            ["mount", "-o", f"remount,size={32 << 20}", str(small)], check=True
        )
        await_true(lambda: succeeds(replicator))
    assert restored(tmp_path / "replica") == db.serialize()


# -- the database's own disk -------------------------------------------------------------


def test_full_disk_of_the_database(small: Path, tmp_path: Path) -> None:
    """The application's commits fail by themselves; what was committed is replicated."""
    path = small / "app.db"
    db = make_database(path)
    with Replicator(path, tmp_path / "replica") as replicator:
        write(db)
        replicator.sync()
        filler = fill(small)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            commit_for_ever(db)
        replicator.sync()
        assert restored(tmp_path / "replica") == db.serialize()
        filler.unlink()
        blob(db, 100_000)
        await_true(lambda: succeeds(replicator))
        assert restored(tmp_path / "replica") == db.serialize()
    db.close()


LIMITED = """
import resource, sqlite3, sys
from sqlitereplica import Replicator
r = Replicator(sys.argv[1], [sys.argv[2]], sync_interval=0.05)
r.start()
for line in sys.stdin:
    command, number = line.split()
    if command == "limit":
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), hard))
        print("done", flush=True)
        continue
    try:
        r.sync(timeout=float(number))
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    else:
        print("ok", flush=True)
"""


def test_limit_on_the_size_of_files(
    path: Path, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE in the replicating process: neither upload nor checkpoint gets through;
    another process commits on, and nothing is torn when the limit is lifted."""
    replica = tmp_path / "replica"
    for _ in range(10):
        blob(db, 50_000)
    child = subprocess.Popen(
        [sys.executable, "-c", LIMITED, str(path), str(replica)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(command: str) -> str:
        assert child.stdin and child.stdout
        child.stdin.write(command + "\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    try:
        assert ask("sync 60") == "ok"
        assert ask("limit 60000") == "done"
        for _ in range(30):
            blob(db, 100_000)
        assert ask("sync 2").startswith("SyncTimeoutError")
        restore(replica, path.with_name("old.db"))
        assert ask("limit 1000000000") == "done"
        for _ in range(5):
            blob(db, 1000)
        assert ask("sync 60") == "ok"
        assert restored(replica) == db.serialize()
    finally:
        child.communicate(timeout=60)
    assert child.returncode == 0
