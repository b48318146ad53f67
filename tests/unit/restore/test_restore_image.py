"""Images put together from files that are made by hand."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from sqlitereplica import ltx
from sqlitereplica.errors import InvalidFileError, PosMismatchError
from sqlitereplica.ltx import FileInfo, Header
from sqlitereplica.restore.image import Image

PAGE_SIZE = 512


def header(first: int, last: int, commit: int, post_checksum: int = 0) -> Header:
    """The header of a file of small pages."""
    return Header(
        page_size=PAGE_SIZE,
        commit=commit,
        min_txid=first,
        max_txid=last,
        timestamp=0,
        post_checksum=post_checksum,
    )


def encode(made: Header, pgnos: list[int]) -> bytes:
    """A file with these pages, each filled with its TXID."""
    return ltx.encode(made, [(p, bytes([made.max_txid]) * PAGE_SIZE) for p in pgnos])


def apply(image: Image, made: Header, pgnos: list[int], cut: int = 0) -> None:
    """Apply a file, without its last bytes if ``cut`` says so."""
    data = encode(made, pgnos)
    data = data[: len(data) - cut]
    file = FileInfo(0, made.min_txid, made.max_txid, len(data), 0)
    image.apply(file, io.BytesIO(data))


def new_image(horizon: int = 99, *, checksums: bool = False) -> Image:
    """An image with nothing applied, and no place to write to."""
    return Image(None, horizon=horizon, checksums=checksums)


def test_neighbouring_pages_are_written_together() -> None:
    """Pages that follow each other make one write, of a bounded size."""
    writes: list[tuple[int, int]] = []
    image = Image(
        lambda offset, pages: writes.append((offset, len(pages))),
        horizon=5000,
        checksums=False,
    )
    apply(image, header(1, 1, 3000), list(range(1, 3001)))
    apply(image, header(2, 2, 3000), [2, 3, 4, 9, 2000, 2001])
    mebibyte = (1 << 20) // PAGE_SIZE
    assert writes[:2] == [(0, mebibyte), (1 << 20, 3000 - mebibyte)]
    pages = [(offset // PAGE_SIZE + 1, count) for offset, count in writes[2:]]
    assert pages == [(2, 3), (9, 1), (2000, 2)]


def test_pages_beyond_the_horizon_are_not_written() -> None:
    """A database that shrank later takes no more room than it does then."""
    written: list[bytes] = []
    image = Image(lambda _, pages: written.extend(pages), horizon=2, checksums=True)
    apply(image, header(1, 1, 5), [1, 2, 3, 4, 5])
    apply(image, header(2, 2, 2), [1])
    assert len(written) == 3
    state = image.verify()
    assert state.sums is not None and len(state.sums) == 2 and state.files == 2


def test_image_with_a_half_applied_file_can_become_nothing() -> None:
    """After an error in the middle of a file the image is no state any more."""
    image = new_image()
    goal = header(2, 2, 3)
    apply(image, header(1, 1, 3), [1, 2, 3])
    assert image.can_become(goal)
    with pytest.raises(InvalidFileError):
        apply(image, goal, [1, 2], cut=1)
    assert not image.can_become(goal)


def test_image_whose_pages_were_dropped_cannot_become_larger() -> None:
    """What was beyond the horizon is missing if a larger state is wanted then."""
    image = new_image(horizon=2)
    apply(image, header(1, 1, 3), [1, 2, 3])
    assert image.can_become(header(2, 2, 2))
    assert not image.can_become(header(2, 2, 3))
    apply(image, header(2, 2, 2), [1])
    assert image.can_become(header(3, 3, 3)), "what is added now has to come anew"


def test_image_without_checksums_cannot_become_one_that_needs_them() -> None:
    """A checksum that is to be compared needs those of all pages."""
    signed = header(2, 2, 1, post_checksum=ltx.EMPTY_CHECKSUM)
    for checksums in (False, True):
        image = new_image(checksums=checksums)
        assert not image.can_become(signed)
        apply(image, header(1, 1, 1), [1])
        assert image.can_become(signed) == checksums


def test_files_must_join() -> None:
    """Neither a gap nor a file that brings nothing new is applied."""
    image = new_image()
    apply(image, header(1, 3, 1), [1])
    with pytest.raises(PosMismatchError):
        apply(image, header(5, 5, 1), [1])
    with pytest.raises(PosMismatchError):
        apply(image, header(2, 3, 1), [1])
    assert image.txid == 3 and image.whole


def test_first_file_must_hold_the_whole_database() -> None:
    """An increment is no base."""
    with pytest.raises(InvalidFileError) as caught:
        apply(new_image(), header(2, 2, 1), [1])
    assert caught.value.kind == "base"


def test_file_under_the_name_of_another_is_refused() -> None:
    """The transactions in the header are those of the name."""
    data = encode(header(1, 2, 1), [1])
    with pytest.raises(InvalidFileError) as caught:
        new_image().apply(FileInfo(0, 1, 3, len(data), 0), io.BytesIO(data))
    assert caught.value.kind == "name"


@pytest.mark.parametrize("missing", [None, 1])
def test_lock_page_is_in_no_file_and_not_missed(missing: int | None) -> None:
    """The page at 1 GiB is left out; the one behind it is not (litestream.md 1.3)."""
    size = 65536
    lock = ltx.lock_pgno(size)
    offsets: list[tuple[int, int]] = []
    image = Image(
        lambda offset, pages: offsets.append((offset, len(pages))),
        horizon=lock + 1,
        checksums=True,
    )
    base = replace(header(1, 1, lock - 1), page_size=size)
    content = bytes(size)
    grown = replace(header(2, 2, lock + 1), page_size=size)
    data = ltx.encode(base, ((p, content) for p in range(1, lock)))
    image.apply(FileInfo(0, 1, 1, len(data), 0), io.BytesIO(data))
    data = ltx.encode(grown, [] if missing else [(lock + 1, content)])
    image.apply(FileInfo(0, 2, 2, len(data), 0), io.BytesIO(data))
    if missing:
        with pytest.raises(InvalidFileError, match=f"page {lock + 1} of {lock + 1}"):
            image.verify()
    else:
        sums = image.verify().sums
        assert sums is not None and sums[lock - 1] == 0 and sums[lock] != 0
        assert offsets[-1] == (lock * size, 1)


def test_nothing_applied_is_no_state() -> None:
    """An image is verified only after its files."""
    with pytest.raises(ValueError, match="no file"):
        new_image().verify()
