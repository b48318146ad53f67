"""Full images read from the source in pieces, while it is written to."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.capturing import digest, serialized
from support.histories import fill, steps
from support.stepping import Stepped
from support.told import MakeStepped, ToldStore, restored

from sqlitereplica import DatabaseStateError
from sqlitereplica.capture import ContinuityLostError, View, ViewEndedError
from sqlitereplica.ltx import SNAPSHOT_LEVEL
from sqlitereplica.replicate.merging import Merged
from sqlitereplica.replicate.sourceimage import LineLostError, SourceImage
from sqlitereplica.replicate.workshop import StoppedError

PIECE = 16 * 4096
LOST = DatabaseStateError("lost by the test", path="a.db", kind="continuity")


def make_image(
    stepped: Stepped, between: Callable[[int], object] = lambda number: None
) -> Merged | Exception:
    """Make an image piece by piece; ``between(n)`` is called behind the n-th piece."""
    line, pieces = stepped.lines[0], 0
    reached, going_on = threading.Event(), threading.Event()

    def pace(_: int) -> None:
        line.shop.go_on()
        reached.set()
        going_on.wait()
        going_on.clear()

    image = SourceImage(line.shop, stepped.engine.request, pace=pace, piece_bytes=PIECE)
    result: list[Merged | Exception] = []

    def work() -> None:
        try:
            result.append(image.make())
        except Exception as error:  # noqa: BLE001
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        stepped.step()
        if reached.is_set():
            reached.clear()
            pieces += 1
            between(pieces)
            going_on.set()
        thread.join(0.001)
    return result[0]


def check(stepped: Stepped, store: ToldStore, tmp_path: Path, made: object) -> None:
    """An image shows the very state that the increments lead to."""
    assert isinstance(made, Merged), made
    header = made.header
    txid = header.max_txid
    assert made.table is not None and made.table.checksum == header.post_checksum
    assert stepped.durable()
    by_increments = restored(store, tmp_path, txid=txid)
    store.put(SNAPSHOT_LEVEL, 1, txid, made.path, timestamp=header.timestamp)
    assert restored(store, tmp_path, txid=txid) == by_increments
    assert restored(store, tmp_path) == digest(serialized(stepped.path))


def test_image_of_a_quiet_database_is_its_newest_state(
    db: sqlite3.Connection, store: ToldStore, make: MakeStepped, tmp_path: Path
) -> None:
    """It has the TXID and the time of the increment that led there."""
    stepped = make()
    fill(db, 900)
    assert stepped.durable()
    stepped.clock.advance(60)
    made = make_image(stepped)
    check(stepped, store, tmp_path, made)
    assert isinstance(made, Merged)
    [first] = store.list_level(0)
    assert (made.header.max_txid, made.header.timestamp) == (1, first.timestamp)


@pytest.mark.parametrize("seed", range(6))
def test_image_of_a_busy_database_is_one_of_its_states(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    seed: int,
) -> None:
    """Growth, VACUUM, shrinking and checkpoints between its pieces do not mix states."""
    stepped = make()
    fill(db, 900)
    assert stepped.durable()
    db.execute("pragma busy_timeout=0")
    changes, rng = steps(db, 4096), random.Random(seed)

    def between(_: int) -> None:
        if rng.random() < 0.5:
            next(changes, None)
        if rng.random() < 0.5:
            db.execute("update t set v = randomblob(99) where id % 5 = ?", (seed,))
        if rng.random() < 0.3:
            assert db.execute("pragma wal_checkpoint(truncate)").fetchall()
        if rng.random() < 0.3:
            stepped.engine.tickets.take(stepped.clock(), None)

    made = make_image(stepped, between)
    check(stepped, store, tmp_path, made)


def test_source_is_not_held_between_the_pieces(
    db: sqlite3.Connection, make: MakeStepped
) -> None:
    """The WAL is checkpointed and begins anew while an image is made."""
    stepped = make()
    fill(db, 900)
    assert stepped.durable()

    def between(_: int) -> None:
        db.execute("insert into t(v) values(1)")
        for _ in range(3):
            stepped.step()
            db.execute("pragma wal_checkpoint(passive)").fetchone()

    resets = stepped.engine.capture.metrics()[0]
    assert isinstance(make_image(stepped, between), Merged)
    assert stepped.engine.capture.metrics()[0] > resets + 3


def test_pages_rewritten_in_every_round_come_to_an_end(
    db: sqlite3.Connection,
    store: ToldStore,
    make: MakeStepped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database that changes faster than it is read is read under one view at last."""
    monkeypatch.setattr("sqlitereplica.replicate.sourceimage._FEW_BYTES", 0)
    stepped = make()
    fill(db, 900)
    assert stepped.durable()
    made = make_image(stepped, lambda n: db.execute("update t set v = ? || id", (n,)))
    check(stepped, store, tmp_path, made)


def test_database_let_go_meanwhile_gives_no_image(
    db: sqlite3.Connection, make: MakeStepped, tmp_path: Path
) -> None:
    """States from before and after are not mixed, and no part is left on disk."""
    stepped = make()
    fill(db, 900)
    assert stepped.durable()
    original = View.pages

    def between(number: int) -> None:
        if number == 3:
            stepped.engine.fail(LOST)
            stepped.clock.advance(1)

    made = make_image(stepped, between)
    assert isinstance(made, LineLostError | ViewEndedError | Merged)
    if isinstance(made, Merged):
        made.path.unlink()
    assert View.pages is original
    assert list((stepped.meta / "spool").glob("snapshot*")) == []


def test_stop_ends_the_work_and_leaves_nothing(
    db: sqlite3.Connection, make: MakeStepped
) -> None:
    """The Replicator does not wait for a large image when it stops."""
    stepped = make()
    fill(db, 900)
    assert stepped.durable()

    def between(number: int) -> None:
        if number == 2:
            stepped.lines[0].shop.stop()

    assert isinstance(make_image(stepped, between), StoppedError)
    assert list((stepped.meta / "spool").glob("snapshot*")) == []


def test_wrong_page_is_noticed_before_the_image_is_used(
    db: sqlite3.Connection, make: MakeStepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read must be the state that was captured, by its database checksum."""
    stepped = make()
    fill(db, 900)
    assert stepped.durable()
    stepped.engine.capture.table.apply(
        stepped.engine.capture.table.commit, [(7, 1 << 63 | 12345)]
    )
    assert isinstance(make_image(stepped), ContinuityLostError)
    assert list((stepped.meta / "spool").glob("snapshot*")) == []
