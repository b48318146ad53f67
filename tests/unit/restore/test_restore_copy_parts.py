"""The parts of a restore over an old copy: images over it, notes, spans, page checksums."""

from __future__ import annotations

import io
import os
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica import ltx
from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError, StoreError
from sqlitereplica.ltx import FileInfo, Header
from sqlitereplica.restore.fetch import CHUNK_SIZE
from sqlitereplica.restore.frames import HOLE_SIZE, Frames, fetch_pages, find_frames
from sqlitereplica.restore.image import Image
from sqlitereplica.restore.mark import make_mark, marked_txid, read_mark, write_mark
from sqlitereplica.restore.oldcopy import page_sums
from sqlitereplica.restore.sums import put_sums, read_sums, stale_sums
from sqlitereplica.store import LTXStore, RetryPolicy, SideFile

PAGE_SIZE = 512


def page(seed: int) -> bytes:
    """A page."""
    return bytes([seed]) * PAGE_SIZE


def sums_of(pages: list[bytes]) -> array[int]:
    """Their checksums."""
    return array("Q", map(ltx.page_checksum, range(1, len(pages) + 1), pages))


def header(first: int, last: int, sums: array[int]) -> Header:
    """The header of the file that leads to pages with these checksums."""
    return Header(
        page_size=PAGE_SIZE,
        commit=len(sums),
        min_txid=first,
        max_txid=last,
        timestamp=last,
        post_checksum=ltx.database_checksum(sums),
    )


def apply(image: Image, made: Header, pages: dict[int, bytes]) -> None:
    """Apply a file."""
    data = ltx.encode(made, sorted(pages.items()))
    file = FileInfo(0, made.min_txid, made.max_txid, len(data), 0)
    image.apply(file, io.BytesIO(data))


@pytest.fixture
def store() -> LTXStore:
    """An empty replica in memory."""
    memory = MemoryFileSystem(skip_instance_cache=True)
    memory.store, memory.pseudo_dirs = {}, [""]
    return LTXStore.open(memory, path="/r", retry=RetryPolicy(attempts=1))


# -- images over a copy ----------------------------------------------------------------


def over_copy(lacking: list[int]) -> tuple[Image, list[tuple[int, int]]]:
    """The state of transaction 3, four pages, of which some are lacking."""
    sums = sums_of([page(n) for n in range(4)])
    writes: list[tuple[int, int]] = []
    image = Image.over_copy(
        lambda offset, pages: writes.append((offset // PAGE_SIZE + 1, len(pages))),
        header(1, 3, sums),
        sums,
        lacking,
        horizon=9,
    )
    return image, writes


def test_lacking_pages_are_brought_and_the_rest_counted() -> None:
    """A page that was neither replaced nor brought is the copy's."""
    image, writes = over_copy([2, 3])
    assert [image.lacks(n) for n in range(1, 6)] == [False, True, True, False, False]
    final = sums_of([page(9), page(8), page(2), page(3)])
    apply(image, header(4, 4, final), {1: page(9), 2: page(8)})
    assert not image.lacks(2)
    with pytest.raises(InvalidFileError, match="page 3 of 4"):
        image.verify()
    image.bring(3, page(2))
    state = image.verify()
    assert state.sums == final and (state.reused, state.files) == (1, 1)
    assert writes == [(1, 2), (3, 1)]


def test_page_that_is_not_the_states_is_not_brought() -> None:
    """Neither another page, nor any in a place that was cut off since."""
    image, _ = over_copy([2, 4])
    with pytest.raises(ChecksumMismatchError):
        image.bring(2, page(7))
    apply(image, header(4, 4, sums_of([page(0), page(1)])), {})
    apply(image, header(5, 5, sums_of([page(0), page(1), page(2), page(3)])), {})
    assert image.lacks(3) and image.lacks(4)
    with pytest.raises(ChecksumMismatchError):
        image.bring(4, page(3))


def test_copy_that_lacks_nothing_is_the_state() -> None:
    """Without any file."""
    image, writes = over_copy([])
    assert image.verify().reused == 4 and writes == []


def test_lock_page_is_neither_lacking_nor_reused() -> None:
    """It is no page of the state, whatever the copy has there."""
    size = 65536
    lock = ltx.lock_pgno(size)
    sums = array("Q", [1 << 63 | n for n in range(lock + 1)])
    sums[lock - 1] = 0
    made = replace(header(1, 1, sums), page_size=size)
    image = Image.over_copy(lambda *_: None, made, sums, [], horizon=lock + 1)
    state = image.verify()
    assert state.reused == lock and state.header.commit == lock + 1


# -- page checksums of a file ----------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 5000])
def test_pages_of_a_file_are_summed_whole(tmp_path: Path, count: int) -> None:
    """Over the pieces in which it is read; what is no whole page is not one."""
    pages = [page(n % 251) for n in range(count)]
    (tmp_path / "a").write_bytes(b"".join(pages) + b"?" * 100)
    with (tmp_path / "a").open("rb") as file:
        found = array("Q")
        for block in page_sums(file.fileno(), PAGE_SIZE, count):
            found.extend(block)
        assert found == sums_of(pages)
        more = array("Q")
        for block in page_sums(file.fileno(), PAGE_SIZE, count + 7):
            more.extend(block)
        assert more == found, "it ends with the file"


def test_lock_page_of_a_file_has_no_checksum(tmp_path: Path) -> None:
    """The one that holds the byte at 1 GiB, here in a sparse file."""
    size = 65536
    lock = ltx.lock_pgno(size)
    with (tmp_path / "a").open("w+b") as file:
        file.truncate((lock + 2) * size)
        file.seek((lock - 1) * size)
        file.write(b"garbage")
        file.flush()
        at = 0
        for block in page_sums(file.fileno(), size, lock + 2):
            zeros = [at + n + 1 for n, value in enumerate(block) if value == 0]
            assert zeros == ([lock] if at < lock <= at + len(block) else [])
            at += len(block)
    assert at == lock + 2


# -- notes -----------------------------------------------------------------------------


def test_note_is_believed_for_its_very_pages_and_source() -> None:
    """Not for another order of the same pages, another replica or another page size."""
    sums = sums_of([page(1), page(2), page(3)])
    mark = make_mark("s3://b/a", 7, PAGE_SIZE, sums)
    assert marked_txid(mark, "s3://b/a", PAGE_SIZE, sums) == 7
    swapped = array("Q", [sums[1], sums[0], sums[2]])
    assert marked_txid(mark, "s3://b/a", PAGE_SIZE, swapped) is None
    alike = array("Q", [sums[0] ^ 5, sums[1] ^ 5, sums[2]])
    assert ltx.database_checksum(alike) == ltx.database_checksum(sums)
    assert marked_txid(mark, "s3://b/a", PAGE_SIZE, alike) is None
    assert marked_txid(mark, "s3://b/a", PAGE_SIZE, sums[:2]) is None
    assert marked_txid(mark, "s3://b/b", PAGE_SIZE, sums) is None
    assert marked_txid(mark, "s3://b/a", 2 * PAGE_SIZE, sums) is None


@given(st.binary(max_size=60))
def test_other_notes_say_nothing(mark: bytes) -> None:
    """Any program may have written them."""
    assert marked_txid(mark, "x", PAGE_SIZE, array("Q", [1 << 63])) is None


def test_every_changed_byte_of_a_note_is_noticed() -> None:
    """A number that was tampered with is not taken."""
    sums = sums_of([page(1)])
    mark = make_mark("x", 7, PAGE_SIZE, sums)
    for at in range(len(mark)):
        wrong = mark[:at] + bytes([mark[at] ^ 1]) + mark[at + 1 :]
        assert marked_txid(wrong, "x", PAGE_SIZE, sums) is None


def test_note_stays_on_the_file(tmp_path: Path) -> None:
    """Through a rename, where there are such attributes at all; else there is none."""
    with (tmp_path / "a").open("w+b") as file:
        assert read_mark(file.fileno()) == b""
        written = write_mark(file.fileno(), b"note")
    os.rename(tmp_path / "a", tmp_path / "b")
    with (tmp_path / "b").open("rb") as file:
        assert read_mark(file.fileno()) == (b"note" if written else b"")


# -- frames ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3 * HOLE_SIZE), st.integers(11, 70_000))))
def test_spans_cover_all_frames_and_little_else(gaps: list[tuple[int, int]]) -> None:
    """In order, each frame in one; no hole beyond the limit, no span that is too long."""
    frames = Frames(array("I"), array("Q"), array("I"))
    at = 100
    for pgno, (gap, size) in enumerate(gaps, 1):
        frames.pgnos.append(pgno)
        frames.offsets.append(at + gap)
        frames.sizes.append(size)
        at += gap + size
    spans = list(frames.spans())
    assert [n for first, last in spans for n in range(first, last)] == list(
        range(len(gaps))
    )
    for (first, last), chunk in zip(
        spans, frames.chunks(FileInfo(9, 1, 1, at, 0)), strict=True
    ):
        assert chunk.start == frames.offsets[first]
        assert chunk.end == frames.offsets[last - 1] + frames.sizes[last - 1]
        assert chunk.end - chunk.start <= CHUNK_SIZE
        useful = sum(frames.sizes[first:last])
        assert chunk.end - chunk.start - useful <= HOLE_SIZE * (last - first - 1)


@pytest.mark.parametrize("guess", [0, 7, 300, 9999])
def test_wanted_pages_are_found_whatever_is_guessed(
    store: LTXStore, guess: int
) -> None:
    """The index is read to its beginning; each byte of it once."""
    pages = [(n, os.urandom(PAGE_SIZE)) for n in range(1, 301)]
    made = header(1, 1, sums_of([data for _, data in pages]))
    data = ltx.encode(made, pages)
    file = store.put(9, 1, 1, data, timestamp=1)
    read: list[int] = []
    wanted = {1, 2, 40, 300}
    frames = find_frames(store, file, guess, wanted.__contains__, on_bytes=read.append)
    assert set(frames.pgnos) == wanted
    index = len(data) - ltx.index_offset(data, len(data))
    assert index <= sum(read) <= max(index, 24 + 10 * guess)
    found = fetch_pages(store, file, frames, PAGE_SIZE, on_bytes=read.append)
    assert dict(found) == {n: page for n, page in pages if n in wanted}


# -- page checksums in a replica -------------------------------------------------------


def test_page_checksums_are_stored_beside_the_levels(store: LTXStore) -> None:
    """Under the number of the transaction; without them there is no error."""
    sums = sums_of([page(1), page(2)])
    image = header(1, 0x2A, sums)
    assert read_sums(store, image) is None
    file = put_sums(store, image, sums)
    assert (file.folder, file.name) == ("sums", "000000000000002a")
    assert put_sums(store, image, sums) == file
    assert read_sums(store, image) == sums
    assert store.list_all() == []


def test_page_checksums_of_a_deleted_history_are_replaced(store: LTXStore) -> None:
    """They are no other writer's file: no image has them any more."""
    old, new = sums_of([page(1)]), sums_of([page(2), page(3)])
    put_sums(store, header(1, 5, old), old)
    put_sums(store, header(1, 5, new), new)
    assert read_sums(store, header(1, 5, new)) == new
    with pytest.raises((InvalidFileError, StoreError)):
        read_sums(store, header(1, 5, old))


def test_page_checksums_go_with_their_image() -> None:
    """Those without one are stale; other names and folders are left alone."""
    names = [f"{n:016x}" for n in (1, 5, 9)] + ["readme", "0000000000000005.old"]
    side = [SideFile("sums", name, 1) for name in names]
    side.append(SideFile("pins", names[1], 1))
    infos = [
        FileInfo(0, 1, 1, 1, 0),
        FileInfo(0, 5, 5, 1, 0),
        FileInfo(9, 1, 9, 1, 0),
        FileInfo(2, 2, 5, 1, 0),
    ]
    assert stale_sums(side, infos) == [side[1]]
    assert stale_sums(side, [*infos, FileInfo(3, 1, 5, 1, 0)]) == []
    assert stale_sums(side, []) == side[:3]
