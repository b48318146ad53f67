"""Writing LTX files."""

from __future__ import annotations

import pytest
from support.ltxfiles import PAGE_SIZES, RawFile, image, make_header, make_page

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import Buffer, Encoder, encode, lock_pgno

MIB = 1 << 20


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_file_is_laid_out_as_documented(page_size: int) -> None:
    """The bytes are those of a builder that follows litestream.md 1 to the letter."""
    header = make_header(page_size=page_size, commit=300)
    pages = image(page_size, 300)
    assert encode(header, pages) == RawFile.of(header, pages).build()


def test_file_without_pages_is_legal() -> None:
    """A file that is not a snapshot may change nothing but the size."""
    header = make_header(min_txid=2, max_txid=2)
    data = encode(header, [])
    assert data == RawFile.of(header, []).build()
    assert len(data) == 100 + 6 + 1 + 8 + 16


def test_pages_may_be_added_in_several_calls() -> None:
    """The file does not depend on how its pages were handed over."""
    header = make_header(commit=9)
    pages = image(512, 9)
    data = bytearray()
    encoder = Encoder(data.extend, header)
    encoder.add(pages[:4])
    encoder.add([])
    encoder.add(iter(pages[4:]))
    size = encoder.finish()
    assert bytes(data) == encode(header, pages)
    assert size == len(data)


def test_pages_may_be_any_bytes_like_object() -> None:
    """Pages need not be copied to bytes first."""
    header = make_header(commit=3)
    pages = image(512, 3)
    kinds = (bytes, bytearray, memoryview)
    mixed: list[tuple[int, Buffer]] = [
        (n, kind(page)) for kind, (n, page) in zip(kinds, pages, strict=True)
    ]
    assert encode(header, mixed) == encode(header, pages)


def test_output_comes_in_pieces_of_a_mebibyte() -> None:
    """Neither many small writes nor the whole file at once."""
    sizes: list[int] = []
    header = make_header(page_size=65536, commit=100)
    encoder = Encoder(lambda piece: sizes.append(len(piece)), header)
    encoder.add(image(65536, 100))
    assert encoder.finish() == sum(sizes)
    assert len(sizes) > 3
    assert all(MIB <= size < MIB + 2 * 65536 for size in sizes[:-2])


@pytest.mark.parametrize(
    ("kind", "pages"),
    [
        ("page-order", [(2, bytes(512)), (1, bytes(512))]),
        ("page-order", [(2, bytes(512)), (2, bytes(512))]),
        ("pgno", [(0, bytes(512))]),
        ("pgno", [(-1, bytes(512))]),
        ("pgno", [(6, bytes(512))]),
        ("page-size", [(1, bytes(511))]),
        ("page-size", [(1, bytes(513))]),
        ("page-size", [(1, b"")]),
    ],
)
def test_page_that_breaks_a_rule_closes_the_encoder(
    kind: str, pages: list[tuple[int, bytes]]
) -> None:
    """After a refused page nothing can make a file that looks whole."""
    data = bytearray()
    encoder = Encoder(data.extend, make_header(min_txid=2, max_txid=2, commit=5))
    with pytest.raises(InvalidFileError) as caught:
        encoder.add(pages)
    assert caught.value.kind == kind
    with pytest.raises(ValueError, match="finished or failed"):
        encoder.finish()
    assert not data


def test_order_is_kept_across_calls() -> None:
    """A later call cannot go back."""
    encoder = Encoder(list, make_header(commit=5))
    encoder.add([(3, bytes(512))])
    with pytest.raises(InvalidFileError) as caught:
        encoder.add([(2, bytes(512))])
    assert caught.value.kind == "page-order"


def test_lock_page_is_refused() -> None:
    """SQLite never writes the lock page, so no file may hold it."""
    lock = lock_pgno(512)
    header = make_header(min_txid=2, max_txid=2, commit=lock + 1)
    encode(header, [(lock - 1, bytes(512)), (lock + 1, bytes(512))])
    with pytest.raises(InvalidFileError) as caught:
        encode(header, [(lock, bytes(512))])
    assert caught.value.kind == "lock-page"


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_snapshot_that_misses_a_page_is_refused(missing: int) -> None:
    """A snapshot holds every page, and what does not is never finished."""
    data = bytearray()
    encoder = Encoder(data.extend, make_header(commit=5))
    encoder.add(page for page in image(512, 5) if page[0] != missing)
    with pytest.raises(InvalidFileError) as caught:
        encoder.finish()
    assert caught.value.kind == "incomplete"
    with pytest.raises(ValueError, match="finished or failed"):
        encoder.finish()
    assert not data


def test_invalid_header_is_refused_at_once() -> None:
    """Nothing is written under a header that nobody reads."""
    with pytest.raises(InvalidFileError):
        Encoder(list, make_header(commit=0))


def test_finished_encoder_takes_no_pages() -> None:
    """Nothing can follow the trailer."""
    encoder = Encoder(list, make_header(min_txid=2, max_txid=2))
    encoder.finish()
    with pytest.raises(ValueError, match="finished or failed"):
        encoder.add([(1, make_page(512, 1))])


def test_error_of_the_sink_comes_through() -> None:
    """What writing raises is the caller's, and ends the file."""

    def fail(_: Buffer) -> None:
        raise OSError(28, "disk full")

    encoder = Encoder(fail, make_header())
    encoder.add(image(512, 2))
    with pytest.raises(OSError, match="disk full"):
        encoder.finish()
    with pytest.raises(ValueError, match="finished or failed"):
        encoder.finish()
