"""Capture against real SQLite, stepped by hand: what it captures is what SQLite has."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.capturing import Captured, digest, make_database, same, serialized

from sqlitereplica.capture import Capture, CheckpointLimits, ContinuityLostError
from sqlitereplica.capture.tail import WalTail
from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.ltx import lock_pgno

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


def let_reset(db: sqlite3.Connection, captured: Captured) -> WalTail:
    """Bring capture to READ_LOCK(0), so that the next commit resets the WAL."""
    tail = captured.capture._tail
    assert tail is not None
    db.execute("insert into t(v) values('captured')")
    captured.capture.step()
    db.execute("pragma wal_checkpoint(passive)").fetchall()
    captured.capture.step()
    assert not tail.mark
    return tail


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_every_page_size_is_captured(path: Path, page_size: int) -> None:
    """Frames of every legal page size come out as pages of that size."""
    db = make_database(path, page_size=page_size)
    captured = Captured(path)
    for i in range(5):
        db.execute("insert into t(v) values(zeroblob(?))", (i * 3000,))
        db.execute("insert into t(v) values(?)", (os.urandom(i * 1000),))
        assert same(captured)
    captured.close()
    db.close()


def test_wal_reused_with_same_size_and_mtime_is_noticed(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """T07: neither size nor mtime of the WAL tells of a commit; the wal-index does."""
    wal = f"{captured.path}-wal"
    for i in range(200):
        db.execute("replace into t(id, v) values(1, ?)", (f"{i:08}",))
        captured.capture.step()
        db.execute("pragma wal_checkpoint(passive)").fetchall()
        captured.capture.step()
        os.utime(wal, (1, 1))
        assert same(captured), i
    assert captured.capture.metrics()[0] > 50


@pytest.mark.parametrize("mode", ["passive", "full", "restart", "truncate"])
def test_attach_after_complete_checkpoint_misses_nothing(
    db: sqlite3.Connection, path: Path, mode: str
) -> None:
    """T08: READ_LOCK(0) lets the WAL reset under us, which must lose no frame."""
    db.execute("insert into t(v) values('before')")
    db.execute("pragma busy_timeout=0")
    db.execute(f"pragma wal_checkpoint({mode})").fetchall()
    captured = Captured(path)
    for _ in range(50):
        db.execute("insert into t(v) values(randomblob(5000))")
        db.execute(f"pragma wal_checkpoint({mode})").fetchall()
        db.execute("insert into t(v) values(randomblob(50))")
    assert same(captured)
    captured.close()


def test_read_lock_zero_is_not_relied_on_with_frames_not_captured(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """T08, #521: a fully backfilled WAL may go at once, so its frames come first."""
    tail = captured.capture._tail
    assert tail is not None
    db.execute("insert into t(v) values('captured')")
    captured.capture.step()
    # On pages of its own: none of the updates below brings them again.
    db.execute("insert into t(v) values(randomblob(20000))")
    assert tail.hand_over()  # the mark is now past what was captured
    db.execute("pragma wal_checkpoint(passive)").fetchall()
    assert tail.hand_over()
    for _ in range(3):
        db.execute("update t set v = randomblob(10) where id = 1")
        db.execute("pragma wal_checkpoint(passive)").fetchall()
    assert same(captured)


def test_reset_between_a_look_and_a_hand_over_is_followed_first(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """A mark in a WAL that capture has not met is no ground to cry that locks were lost."""
    tail = let_reset(db, captured)
    db.execute("insert into t(v) values('in the WAL after the reset')")
    assert tail.hand_over()
    assert tail.resets == 1
    assert same(captured)


HOLD_CHECKPOINT_LOCK = """
import fcntl, os, sys
fd = os.open(sys.argv[1] + "-shm", os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 121)
print("held", flush=True)
sys.stdin.read()
"""


def test_read_lock_zero_is_kept_while_a_checkpointer_may_have_been_overtaken(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """T06: the WAL-reset bug needs READ_LOCK(0) after a reset under a checkpointer's eyes.

    Whoever holds the checkpoint lock now may have read the header before the reset.
    """
    tail = let_reset(db, captured)
    command = [sys.executable, "-c", HOLD_CHECKPOINT_LOCK, str(captured.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as checkpointer:
        assert checkpointer.stdout is not None
        assert checkpointer.stdout.readline() == b"held\n"
        for i in range(5):
            db.execute("insert into t(v) values(?)", (i,))
            captured.capture.step()
            assert tail.resets == 1
            assert not tail.mark
    captured.capture.step()
    assert tail.mark
    assert same(captured)


def test_own_checkpoints_of_the_application_get_through(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """RESTART and TRUNCATE of another process succeed while we look now and then."""
    code = "import sqlite3,sys;c=sqlite3.connect(sys.argv[1],timeout=30);"
    code += "c.execute('select count(*) from t').fetchall();"
    code += "sys.exit(c.execute(f'pragma wal_checkpoint({sys.argv[2]})').fetchone()[0])"
    for mode in ("full", "restart", "truncate"):
        db.execute("insert into t(v) values(randomblob(20000))")
        command = [sys.executable, "-c", code, str(captured.path), mode]
        with subprocess.Popen(command) as checkpointer:
            while checkpointer.poll() is None:
                captured.capture.step()
                time.sleep(0.001)
        assert checkpointer.returncode == 0, mode
    assert same(captured)


def test_own_write_lock_is_not_taken_for_that_of_a_checkpointer(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """While we force a checkpoint nobody who has the checkpoint lock waits for us."""
    tail = let_reset(db, captured)
    db.execute("insert into t(v) values(2)")
    command = [sys.executable, "-c", HOLD_CHECKPOINT_LOCK, str(captured.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as checkpointer:
        assert checkpointer.stdout is not None
        assert checkpointer.stdout.readline() == b"held\n"
        captured.capture.step()
        assert tail._take_write_lock()
        for _ in range(3):
            time.sleep(0.06)
            assert not tail.hand_over()
        tail._drop_write_lock()
    captured.capture.step()
    assert tail.mark
    assert same(captured)


@pytest.mark.parametrize("mode", ["full", "restart", "truncate"])
def test_checkpoint_right_after_a_reset_is_not_kept_waiting(
    db: sqlite3.Connection, captured: Captured, mode: str
) -> None:
    """The application commits into a new WAL and checkpoints before we have looked.

    It waits for our READ_LOCK(0) with the checkpoint lock, and so with the write lock.
    """
    tail = let_reset(db, captured)
    db.execute("insert into t(v) values(2)")
    found: list[int] = []

    def checkpoint() -> None:
        with closing(sqlite3.connect(captured.path, timeout=5)) as other:
            busy, took = 1, 0.0
            while busy and took < 4:  # not the timeout: it met a checkpoint of below
                begun = time.monotonic()
                (busy, *_) = other.execute(f"pragma wal_checkpoint({mode})").fetchone()
                took = time.monotonic() - begun
            found.append(busy)

    thread = threading.Thread(target=checkpoint)
    thread.start()
    while thread.is_alive() and tail._source.checkpointer.checkpoint("passive"):
        time.sleep(0.001)
    while thread.is_alive():
        captured.capture.step()
        time.sleep(0.001)
    assert found[0] == 0
    assert same(captured)


def test_uncommitted_frames_are_never_taken(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """T11: a transaction spills and rewrites frames; only its commit makes them count."""
    db.execute("pragma cache_size=5")
    before = digest(serialized(captured.path))
    db.execute("begin")
    for i in range(300):
        db.execute("insert into t(v) values(randomblob(3000))")
        db.execute("update t set v = randomblob(3000) where id = ?", (1 + i // 2,))
        captured.sync()
    assert captured.increments == []
    assert Path(f"{captured.path}-wal").stat().st_size > 100_000
    assert digest(captured.image()) == before
    db.execute("rollback")
    captured.sync()
    assert captured.increments == []
    db.execute("insert into t(v) values('after')")
    assert same(captured)


def test_wal_stays_short_under_a_writer_that_never_pauses(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """The WAL is made to reset near a thousand frames, although nBackfill never meets it."""
    db.execute("pragma wal_autocheckpoint=0")
    for _ in range(400):
        for _ in range(10):
            db.execute("insert into t(v) values(randomblob(900))")
        captured.capture.step()
    resets, _, peak = captured.capture.metrics()
    assert peak < 1100
    assert resets > 3
    assert same(captured)


def test_long_reader_of_the_application_delays_the_reset_but_loses_nothing(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """Forcing in vain is backed off; when the reader goes the WAL resets."""
    db.execute("pragma wal_autocheckpoint=0")
    reader = sqlite3.connect(captured.path, isolation_level=None)
    reader.execute("begin")
    reader.execute("select count(*) from t").fetchall()
    for _ in range(1500):
        db.execute("insert into t(v) values(randomblob(900))")
        captured.capture.step()
    assert captured.capture.metrics()[0] == 0
    reader.close()
    for _ in range(200):
        db.execute("insert into t(v) values(randomblob(900))")
        captured.capture.step()
    captured.capture.step()
    assert same(captured)


def test_large_wal_file_is_truncated_when_that_is_safe(path: Path) -> None:
    """TRUNCATE runs in a quiet moment under READ_LOCK(0), and loses no frame."""
    db = make_database(path)
    captured = Captured(path, limits=CheckpointLimits(truncate=1 << 20))
    db.execute("insert into t(v) values(randomblob(3000000))")
    wal = Path(f"{path}-wal")
    assert wal.stat().st_size > 1 << 20
    for _ in range(10):
        captured.capture.step()
    assert wal.stat().st_size == 0
    db.execute("insert into t(v) values('after')")
    assert same(captured)
    captured.close()
    db.close()


@pytest.mark.parametrize("is_backfilled", [True, False])
def test_reset_under_our_mark_is_noticed(
    db: sqlite3.Connection, captured: Captured, is_backfilled: bool
) -> None:
    """If somebody drops our locks, capture says so instead of going on with a gap."""
    db.execute("insert into t(v) values(1)")
    captured.capture.step()
    # What opening and closing the file elsewhere in the process does: the locks are gone.
    for suffix in ("", "-shm"):
        os.close(os.open(f"{captured.path}{suffix}", os.O_RDONLY))
    other = "import sqlite3,sys;c=sqlite3.connect(sys.argv[1],isolation_level=None);"
    other += "[c.execute('insert into t(v) values(1)') and "
    other += "c.execute('pragma wal_checkpoint(restart)').fetchall() for i in range(3)]"
    if not is_backfilled:
        # Without a close, which would backfill what it takes for its own.
        other += ";c.execute('insert into t(v) values(1)');import os;os._exit(0)"
    _run_python(other, captured.path)
    with pytest.raises(ContinuityLostError):
        captured.sync()


def test_replaced_database_is_noticed(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """An inode that changed under the path ends the capture of the old file."""
    db.execute("insert into t(v) values(1)")
    os.rename(captured.path, captured.path.with_name("moved.db"))
    with pytest.raises(DatabaseStateError) as caught:
        captured.capture.check()
    assert caught.value.kind == "replaced"


def test_deleted_wal_is_noticed(db: sqlite3.Connection, captured: Captured) -> None:
    """A ``-wal`` deleted while the database is open is refused by name."""
    db.execute("insert into t(v) values(1)")
    os.unlink(f"{captured.path}-wal")
    with pytest.raises(DatabaseStateError) as caught:
        captured.capture.check()
    assert caught.value.kind == "wal-lost"


def test_delete_mode_is_switched_to_wal_unless_told_not_to(path: Path) -> None:
    """``journal_mode=delete`` is switched, or refused by name."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("create table t(v)")
    captured = Captured(path)
    db.execute("select * from t").fetchall()
    assert db.execute("pragma journal_mode").fetchone() == ("wal",)
    assert same(captured)
    captured.close()
    db.execute("pragma journal_mode=delete")
    captured.capture._set_wal = False
    with pytest.raises(DatabaseStateError) as caught:
        captured.attach()
    assert caught.value.kind == "journal-mode"
    db.close()


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    """Other bytes get a typed error with the cause kept."""
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseStateError) as caught:
        Captured(path)
    assert caught.value.kind == "not-a-database"
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)


def test_nothing_of_ours_is_left_in_the_database(path: Path) -> None:
    """Schema, user_version, application_id and pages stay as they were."""
    db = make_database(path)
    db.execute("insert into t(v) values(1)")
    before = digest(serialized(path))
    captured = Captured(path)
    for _ in range(20):
        captured.sync()
    captured.close()
    assert digest(serialized(path)) == before
    db.close()


def test_view_does_not_see_later_commits(
    db: sqlite3.Connection, captured: Captured
) -> None:
    """A view reads one state while writers and checkpoints go on."""
    db.execute("insert into t(v) values(randomblob(100000))")
    captured.sync()
    before = serialized(captured.path)
    view = captured.capture.view()
    for _ in range(30):
        db.execute("update t set v = randomblob(100000)")
        db.execute("pragma wal_checkpoint(passive)").fetchall()
        captured.capture.step()
    size = view.page_size
    lock = lock_pgno(size)
    pages = dict(view.all_pages())
    assert lock not in pages
    assert b"".join(pages[p] for p in sorted(pages)) == before
    view.release()
    assert same(captured)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 40_000)),
        st.tuples(st.just("update"), st.integers(0, 9_000)),
        st.tuples(st.just("delete"), st.integers(1, 9)),
        st.tuples(st.just("rollback"), st.integers(0, 20_000)),
        st.tuples(st.just("savepoint"), st.integers(0, 20_000)),
        st.tuples(st.just("vacuum"), st.just(0)),
        st.tuples(st.just("shrink"), st.integers(1, 50)),
        st.tuples(st.just("version"), st.integers(0, 99)),
        st.tuples(
            st.sampled_from(["passive", "full", "restart", "truncate"]), st.just(0)
        ),
        st.tuples(st.just("step"), st.just(0)),
        st.tuples(st.just("sync"), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    steps=STEPS,
    page_size=st.sampled_from([512, 1024, 4096]),
    auto_vacuum=st.sampled_from([0, 1, 2]),
)
def test_any_history_is_captured_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int]],
    page_size: int,
    auto_vacuum: int,
) -> None:
    """T14, T15, T17: after any sequence of changes the image is the database."""
    path = tmp_path_factory.mktemp("history") / "a.db"
    db = make_database(path, page_size=page_size, auto_vacuum=auto_vacuum)
    captured = Captured(path)
    try:
        for what, n in steps:
            _do(db, captured, what, n)
        assert same(captured)
    finally:
        captured.close()
        db.close()


def _do(db: sqlite3.Connection, captured: Captured, what: str, n: int) -> None:
    match what:
        case "insert":
            db.execute("insert into t(v) values(randomblob(?))", (n,))
        case "update":
            db.execute("update t set v = randomblob(?) where id % 3 = 0", (n,))
        case "delete":
            db.execute("delete from t where id % ? = 0", (n,))
        case "rollback":
            db.execute("begin")
            db.execute("insert into t(v) values(randomblob(?))", (n,))
            db.execute("rollback")
        case "savepoint":
            db.execute("savepoint a")
            db.execute("insert into t(v) values(randomblob(?))", (n,))
            db.execute("savepoint b")
            db.execute("delete from t")
            db.execute("rollback to b")
            db.execute("release a")
        case "vacuum":
            db.execute("vacuum")
        case "shrink":
            db.execute(f"pragma incremental_vacuum({n})").fetchall()
        case "version":
            db.execute(f"pragma user_version={n}")
        case "step":
            captured.capture.step()
        case "sync":
            assert same(captured)
        case mode:
            db.execute("pragma busy_timeout=0")
            db.execute(f"pragma wal_checkpoint({mode})").fetchall()


def _run_python(code: str, *arguments: object) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


def test_time_of_a_state_is_not_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milliseconds are rounded up: a restore before 0.5 ms must not give what is of 0.9."""
    make_database(tmp_path / "app.db").close()
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000_900_000)
    capture = Capture(
        str(tmp_path / "app.db"),
        sqlite3.connect,
        copy="sqlite3",
        emit=lambda *_: None,
        spool=tmp_path,
    )
    capture.attach()
    assert capture.state().timestamp == 1_700_000_000_001
    capture.detach()
