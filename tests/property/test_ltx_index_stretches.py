"""The fast way to read a page index and the slow one agree on every index."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import event, given
from hypothesis import strategies as st

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import HEADER_SIZE, PageIndex
from sqlitereplica.ltx.format import PAGE_HEADER_SIZE, TRAILER_SIZE, max_frame_size
from sqlitereplica.ltx.index import index_entries, index_entry
from sqlitereplica.ltx.stretches import read_entries

Entries = list[tuple[int, int, int]]

MOST = max_frame_size(65536)


@st.composite
def indexes(draw: st.DrawFn) -> Entries:
    """Entries of pages that grow by leaps, in frames that come in runs of like sizes."""
    steps, sizes = list[int](), list[int]()
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 300))
        step = draw(st.sampled_from([1, 1, 2, 100, 1 << 20]))
        low = draw(st.sampled_from([11, 120, 128, 16_380, MOST - 8]))
        steps += [step] * count
        sizes += [low + n % 8 for n in range(count)]
    offsets = accumulate(sizes, initial=HEADER_SIZE)
    return list(zip(accumulate(steps), offsets, sizes, strict=False))


def packed(entries: Entries) -> bytes:
    """The bytes of an index, with the 0 at its end."""
    return b"".join(index_entry(*entry) for entry in entries) + b"\0"


def by_index(data: bytes, end: int) -> Entries | str:
    """What ``PageIndex`` makes of it, or says of it."""
    tail = data + len(data).to_bytes(8, "big") + bytes(TRAILER_SIZE)
    try:
        index = PageIndex.parse(tail, end + len(tail))
    except InvalidFileError as error:
        return str(error)
    return [(pgno, *index[pgno]) for pgno in index]


def slowly(data: bytes, end: int) -> Entries | str:
    """The same number by number."""
    try:
        return list(index_entries([data], end))
    except InvalidFileError as error:
        return str(error)


def end_of(entries: Entries) -> int:
    """Where an index begins in its file."""
    return entries[-1][1] + entries[-1][2] + PAGE_HEADER_SIZE


@given(entries=indexes())
def test_index_is_read_as_it_was_written(entries: Entries) -> None:
    """All entries, at once where their widths hardly vary."""
    data = packed(entries)
    found = read_entries(data[:-1])
    event("at once" if found else "slowly")
    if found is not None:
        assert list(zip(*found, strict=True)) == entries
    end = end_of(entries)
    assert by_index(data, end) == entries == slowly(data, end)


@given(data=st.data(), entries=indexes())
def test_damaged_index_is_judged_alike(data: st.DataObject, entries: Entries) -> None:
    """A byte that is changed, cut out or put in: the same answer, the same complaint."""
    whole = packed(entries)
    at = data.draw(st.integers(0, len(whole) - 1))
    new = bytes(data.draw(st.lists(st.integers(0, 255), max_size=2)))
    damaged = whole[:at] + new + whole[at + 1 :]
    end = end_of(entries)
    judged = slowly(damaged, end)
    event(judged.split(":")[0] if isinstance(judged, str) else "accepted")
    assert by_index(damaged, end) == judged


def test_long_indexes_are_read_at_once() -> None:
    """One like those of databases: the slow way is for odd ones only."""
    sizes = [200 + n * 37 % 3000 for n in range(1, 20_000)]
    offsets = accumulate(sizes, initial=HEADER_SIZE)
    entries = list(zip(range(1, 20_000), offsets, sizes, strict=False))
    found = read_entries(packed(entries)[:-1])
    assert found is not None and list(zip(*found, strict=True)) == entries
