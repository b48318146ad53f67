"""What ``sqlitereplica.testing`` gives users: values, a clock, stores in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sqlitereplica import (
    AnotherWriterError,
    ChecksumMismatchError,
    InvalidFileError,
    Replicator,
    StoreError,
    restore,
    restore_points,
)
from sqlitereplica.testing import (
    FaultyStore,
    LTXFile,
    MemoryStore,
    SteppingClock,
    image_of,
    only,
    since,
)

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


def file_of(
    low: int, high: int = 0, *, fill: int = 7, time: datetime = NOON
) -> LTXFile:
    """A file of one page."""
    return LTXFile(
        min_txid=low,
        max_txid=high or low,
        pages={1: bytes([fill]) * 512},
        page_size=512,
        time=time,
    )


def database_image(*, pages: int) -> dict[int, bytes]:
    """The pages of a sound, empty database."""
    import sqlite3

    connection = sqlite3.connect(":memory:")
    connection.execute("pragma page_size=512")
    connection.execute("create table t(x)")
    for _ in range(pages):
        connection.execute("insert into t values(zeroblob(400))")
    connection.commit()
    data = connection.serialize()
    connection.close()
    starts = range(0, len(data), 512)
    return {n: data[start : start + 512] for n, start in enumerate(starts, 1)}


# -- clock -----------------------------------------------------------------------------


def test_clock_moves_only_when_told() -> None:
    """Both of its times stand still until they are moved, and then move alike."""
    clock = SteppingClock(NOON)
    begun = clock()
    assert (clock(), clock.now()) == (begun, NOON)
    clock.advance("1h30m")
    clock.advance(0.25)
    clock.advance(timedelta(days=1))
    assert clock() == begun + 5400.25 + 86400
    assert clock.now() == NOON + timedelta(days=1, seconds=5400, milliseconds=250)
    assert clock.now_ms() == round(clock.now().timestamp() * 1000)


def test_clock_refuses_what_is_no_time() -> None:
    """It neither goes back nor begins at a time without a zone."""
    with pytest.raises(ValueError, match="zone"):
        SteppingClock(datetime(2027, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="negative"):
        SteppingClock().advance(-1)


# -- LTXFile ---------------------------------------------------------------------------


def test_file_is_what_its_bytes_say() -> None:
    """Made, encoded and read again it is the same value."""
    file = LTXFile(
        min_txid=3,
        max_txid=5,
        pages={2: b"b" * 1024, 7: b"g" * 1024},
        page_size=1024,
        commit=9,
        level=1,
        time=NOON,
    )
    again = LTXFile.read(file.name, file.data, level=1)
    assert again == file
    assert (again.commit, again.time, again.is_snapshot) == (9, NOON, False)
    assert repr(file) == (
        "LTXFile(level=1, min_txid=3, max_txid=5, commit=9, pages=[2, 7])"
    )


def test_other_content_is_another_value() -> None:
    """Files that differ in a page, a time or a level are not equal."""
    file = file_of(1)
    others = [file_of(1, fill=8), file_of(1, time=NOON + timedelta(milliseconds=1))]
    assert all(other != file for other in [*others, file_of(1, 2)])
    assert LTXFile.read(file.name, file.data, level=2) != file


def test_damaged_or_misnamed_file_is_refused() -> None:
    """A value is never made of bytes that are not sound, or under another's name."""
    file = file_of(1)
    data = bytearray(file.data)
    data[-1] ^= 1
    with pytest.raises(ChecksumMismatchError):
        LTXFile.read(file.name, bytes(data))
    with pytest.raises(InvalidFileError) as caught:
        LTXFile.read(file_of(1, 2).name, file.data)
    assert caught.value.kind == "name"


def test_image_of_files_is_what_a_restore_gives(tmp_path: Path) -> None:
    """Files made by hand restore to the database that they make."""
    first, grown = database_image(pages=1), database_image(pages=4)
    store = MemoryStore()
    changed = {n: page for n, page in grown.items() if first.get(n) != page}
    files = [
        LTXFile(min_txid=1, max_txid=1, pages=first, page_size=512, time=NOON),
        LTXFile(min_txid=2, max_txid=2, pages=changed, page_size=512, time=NOON),
    ]
    for file in files:
        store.put(file)
    assert store.files() == files
    restore(store.replica, tmp_path / "copy.db", verify="full")
    assert (tmp_path / "copy.db").read_bytes() == image_of(files)
    assert image_of(files) == b"".join(grown.values())
    assert image_of([]) == b""


# -- stores ----------------------------------------------------------------------------


def test_stores_in_memory_share_nothing() -> None:
    """What is put in one store is in no other, and is lost when it is cleared."""
    one, other = MemoryStore(name="one"), MemoryStore()
    one.put(file_of(1))
    one.put(LTXFile.read(file_of(1).name, file_of(1).data, level=9))
    assert [file.level for file in one.files()] == [0, 9]
    assert one.files(9) == one.files()[1:]
    assert other.files() == []
    one.clear()
    assert one.files() == []
    assert repr(one.replica) == "Replica('one')"


def test_file_that_another_writer_puts_does_not_replace_any() -> None:
    """A store in memory refuses a name that is taken, as any other does."""
    store = MemoryStore()
    store.put(file_of(1))
    store.put(file_of(1))
    with pytest.raises(AnotherWriterError):
        store.put(file_of(1, fill=8))


def test_faulty_store_fails_for_its_users_only() -> None:
    """The test sees what is there while everybody else is told that it failed."""
    store = FaultyStore()
    store.put(file_of(1))
    store.plan = since(1)
    assert len(store.files()) == 1
    with pytest.raises(StoreError):
        restore_points(store.replica)
    assert store.filesystem.count > 0
    store.heal()
    assert store.plan is None
    assert restore_points(store.replica).latest is not None


def test_replicator_outlives_the_faults_of_a_faulty_store(tmp_path: Path) -> None:
    """What was committed while the store failed is in it once it is healed."""
    import sqlite3

    store = FaultyStore()
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    with Replicator(tmp_path / "a.db", store.replica, sync_interval=0.05) as replicator:
        connection.execute("create table t(x)")
        replicator.sync(60)
        before = store.files(0)
        store.plan = only("write")
        connection.execute("insert into t values(1)")
        with pytest.raises((TimeoutError, StoreError)):
            replicator.sync(timeout=0.1)
        assert store.files(0) == before
        store.heal()
        replicator.sync(60)
        assert len(store.files(0)) > len(before)
    connection.close()
    assert not store.filesystem.overwritten
