"""The page index: numbers, entries and the reader of single pages."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from support.ltxfiles import RawFile, image, leb128, make_header, make_page

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import (
    INDEX_TAIL_SIZE,
    PageIndex,
    encode,
    index_entries,
    index_offset,
)
from sqlitereplica.ltx.index import IndexWriter, index_entry, varint

HEADER = make_header(min_txid=2, max_txid=2, commit=900)
PAGES = [(n, make_page(512, n)) for n in (1, 2, 127, 128, 300, 899)]


def tail(entries: list[tuple[int, int, int]], end: bytes = b"\0") -> tuple[bytes, int]:
    """The end of a file with this index, and the size of the file that fits it."""
    index = b"".join(leb128(n) for entry in entries for n in entry) + end
    last = entries[-1][1] + entries[-1][2] if entries else 100
    data = index + len(index).to_bytes(8, "big") + bytes(16)
    return data, last + 6 + len(data)


def kind_of(data: bytes, size: int) -> str:
    """The kind of the error that parsing raises."""
    with pytest.raises(InvalidFileError) as caught:
        PageIndex.parse(data, size)
    return caught.value.kind


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**32, "8080808010"),
        (2**40 + 5, "858080808020"),
        (2**63, "80808080808080808001"),
        (2**64 - 1, "ffffffffffffffffff01"),
    ],
)
def test_number_is_unsigned_leb128(number: int, encoded: str) -> None:
    """Seven bits a byte, least significant first, the last without the high bit."""
    assert varint(number).hex() == encoded
    assert leb128(number).hex() == encoded


def test_entry_is_three_numbers_beyond_four_gibibytes() -> None:
    """Offsets are not confined to 32 bits."""
    entry = index_entry(2**32 - 2, 5 * 2**40, 65_803)
    assert entry == leb128(2**32 - 2) + leb128(5 * 2**40) + leb128(65_803)


@pytest.mark.parametrize("count", [0, 1, 32, 33, 512, 513, 3000])
@pytest.mark.parametrize(
    ("first", "begin", "sizes"),
    [
        (1, 100, range(11, 12)),
        (1, 100, range(120, 136)),
        (1, 100, range(16_380, 16_388)),
        (2**21 - 40, 2**28 - 9000, range(130, 4000)),
        (2**32 - 6001, 2**35 - 99_999, range(65_800, 65_804)),
        (16_384, 5 * 2**40, range(200, 300)),
    ],
)
def test_entries_made_together_are_those_made_alone(
    count: int, first: int, begin: int, sizes: range
) -> None:
    """Lengths of numbers change within a batch or not, and many batches make one index."""
    random = Random(count)
    writer = IndexWriter()
    writer.ends[0] = end = begin
    expected, found, pgno = b"", b"", first
    for _ in range(count):
        size = random.choice(sizes)
        expected += leb128(pgno) + leb128(end) + leb128(size)
        writer.pgnos.append(pgno)
        writer.ends.append(end := end + size)
        pgno += random.choice((1, 1, 1, 2))
        if random.random() < 0.001:
            found += writer.take()
    assert found + writer.take() == expected
    assert writer.take() == b""


def test_index_leads_to_the_frames() -> None:
    """At each offset there is the frame of that page, of that size."""
    data = encode(HEADER, PAGES)
    index = PageIndex.parse(data, len(data))
    assert list(index) == [n for n, _ in PAGES]
    for pgno, (offset, size) in index.items():
        assert int.from_bytes(data[offset : offset + 4], "big") == pgno
        assert int.from_bytes(data[offset + 6 : offset + 10], "big") == size - 10


def test_index_is_a_mapping() -> None:
    """Pages that the file lacks are absent, whatever the number."""
    data = encode(HEADER, PAGES)
    index = PageIndex.parse(data, len(data))
    assert len(index) == 6
    assert 128 in index
    assert index[1][0] == 100
    for absent in (-1, 0, 3, 129, 900, 2**40):
        assert absent not in index
        assert index.get(absent) is None


def test_index_of_no_pages_is_empty() -> None:
    """A file without pages has an index of one byte."""
    data = encode(HEADER, [])
    assert dict(PageIndex.parse(data, len(data))) == {}


def test_index_is_read_from_the_tail_alone() -> None:
    """The last bytes tell how far back one must read."""
    data = encode(HEADER, PAGES)
    begin = index_offset(data[-INDEX_TAIL_SIZE:], len(data))
    whole = dict(PageIndex.parse(data, len(data)))
    for start in (begin, begin - 1, begin - 50):
        assert dict(PageIndex.parse(memoryview(data)[start:], len(data))) == whole
    assert kind_of(data[begin + 1 :], len(data)) == "truncated"


@pytest.mark.parametrize("size", [0, 1, 23])
def test_tail_that_is_too_short_is_refused(size: int) -> None:
    """Length and trailer take 24 bytes."""
    assert kind_of(bytes(size), size) == "truncated"


def test_offsets_go_beyond_four_gibibytes() -> None:
    """Large files are read by 64-bit offsets."""
    size = 10 + 65_793
    entries = [(n, 100 + (n - 1) * size, size) for n in range(1, 70_000)]
    assert entries[-1][1] > 2**32
    index = PageIndex.parse(*tail(entries))
    assert index[69_999] == (entries[-1][1], size)
    assert index[40_000] == entries[39_999][1:]


GOOD = [(2, 100, 50), (5, 150, 60)]


@pytest.mark.parametrize(
    "entries",
    [
        [(2, 101, 50), (5, 151, 60)],
        [(2, 99, 51), (5, 150, 60)],
        [(2, 100, 50), (5, 149, 61)],
        [(2, 100, 50), (5, 151, 60)],
        [(2, 100, 50), (2, 150, 60)],
        [(5, 100, 50), (2, 150, 60)],
        [(2, 100, 10), (5, 110, 60)],
        [(2, 100, 0), (5, 100, 60)],
        [(2, 100, 70_000), (5, 70_100, 60)],
        [(2, 100, 2**63), (5, 100 + 2**63, 60)],
        [(2**32 - 1, 100, 50)],
        [(2**40, 100, 50)],
        [(2, 100, 50), (5, 150, 2**64)],
    ],
)
def test_entries_that_no_frames_have_are_refused(
    entries: list[tuple[int, int, int]],
) -> None:
    """Frames lie side by side, ascending, each of a possible size."""
    assert len(PageIndex.parse(*tail(GOOD))) == 2
    assert kind_of(*tail(entries)) == "index"


@pytest.mark.parametrize("shift", [-1, 1])
def test_frames_must_fill_the_file(shift: int) -> None:
    """Between the last frame and the index there are six bytes, no more, no less."""
    data, size = tail(GOOD)
    assert kind_of(data, size + shift) == "index"


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"\x07",
        b"\0\0",
        b"\0\x07",
        b"\0" + leb128(7) + leb128(210) + leb128(50),
        b"\x80",
        b"\x80\0",
        b"\x80" * 9 + b"\x02",
        b"\x80" * 9 + b"\0",
        b"\xff" * 10 + b"\x01",
        b"\xff" * 50,
    ],
)
def test_index_without_proper_end_is_refused(end: bytes) -> None:
    """A single zero ends it; numbers are minimal and fit in 64 bits."""
    assert kind_of(*tail(GOOD, end)) == "index"


@pytest.mark.parametrize(
    "length",
    [
        lambda true: 0,
        lambda true: true - 1,
        lambda true: true + 1,
        lambda true: 2**64 - 1,
        lambda true: 2**63,
    ],
)
def test_wrong_length_is_refused(length: Callable[[int], int]) -> None:
    """A length that leads outside the index finds none."""
    raw = RawFile.of(HEADER, PAGES)
    data = raw.build()
    true = int.from_bytes(data[-24:-16], "big")
    raw.index_length = length(true)
    data = raw.build()
    assert kind_of(data, len(data)) == "index"


def test_every_truncated_or_flipped_index_is_refused_or_equal() -> None:
    """Damage is noticed, or cannot be seen in the result."""
    data = encode(make_header(commit=3), image(512, 3))
    begin = index_offset(data, len(data))
    good = dict(PageIndex.parse(data, len(data)))
    for bit in range(8 * begin, 8 * (len(data) - 16)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = dict(PageIndex.parse(flipped, len(flipped)))
        except InvalidFileError:
            continue
        # Only page numbers have other values that are possible.
        assert list(found.values()) == list(good.values())
    for size in range(len(data)):
        with pytest.raises(InvalidFileError):
            PageIndex.parse(data[:size], size)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_index_is_read_in_pieces_of_any_size(size: int) -> None:
    """A number may lie across two of them; entries come in order, with their places."""
    data = encode(HEADER, PAGES)
    begin = index_offset(data, len(data))
    index = data[begin:-INDEX_TAIL_SIZE]
    pieces = [index[at : at + size] for at in range(0, len(index), size)]
    whole = PageIndex.parse(data, len(data))
    entries = [(pgno, *whole[pgno]) for pgno in whole]
    assert list(index_entries(pieces, begin)) == entries
    with pytest.raises(InvalidFileError):
        list(index_entries(pieces[:-1], begin))


def test_run_has_as_many_frames_as_fit() -> None:
    """A range of the file is whole frames from the page on, that one in any case."""
    data = encode(HEADER, PAGES)
    index = PageIndex.parse(data, len(data))
    entries = [(pgno, *index[pgno]) for pgno in index]
    size = entries[2][2]
    assert index.run(127, 1) == entries[2:3]
    assert index.run(127, size + entries[3][2] - 1) == entries[2:3]
    assert index.run(127, size + entries[3][2]) == entries[2:4]
    assert index.run(1, 1 << 30) == entries
    with pytest.raises(KeyError):
        index.run(3, 1000)


def test_frame_behind_another_is_found_by_its_offset() -> None:
    """Where one frame ends the next begins, until there are no more."""
    data = encode(HEADER, PAGES)
    index = PageIndex.parse(data, len(data))
    pgnos = list(index)
    for pgno, following in zip(pgnos, [*pgnos[1:], None], strict=True):
        offset, size = index[pgno]
        assert index.after(offset + size) == following
