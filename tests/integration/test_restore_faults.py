"""Replicas that lose files, have damaged ones or cannot be reached; and several of them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recording import START, Recording
from support.troubled import TroubledStore, make, overwrite

from sqlitereplica import ltx
from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    StoreError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore import fetch, plan_restore, read_checksums, restore
from sqlitereplica.store import LTXStore

PAGE_SIZE = 4096


@pytest.fixture
def store(tmp_path: Path) -> TroubledStore:
    """The store of the recording."""
    return TroubledStore.at(tmp_path / "replica")


@pytest.fixture
def recording(tmp_path: Path, store: LTXStore) -> Iterator[Recording]:
    """Eight transactions in level 0."""
    made = make(tmp_path / "source.db", store, 8)
    yield made
    made.close()


def take_away(store: LTXStore, txids: range) -> None:
    """Delete files of level 0."""
    gone = [f for f in store.list_all() if f.level == 0 and f.max_txid in txids]
    store.delete(gone)


def leftovers(folder: Path) -> list[str]:
    """Temporary files of restores."""
    return [name for name in os.listdir(folder) if name.startswith(".")]


def test_files_compacted_away_meanwhile_are_replaced_by_their_compaction(
    recording: Recording,
    store: TroubledStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was applied stays: only what follows is fetched from the other level."""
    monkeypatch.setattr(fetch, "_MOST_WAITING", 1)
    asked: list[tuple[int, str]] = []

    def compact(file: FileInfo, start: int) -> None:
        asked.append((file.level, file.name))
        if (file.level, file.max_txid) == (0, 4):
            recording.publish(1, 3, 8)
            take_away(store, range(3, 9))

    store.before_get = compact
    result = restore(store, tmp_path / "restored.db")
    assert (tmp_path / "restored.db").read_bytes() == recording.images[8]
    assert (result.txid, result.files) == (8, 4)
    assert asked.count((0, ltx.format_filename(1, 1))) == 1


def test_state_that_can_only_be_reached_anew_is_started_over(
    recording: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """If a snapshot is all that is left the restore begins again with it."""

    def prune(file: FileInfo, start: int) -> None:
        if (file.level, file.max_txid) == (0, 5):
            recording.publish(9, 1, 7)
            take_away(store, range(1, 8))

    store.before_get = prune
    result = restore(store, tmp_path / "restored.db")
    assert (tmp_path / "restored.db").read_bytes() == recording.images[8]
    assert (result.txid, result.files) == (8, 2)


def test_newer_and_larger_state_is_taken_if_the_plan_is_made_anew(
    tmp_path: Path, store: TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that a smaller final state did not need are there when a larger one does."""
    monkeypatch.setattr(fetch, "_MOST_WAITING", 1)
    made = Recording(tmp_path / "source.db", store)
    made.commit("CREATE TABLE t(b)", *["INSERT INTO t VALUES (zeroblob(9000))"] * 9)
    made.commit("INSERT INTO t VALUES (1)")
    made.commit("DELETE FROM t WHERE rowid > 2", "VACUUM")

    def go_on(file: FileInfo, start: int) -> None:
        if file.max_txid == 2 and made.txid == 3:
            made.commit(*["INSERT INTO t VALUES (randomblob(9000))"] * 20)
            take_away(store, range(2, 4))
            made.publish(1, 2, 4)

    store.before_get = go_on
    result = restore(store, tmp_path / "restored.db")
    made.close()
    assert result.txid == 4
    assert (tmp_path / "restored.db").read_bytes() == made.images[4]


def test_restore_goes_on_to_a_state_that_has_grown(
    tmp_path: Path, store: TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was applied stays if the new plan only adds to it, however much."""
    monkeypatch.setattr(fetch, "_MOST_WAITING", 1)
    made = Recording(tmp_path / "source.db", store)
    made.commit("CREATE TABLE t(b)")
    made.commit("INSERT INTO t VALUES (1)")
    made.commit("INSERT INTO t VALUES (2)")
    asked: list[str] = []

    def grow(file: FileInfo, start: int) -> None:
        asked.append(file.name)
        if file.max_txid == 2 and made.txid == 3:
            made.commit(*["INSERT INTO t VALUES (randomblob(9000))"] * 20)
            take_away(store, range(2, 4))
            made.publish(1, 2, 4)

    store.before_get = grow
    restore(store, tmp_path / "restored.db")
    made.close()
    assert (tmp_path / "restored.db").read_bytes() == made.images[4]
    assert asked.count(ltx.format_filename(1, 1)) == 1


def test_starting_over_frees_the_room_of_the_first_attempt(
    recording: Recording,
    store: TroubledStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk with room for one copy is enough, however often a restore begins."""
    room = len(recording.images[8])
    (tmp_path / "out").mkdir()

    def usage(_: str) -> Any:
        used = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
        return SimpleNamespace(total=room, free=room - used)

    def prune(file: FileInfo, start: int) -> None:
        if (file.level, file.max_txid) == (0, 5):
            recording.publish(9, 1, 7)
            take_away(store, range(1, 8))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    store.before_get = prune
    assert restore(store, tmp_path / "out" / "restored.db").files == 2


def test_transaction_asked_for_stays_the_target_when_planned_anew(
    recording: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """Files that go away do not change which state is restored."""

    def compact(file: FileInfo, start: int) -> None:
        if (file.level, file.max_txid) == (0, 3):
            recording.publish(2, 2, 5)
            recording.publish(9, 1, 7)
            take_away(store, range(1, 6))

    store.before_get = compact
    with pytest.raises(NotRestorableError) as caught:
        restore(store, tmp_path / "restored.db", txid=4)
    assert caught.value.kind == "txid"
    recording.publish(0, 1, 1)
    store.before_get = None
    assert restore(store, tmp_path / "restored.db", txid=5).txid == 5


def test_file_that_is_listed_but_never_there_ends_after_retries(
    recording: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """A listing that lies for ever is not believed for ever."""
    missing = [0]

    def deny(file: FileInfo, start: int) -> None:
        if file.max_txid == 5:
            missing[0] += 1
            raise StoreError("gone", operation="get", transient=False, kind="missing")

    store.before_get = deny
    with pytest.raises(StoreError, match="gone"):
        restore(store, tmp_path / "restored.db")
    assert missing == [4]
    assert leftovers(tmp_path) == []


def test_other_store_errors_end_the_restore_at_once(
    recording: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """The store has retried already; nothing is left of the attempt."""

    def fail(file: FileInfo, start: int) -> None:
        if file.max_txid == 5:
            raise StoreError("no answer", operation="get")

    store.before_get = fail
    listings = store.requests["list"]
    with pytest.raises(StoreError, match="no answer"):
        restore(store, tmp_path / "restored.db")
    assert store.requests["list"] == listings + 2  # both layouts, once
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "restored.db").exists()


@pytest.mark.parametrize("last", [6, 8])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "foreign"])
def test_damaged_file_is_avoided_if_others_lead_to_the_same_state(
    recording: Recording,
    store: TroubledStore,
    tmp_path: Path,
    damage: str,
    last: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A compacted file that is no good is replaced by those it was made of, and named."""
    file = recording.publish(2, 3, last)
    good = recording.files[3, last]
    middle = len(good) // 2
    bad = {
        "empty": b"",
        "cut": good[:middle],
        "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "other": recording.files[4, 4],
        "foreign": b"<html>" * 100,
    }
    overwrite(store, file, bad[damage])
    for number, target in enumerate([{}, {"txid": 8}, {"at": "1 minute ago"}]):
        caplog.clear()
        path = tmp_path / f"{number}.db"
        result = restore(store, path, **target)  # type: ignore[arg-type]
        assert path.read_bytes() == recording.images[8]
        assert result.files == 8
        [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert file.name in record.getMessage() and "level 2" in record.getMessage()


def test_damaged_file_that_nothing_replaces_is_an_error_that_names_it(
    recording: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """An older state is never restored in place of the one asked for."""
    last = store.list_all()[-1]
    overwrite(store, last, recording.files[8, 8][:-1])
    for target in ({}, {"txid": 8}, {"at": (START + 9000) / 1000}):
        with pytest.raises(InvalidFileError) as caught:
            restore(store, tmp_path / "restored.db", **target)  # type: ignore[arg-type]
        assert any(last.name in note for note in caught.value.__notes__)
        assert leftovers(tmp_path) == []
    assert restore(store, tmp_path / "restored.db", txid=7).txid == 7


def test_damaged_size_is_no_lack_of_room(
    recording: Recording,
    store: TroubledStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A header is proven before the disk is asked for what it wants."""
    room = len(recording.images[8])
    usage = SimpleNamespace(total=room, free=room)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    data = bytearray(recording.files[8, 8])
    data[12:16] = (room // PAGE_SIZE * 2).to_bytes(4, "big")
    overwrite(store, store.list_all()[-1], bytes(data))
    with pytest.raises(InvalidFileError):
        restore(store, tmp_path / "restored.db")


def test_damaged_file_of_a_plan_made_anew_is_the_one_named(
    recording: Recording,
    store: TroubledStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error is about the file that is damaged, not the one that went away."""

    def compact(file: FileInfo, start: int) -> None:
        if (file.level, file.max_txid) == (0, 4):
            damaged = recording.publish(1, 3, 8)
            overwrite(store, damaged, b"?" + recording.files[3, 8][1:])
            take_away(store, range(3, 9))

    store.before_get = compact
    with pytest.raises(InvalidFileError) as caught:
        restore(store, tmp_path / "restored.db")
    assert caught.value.kind == "magic"
    [note] = caught.value.__notes__
    assert ltx.format_filename(3, 8) in note
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_file_of_another_writer_is_noticed(
    recording: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """A file made of another database than the one before it left is refused."""
    other = make(tmp_path / "other.db", LTXStore.open(tmp_path / "other"), 8)
    other.close()
    [file] = [f for f in store.list_all() if f.max_txid == 8]
    overwrite(store, file, other.files[8, 8])
    with pytest.raises(PosMismatchError) as caught:
        restore(store, tmp_path / "restored.db")
    assert caught.value.kind == "checksum"


def header(txids: tuple[int, int], commit: int, page_size: int = 512) -> ltx.Header:
    """A header of small pages."""
    return ltx.Header(
        page_size=page_size,
        commit=commit,
        min_txid=txids[0],
        max_txid=txids[1],
        timestamp=START,
    )


def page(number: int) -> bytes:
    """A page."""
    return bytes([number]) * 512


def put(store: LTXStore, header: ltx.Header, pages: list[tuple[int, bytes]]) -> None:
    """Publish a file in level 0."""
    data = ltx.encode(header, pages)
    txids = header.min_txid, header.max_txid
    store.put(0, *txids, data, timestamp=header.timestamp)


def three(number: int) -> list[tuple[int, bytes]]:
    """Three pages."""
    return [(pgno, page(number)) for pgno in (1, 2, 3)]


def test_growth_without_its_pages_is_refused(
    store: TroubledStore, tmp_path: Path
) -> None:
    """A page that no file has is not filled with zeros (litestream.md 0.5)."""
    put(store, header((1, 1), 3), three(1))
    put(store, header((2, 2), 6), [(4, page(2)), (6, page(2))])
    with pytest.raises(InvalidFileError, match="page 5 of 6") as caught:
        restore(store, tmp_path / "restored.db", verify=None)
    assert caught.value.kind == "incomplete"
    put(store, header((3, 3), 6), [(5, page(3))])
    restore(store, tmp_path / "restored.db", verify=None)
    assert (tmp_path / "restored.db").read_bytes()[4 * 512 : 5 * 512] == page(3)


def test_pages_before_a_shrink_do_not_come_back(
    store: TroubledStore, tmp_path: Path
) -> None:
    """A database that shrank and grew must bring its new pages; old ones are no cover."""
    put(store, header((1, 1), 3), three(1))
    put(store, header((2, 2), 1), [(1, page(2))])
    put(store, header((3, 3), 3), [(2, page(3))])
    with pytest.raises(InvalidFileError, match="page 3 of 3"):
        restore(store, tmp_path / "restored.db", verify=None)


def test_page_size_that_changes_is_refused(
    store: TroubledStore, tmp_path: Path
) -> None:
    """All files of a plan have pages of one size."""
    put(store, header((1, 1), 3), three(1))
    put(store, header((2, 2), 3, page_size=1024), [(1, bytes(1024))])
    with pytest.raises(InvalidFileError) as caught:
        restore(store, tmp_path / "restored.db", verify=None)
    assert caught.value.kind == "page-size"


def test_size_that_the_files_cannot_hold_is_refused_before_allocating(
    store: TroubledStore, tmp_path: Path
) -> None:
    """A small file cannot ask for terabytes of disk or for gigabytes of memory."""
    put(store, header((1, 1), 3), three(1))
    put(store, header((2, 2), ltx.MAX_COMMIT), [(1, page(2))])
    put(store, header((3, 3), 3), [(1, page(3))])
    plan = plan_restore(store.list_all())
    with pytest.raises(InvalidFileError) as caught:
        read_checksums(store, plan)
    assert caught.value.kind == "commit"
    with pytest.raises(InvalidFileError):
        restore(store, tmp_path / "restored.db", verify=None)
    take_away(store, range(3, 4))
    with pytest.raises(InvalidFileError) as caught:
        restore(store, tmp_path / "restored.db", verify=None)
    assert caught.value.kind == "commit"
    assert leftovers(tmp_path) == []


@given(data=st.data())
@settings(max_examples=60)
def test_any_damage_is_detected_or_without_effect(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Flipped, lost and repeated bytes give a typed error, never another database."""
    folder = tmp_path_factory.mktemp("damage")
    store = LTXStore.open(folder / "replica")
    put(store, header((1, 1), 3), three(1))
    put(store, header((2, 2), 4), [(2, page(2)), (4, page(2))])
    files = store.list_all()
    file = data.draw(st.sampled_from(files))
    whole = bytearray(store.get(file))
    position = data.draw(st.integers(0, len(whole) - 1))
    action = data.draw(st.sampled_from(["flip", "cut", "double"]))
    if action == "flip":
        whole[position] ^= data.draw(st.integers(1, 255))
    elif action == "cut":
        del whole[position:]
    else:
        whole[position:position] = whole[: position + 1]
    overwrite(store, file, bytes(whole))
    try:
        restore(store, folder / "restored.db", verify=None)
    except (InvalidFileError, PosMismatchError):
        assert not (folder / "restored.db").exists()
    else:  # LZ4 can say the same page in several ways
        expected = page(1) + page(2) + page(1) + page(2)
        assert (folder / "restored.db").read_bytes() == expected
    assert leftovers(folder) == []
