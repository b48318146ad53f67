"""Capture lets the database go while a worker reads it: begin again, and nothing more."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from support.capturing import Captured, digest, serialized
from support.stepping import Stepped
from support.told import MakeStepped, ToldStore, fill, level0, restored

from sqlitereplica import DatabaseStateError
from sqlitereplica.capture import ContinuityLostError, View, ViewEndedError
from sqlitereplica.ltx import SNAPSHOT_LEVEL
from sqlitereplica.replicate.tickets import Ticket

LOST = DatabaseStateError("lost by the test", path="a.db", kind="continuity")

OVERWRITE = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("update t set v = randomblob(4000)")
print(c.execute(f"pragma wal_checkpoint({sys.argv[2]})").fetchall())
c.execute("update t set v = randomblob(4000)")
"""

DESCRIPTORS = Path("/proc/self/fd")

Run = tuple[int, list[bytes]]


def page_by_page(runs: Iterable[Run]) -> Iterator[Run]:
    """The same pages as runs of one, so that something can happen between any two."""
    for first, run in runs:
        for pgno, page in enumerate(run, first):
            yield pgno, [page]


def lose_while_reading(
    monkeypatch: pytest.MonkeyPatch, stepped: Stepped, after: int
) -> list[Ticket]:
    """Once, after that many pages of a view were read, capture lets the database go.

    Returns, once that happened, the ticket of somebody who came right afterwards.
    """
    original, tickets = View.runs, list[Ticket]()

    def runs(view: View, pgnos: Iterable[int]) -> Iterator[Run]:
        for number, page in enumerate(page_by_page(original(view, pgnos))):
            # Not in the scan with which an attach begins.
            if number == after and stepped.engine.capture.attached and not tickets:
                stepped.engine.fail(LOST)
                tickets.append(stepped.engine.tickets.take(stepped.clock(), None))
            yield page

    monkeypatch.setattr(View, "runs", runs)
    return tickets


@pytest.mark.parametrize("after", [0, 100, 299])
def test_view_that_ends_under_a_delta_is_no_failure(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """Nothing is put from it, nobody who comes later is told, the next try is at once."""
    stepped = make()
    fill(db, 300)
    later = lose_while_reading(monkeypatch, stepped, after)
    waiting = stepped.sync()
    assert waiting.future.exception(0) is LOST
    assert level0(store) == []
    assert not later[0].future.done()
    stepped.clock.advance(0.06)
    stepped.run()
    assert later[0].future.exception(0) is None
    assert [f.max_txid for f in level0(store)] == [1]
    assert "replica-error" not in {e.action for e in stepped.events}
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_view_that_ends_under_a_snapshot_is_made_again(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A snapshot that was asked for comes about from the next state."""
    monkeypatch.setattr(
        "sqlitereplica.replicate.snapshot.snapshot_source", lambda **_: "read"
    )
    stepped = make()
    fill(db, 300)
    assert stepped.durable()
    db.execute("update t set v = 1 where id = 1")
    assert stepped.durable()
    original, ended = View.runs, list[View]()

    def runs(view: View, pgnos: Iterable[int]) -> Iterator[Run]:
        for number, page in enumerate(page_by_page(original(view, pgnos))):
            if number == 100 and not ended and stepped.engine.capture.attached:
                ended.append(view)
                stepped.engine.doubt(ContinuityLostError("a.db", "told by the test"))
                while view.valid:
                    time.sleep(0.001)  # until the capture thread has let it go
            yield page

    monkeypatch.setattr(View, "runs", runs)
    request = stepped.lines[0].request_snapshot()
    stepped.tend()
    assert ended and not request.done()
    assert 2 not in [f.max_txid for f in store.list_level(SNAPSHOT_LEVEL)]
    stepped.clock.advance(1)
    stepped.run()
    stepped.tend()
    assert request.done()
    assert 2 in [f.max_txid for f in store.list_level(SNAPSHOT_LEVEL)]
    assert "history-error" not in {e.action for e in stepped.events}


@pytest.mark.parametrize("mode", ["passive", "truncate"])
def test_locks_that_were_dropped_under_a_view_are_noticed(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    """Something here opens and closes ``-shm``, so others may write under the view.

    Nothing is put whose pages are not those of the state that it claims to be.
    """
    stepped = make()
    fill(db, 300)
    original, done = View.runs, list[int]()

    def runs(view: View, pgnos: Iterable[int]) -> Iterator[Run]:
        for number, page in enumerate(page_by_page(original(view, pgnos))):
            if number == 100 and stepped.engine.capture.attached and not done:
                done.append(number)
                Path(f"{stepped.path}-shm").open("rb").close()
                command = [sys.executable, "-c", OVERWRITE, stepped.path, mode]
                subprocess.run(command, check=True)
            yield page

    monkeypatch.setattr(View, "runs", runs)
    waiting = stepped.engine.tickets.take(stepped.clock(), None)
    worker = stepped.workers[0]
    while worker._request is None:
        stepped.step()
    stepped.engine.step()  # answers; capture is not faster than the worker from now on
    while not done or worker.advance():
        worker.advance()
        assert level0(store) == []
    stepped.run()
    assert isinstance(waiting.future.exception(0), DatabaseStateError)
    stepped.clock.advance(5)
    assert stepped.durable()
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_view_never_reads_another_file(db: sqlite3.Connection, path: Path) -> None:
    """Its descriptors live until it is released, and then they are closed."""
    fill(db, 300)
    captured = Captured(path)
    captured.sync()
    view = captured.capture.view()
    pages = view.all_pages()
    first = next(pages)
    source = captured.capture._source
    assert source is not None
    wal = source._wal
    captured.capture.detach()
    assert os.readlink(DESCRIPTORS / str(wal)).endswith("app.db-wal")
    with pytest.raises(ViewEndedError):
        list(pages)
    assert first[0] == 1
    view.release()
    assert not (DESCRIPTORS / str(wal)).exists()


def test_view_of_a_database_that_was_replaced_keeps_its_descriptor(
    db: sqlite3.Connection, path: Path
) -> None:
    """The descriptor of an unlinked file may be closed, but not while it is read."""
    fill(db, 300)
    captured = Captured(path)
    captured.sync()
    view = captured.capture.view()
    source = captured.capture._source
    assert source is not None
    main = source._db
    db.close()
    for suffix in ("", "-wal", "-shm"):
        os.unlink(f"{path}{suffix}")
    captured.capture.detach()
    assert os.readlink(DESCRIPTORS / str(main)).endswith("app.db (deleted)")
    view.release()
    assert not (DESCRIPTORS / str(main)).exists()


def test_answer_that_nobody_takes_holds_no_descriptor(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped
) -> None:
    """A worker that is stopped between question and answer lets the view go."""
    stepped = make()
    fill(db, 300)
    stepped.step()  # connects
    stepped.step()  # asks
    stepped.engine.step()  # answers
    source = stepped.engine.capture._source
    assert source is not None
    wal = source._wal
    stepped.engine.close()
    assert (DESCRIPTORS / str(wal)).exists()
    stepped.workers[0].close()
    assert not (DESCRIPTORS / str(wal)).exists()
