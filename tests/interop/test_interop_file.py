"""Folders as replicas: Litestream restores what we wrote, and we what it wrote."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.histories import fill, steps
from support.litestream import Litestream
from support.ltxfiles import PAGE_SIZES
from support.places import Place, only_litestream_checkpoints

from sqlitereplica.restore.plan import reachable_txids, to_datetime

pytestmark = pytest.mark.interop

MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def place(tmp_path: Path, litestream: Litestream) -> Place:
    """A folder to work in."""
    return Place.local(tmp_path, litestream)


def record(
    place: Place,
    connection: sqlite3.Connection,
    page_size: int,
    sync: Callable[[], None],
) -> dict[int, bytes]:
    """Take the steps, ``sync`` after each; the image after each by its TXID."""
    images = {}
    for _ in steps(connection, page_size):
        sync()
        images[place.txid] = serialized(place.database)
        pass_a_millisecond()
    return images


def pass_a_millisecond() -> None:
    """Times of files are whole milliseconds: let the next one be another."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= now:
        time.sleep(0.0005)


def check_history(place: Place, images: dict[int, bytes], page_size: int) -> None:
    """The recorded states are restored by TXID and by time, by both.

    All of them for some page sizes, which is enough: the others differ in arithmetic.
    """
    assert len(images) == 7
    assert place.latest() == images[max(images)]
    stride = 1 if page_size in (512, 4096, 65536) else 3
    for txid in sorted(images)[::stride]:
        assert place.at_txid(txid) == images[txid], txid
    times = {file.max_txid: to_datetime(file.timestamp) for file in place.files(0)}
    for txid in sorted(images)[:-1:stride]:
        # Litestream refuses a time after the newest file, and with it the last state.
        assert place.at_time(times[txid] + MILLISECOND) == images[txid], txid


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_every_state_that_we_wrote_is_restored(page_size: int, place: Place) -> None:
    """Latest, each TXID and each time, through VACUUM, shrinking and a snapshot."""
    connection = make_database(
        place.database, page_size=page_size, auto_vacuum=PAGE_SIZES.index(page_size) % 3
    )
    with closing(connection), place.ours() as replicator:
        synced = 0

        def sync() -> None:
            nonlocal synced
            replicator.sync()
            synced += 1
            if synced == 4:
                replicator.snapshot()

        images = record(place, connection, page_size, sync)
    assert len({len(image) for image in images.values()}) > 3
    assert 9 in {file.level for file in place.files()}
    check_history(place, images, page_size)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_every_state_that_litestream_wrote_is_restored(
    page_size: int, place: Place
) -> None:
    """Its files, which record no checksum of the database, one by one."""
    connection = make_database(
        place.database, page_size=page_size, auto_vacuum=PAGE_SIZES.index(page_size) % 3
    )
    with closing(connection):
        images = record(place, connection, page_size, place.once)
    check_history(place, images, page_size)


def pruned(place: Place) -> bool:
    """Whether all levels are there, and level 0 has lost its beginning."""
    level0 = place.files(0)
    return place.levels() >= {0, 1, 2, 9} and bool(level0) and level0[0].min_txid > 1


def test_levels_of_a_litestream_daemon_are_restored(place: Place) -> None:
    """Compacted, pruned and with snapshots: we reach what it reaches, the same bytes."""
    connection = make_database(place.database)
    busy = {
        "levels": [{"interval": "1s"}, {"interval": "2s"}],
        "snapshot": {"interval": "2s", "retention": "1h"},
        "l0_retention": "1s",
        "l0_retention_check_interval": "200ms",
        "verify_compaction": True,
    }
    with closing(connection):
        only_litestream_checkpoints(connection)
        with place.theirs(**busy):
            deadline = time.monotonic() + 80
            while not pruned(place) and time.monotonic() < deadline:
                fill(connection, 10)
                time.sleep(0.05)
            fill(connection, 10)
        place.agree()
    files = place.files()
    assert place.levels() >= {0, 1, 2, 9}
    assert place.files(0)[0].min_txid > 1
    for txid in reachable_txids(files)[::4]:
        place.at_txid(txid)
    # Before the first snapshot there is nothing to restore, for either of us.
    first = min(file.timestamp for file in files if file.is_snapshot)
    for file in files[::4]:
        if first <= file.timestamp < max(f.timestamp for f in files):
            place.at_time(to_datetime(file.timestamp) + MILLISECOND)
