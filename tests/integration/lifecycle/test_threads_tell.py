"""What no code expects, in threads that wait for a turn: it is told, and tried again."""

from __future__ import annotations

import fcntl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import await_true, restored, write

from sqlitereplica import Replica, Replicator
from sqlitereplica.events import Event
from sqlitereplica.replicate import replicator as module
from sqlitereplica.replicate.metafolder import MetaFolder, default_folder
from sqlitereplica.replicate.options import Options
from sqlitereplica.replicate.peer import Peer
from sqlitereplica.replicate.turn import Turn


def test_turn_that_fails_in_an_unknown_way_comes_all_the_same(
    path: Path, replica: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that waits for the lease goes on, and what went wrong is an event."""
    original = Turn._bring_up
    left = [ZeroDivisionError("odd")]

    def bring_up(turn: Turn) -> bool:
        if left:
            raise left.pop()
        return original(turn)

    monkeypatch.setattr(Turn, "_bring_up", bring_up)
    events: list[Event] = []
    db = make_database(path)
    with Replicator(path, replica, lease="30s", observer=events.append) as r:
        r.sync()
    db.close()
    assert "standby-error" in [event.action for event in events]


@pytest.mark.parametrize("action", ["attach", "upload"])
@pytest.mark.parametrize("call", ["stop", "sync", "snapshot", "position"])
def test_observer_cannot_have_its_own_thread_wait_for_itself(
    path: Path, replica: Path, action: str, call: str
) -> None:
    """It is told so at once; nothing hangs, and everything goes on and ends as it should."""
    failures: list[Exception] = []

    def observer(event: Event) -> None:
        if event.action == action:
            try:
                getattr(r, call)()
            except RuntimeError as error:
                failures.append(error)

    db = make_database(path)
    r = Replicator(path, replica, observer=observer)
    with r:
        write(db)
        r.sync(60)
    assert failures
    MetaFolder.locked(default_folder(str(path)), str(path)).close()
    assert restored(replica) == serialized(path)
    db.close()


def test_start_that_waits_for_another_process_is_told_what_goes_wrong_here(
    path: Path, replica: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: ``start`` does not wait for ever for a database."""

    def fetch(options: Options) -> Options:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(module, "fetch_if_missing", fetch)
    folder = path.parent / f".{path.name}-sqlitereplica"
    folder.mkdir()
    waits = Replicator(path, replica, restore="if-missing")
    with ThreadPoolExecutor() as pool, (folder / "lock").open("w") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)
        started = pool.submit(waits.start)
        await_true(lambda: isinstance(waits._role, Peer))
        elsewhere.close()
        try:
            with pytest.raises(ZeroDivisionError):
                started.result(60)
        finally:
            waits._end_role(5)


@pytest.mark.parametrize(
    "which", ["", "-desk", "-history", "-there", "-lease", "-turn"]
)
def test_start_without_room_for_a_thread_fails_and_can_be_tried_again(
    path: Path, replica: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """A limit of the machine is an error of ``start``, and of no other one later."""
    original = threading.Thread.start
    refused: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == f"sqlitereplica{which}" and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    db = make_database(path)
    lease = "30s" if which in ("-lease", "-turn") else None
    r = Replicator(path, Replica(replica, name="there"), lease=lease)
    with pytest.raises(RuntimeError, match="can't start"):
        r.start()
    assert r.status().state == "stopped"
    with r:
        write(db)
        r.sync(60)
    assert restored(replica) == serialized(path)
    db.close()
