"""T39: whatever is raised at any stage of a background thread, it is never silent.

Either ``sync`` returns, and then the replica has everything; or it raises, and the status
says why; and once the cause is gone everything recovers without being told to.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.capturing import make_database
from support.lifetime import await_true, library_threads, restored, write
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replica, Replicator
from sqlitereplica.capture import Capture, Increment, TableFile
from sqlitereplica.capture.tail import WalTail
from sqlitereplica.errors import ReplicatorClosedError, SQLiteReplicaError
from sqlitereplica.events import Event
from sqlitereplica.ltx import SNAPSHOT_LEVEL
from sqlitereplica.replicate import worker
from sqlitereplica.replicate.driver import Driver
from sqlitereplica.replicate.engine import Engine
from sqlitereplica.replicate.history import History
from sqlitereplica.replicate.spool import Spool
from sqlitereplica.replicate.worker import ReplicaWorker
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.crash

MARK = "injected by the test"


class InjectedError(Exception):
    """What no code expects."""


STAGES: list[tuple[Any, str]] = [
    (Driver, "_round"),
    (Capture, "begin"),
    (Capture, "read_on"),
    (Capture, "step"),
    (Capture, "flush"),
    (Capture, "view"),
    (Capture, "catch_up"),
    (WalTail, "capture"),
    (WalTail, "hand_over"),
    (TableFile, "begin"),
    (TableFile, "append"),
    (TableFile, "find"),
    (Engine, "emit"),
    (Engine, "_answer"),
    (Engine, "_tend_tables"),
    (Spool, "add"),
    (Spool, "next"),
    (Spool, "done"),
    (Spool, "subscribe"),
    (Increment, "content"),
    (worker, "read_position"),
    (worker, "uploads_for"),
    (ReplicaWorker, "_compare"),
    (ReplicaWorker, "_confirm"),
    (LTXStore, "list_all"),
    (LTXStore, "put"),
    (History, "due"),
]
KINDS = [InjectedError, MemoryError, SystemExit]


class Fault:
    """Raises at a stage, the first so many times that it is reached."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        stage: tuple[Any, str],
        kind: type[BaseException],
    ) -> None:
        self.left = 0
        self.raised = 0
        owner, name = stage
        original = getattr(owner, name)

        def run(*arguments: Any, **options: Any) -> Any:
            ours = threading.current_thread().name.startswith("sqlitereplica")
            if self.left and ours:
                self.left -= 1
                self.raised += 1
                raise kind(MARK)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, run)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    path = tmp_path / "app.db"
    make_database(path).close()
    return path


def attempt(replicator: Replicator, timeout: float) -> Exception | None:
    """A sync; what it raised."""
    try:
        replicator.sync(timeout=timeout)
    except (SQLiteReplicaError, InjectedError, MemoryError, RuntimeError) as error:
        return error
    return None


def succeeds(replicator: Replicator) -> bool:
    """Whether a sync does."""
    return attempt(replicator, 5) is None


def failure_of(replicator: Replicator, *, known: bool) -> Exception | None:
    """What a sync raises; ``known``: a timeout that does not say why is none yet."""
    while True:
        failure = attempt(replicator, 0.4)
        told = failure is None or MARK in f"{failure} {failure.__cause__}"
        if told or not known:
            return failure


def says_mark(replicator: Replicator) -> bool:
    """Whether the status tells of the fault."""
    status = replicator.status()
    said = [status.error]
    for replica in status.replicas:
        said += [replica.error, replica.history_error]
    return not status.ok and any(MARK in text for text in said if text)


def torment(path: Path, fault: Fault, times: int, *, from_start: bool) -> None:
    """Raise so many times, while it starts or later, and see what is said of it."""
    db = sqlite3.connect(path, isolation_level=None)
    replicator = Replicator(path, path.with_name("replica"), sync_interval=0.02)
    write(db)
    fault.left = times if from_start else 0
    replicator.start()
    try:
        if not from_start:
            await_true(lambda: succeeds(replicator))
            fault.left = times
        write(db)
        failure = failure_of(replicator, known=times > 1000)
        if failure is None:
            assert restored(path.with_name("replica")) == db.serialize()
        elif times > 1000:
            # Between two failures it may look well for a moment.
            await_true(lambda: says_mark(replicator))
        fault.left = 0
        await_true(lambda: succeeds(replicator))
        write(db)
        replicator.sync()
        await_true(lambda: replicator.status().ok)
        assert restored(path.with_name("replica")) == db.serialize()
    finally:
        fault.left = 0
        replicator.stop()
        db.close()
    await_true(lambda: library_threads() == set())


CASES = [
    pytest.param(
        stage,
        kind,
        id=f"{stage[0].__name__}.{stage[1]}-{kind.__name__}",
        # The other kinds take the same path: for who has the time.
        marks=() if kind is InjectedError else pytest.mark.torture,
    )
    for number, stage in enumerate(STAGES)
    for kind in KINDS
    if kind is not MemoryError or number % 4 == 0  # it takes the same path as any other
]


@pytest.mark.parametrize(("stage", "kind"), CASES)
def test_exception_at_any_stage_is_said_and_survived(
    path: Path,
    stage: tuple[Any, str],
    kind: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Raised once it costs a moment; raised again and again it is in error and status."""
    fault = Fault(monkeypatch, stage, kind)
    for times in (1, 1_000_000):
        for from_start in (True, False):
            torment(path, fault, times, from_start=from_start)
    assert fault.raised >= 1
    assert any(MARK in (r.exc_text or "") + r.getMessage() for r in caplog.records)
    caplog.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_letting_go_fails_as_well(
    path: Path, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while another is dealt with leaves nobody waiting."""
    detaching = Fault(monkeypatch, (Capture, "detach"), kind)
    stepping = Fault(monkeypatch, (Capture, "step"), kind)
    db = sqlite3.connect(path, isolation_level=None)
    with Replicator(path, path.with_name("replica")) as replicator:
        replicator.sync()
        detaching.left = stepping.left = 1
        write(db)
        attempt(replicator, 5)
        assert stepping.raised and detaching.raised
        await_true(lambda: succeeds(replicator))
        assert restored(path.with_name("replica")) == db.serialize()
    db.close()


@pytest.mark.parametrize("kind", KINDS)
def test_letting_go_fails_at_the_end(
    path: Path, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``stop`` says so, and ends everything else: threads, locks, and who waits."""
    detaching = Fault(monkeypatch, (Capture, "detach"), kind)
    fs = SwitchableFileSystem()
    db = sqlite3.connect(path, isolation_level=None)
    replicator = Replicator(path, Replica(fs, path="/r"))
    replicator.start()
    replicator.sync()
    fs.fail()
    write(db)
    detaching.left = 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(replicator.sync, None)
        with pytest.raises((InjectedError, MemoryError, RuntimeError), match=MARK):
            replicator.stop(timeout=0.2)
        assert isinstance(waiting.exception(30), ReplicatorClosedError)
    await_true(lambda: library_threads() == set())
    fs.heal()
    with Replicator(path, Replica(fs, path="/r")) as again:
        again.sync()
    db.close()


def test_store_that_fails_during_a_snapshot_does_not_hold_the_wal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that was pinned for it is let go; the snapshot comes about later."""
    fault = Fault(monkeypatch, (LTXStore, "copy"), ConnectionError)
    with Replicator(path, path.with_name("replica")) as replicator:
        replicator.sync()
        fault.left = 1
        replicator.snapshot(timeout=30)
        assert fault.raised == 1
        assert replicator._running is not None
        tail = replicator._running.engine.capture._tail
        assert tail is not None
        await_true(lambda: tail._view is None)
    assert LTXStore.open(path.with_name("replica")).list_level(SNAPSHOT_LEVEL)


@pytest.mark.parametrize("kind", KINDS)
def test_observer_that_raises_stops_nothing(
    path: Path, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """It is the application's code, called in our threads: its failures are its own."""
    calls = 0

    def observe(event: Event) -> None:
        nonlocal calls
        calls += 1
        raise kind(MARK)

    db = sqlite3.connect(path, isolation_level=None)
    replica = path.with_name("replica")
    with caplog.at_level(logging.ERROR):
        with Replicator(path, replica, observer=observe) as replicator:
            for _ in range(3):
                write(db)
                replicator.sync()
            assert replicator.status().ok
            assert restored(replica) == db.serialize()
    assert calls > 3
    assert "observer" in caplog.text
    db.close()


def test_connection_factory_that_fails_for_a_while(path: Path) -> None:
    """The application's factory is called in our thread; what it raises is said."""
    healthy = False

    def connect(database: str) -> sqlite3.Connection:
        if not healthy and database != ":memory:":
            raise InjectedError(MARK)
        return sqlite3.connect(database)

    with Replicator(path, path.with_name("replica"), connect=connect) as replicator:
        with pytest.raises(InjectedError):
            replicator.sync()
        assert MARK in (replicator.status().error or "")
        healthy = True
        await_true(lambda: succeeds(replicator))
        assert replicator.status().error is None
