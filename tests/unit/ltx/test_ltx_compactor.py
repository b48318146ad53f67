"""Merging consecutive files into one."""

from __future__ import annotations

import gc
import tracemalloc
from io import BytesIO

import pytest
from support.ltxfiles import image, make_header, make_page

from sqlitereplica.errors import (
    ChecksumMismatchError,
    InvalidFileError,
    PosMismatchError,
)
from sqlitereplica.ltx import (
    Decoder,
    Header,
    compact,
    decode,
    encode,
    merge,
    merge_headers,
)

FLAG = 1 << 63


def made(txid: int, commit: int, *numbers: int, **changes: int) -> bytes:
    """A file of one TXID with these pages, which differ from those of other TXIDs."""
    header = make_header(min_txid=txid, max_txid=txid, commit=commit, **changes)
    return encode(header, [(n, make_page(512, 1000 * txid + n)) for n in numbers])


def span(first: int, last: int, **changes: int) -> Header:
    """A header of these TXIDs."""
    return make_header(min_txid=first, max_txid=last, **changes)


def compacted(*files: bytes) -> tuple[Header, list[tuple[int, bytes]]]:
    """What the merger of these files holds."""
    merged = bytearray()
    header = compact([BytesIO(data) for data in files], merged.extend)
    result = decode(bytes(merged))
    assert result[0] == header
    return result


def test_latest_copy_of_each_page_wins() -> None:
    """Of each page the merger has what the last file with it has."""
    header, pages = compacted(made(5, 9, 1, 2, 3), made(6, 9, 2, 4), made(7, 9, 2, 9))
    assert (header.min_txid, header.max_txid) == (5, 7)
    origin = {1: 5, 2: 7, 3: 5, 4: 6, 9: 7}
    assert pages == [(n, make_page(512, 1000 * t + n)) for n, t in origin.items()]


def test_pages_beyond_the_last_commit_are_dropped() -> None:
    """Where the database shrank, what was cut off is not kept."""
    header, pages = compacted(made(5, 9, 1, 8, 9), made(6, 4, 1))
    assert header.commit == 4
    assert [n for n, _ in pages] == [1]


def test_snapshot_and_later_files_make_a_snapshot() -> None:
    """A merger that reaches back to TXID 1 is complete, also after growth."""
    header, pages = compacted(made(1, 2, 1, 2), made(2, 4, 1, 3, 4))
    assert header.is_snapshot
    assert [n for n, _ in pages] == [1, 2, 3, 4]


def test_snapshot_with_a_hole_is_refused() -> None:
    """Growth without the new pages cannot make a snapshot."""
    with pytest.raises(InvalidFileError) as caught:
        compacted(made(1, 2, 1, 2), made(2, 4, 1, 4))
    assert caught.value.kind == "incomplete"


def test_single_file_is_copied_without_its_wal_range() -> None:
    """One input is merged like several."""
    header, pages = compacted(made(5, 3, 1, 3, wal_size=4152, wal_salt1=3, node_id=9))
    expected = span(5, 5, commit=3, wal_offset=0)
    assert header == expected
    assert [n for n, _ in pages] == [1, 3]


def test_header_is_made_of_first_and_last() -> None:
    """First TXID and pre-checksum of the first, all else that lasts of the last."""
    first = span(
        2, 3, commit=5, timestamp=7, pre_checksum=FLAG | 1, post_checksum=FLAG | 2
    )
    middle = span(
        4, 4, commit=7, timestamp=77, pre_checksum=FLAG | 2, post_checksum=FLAG | 3
    )
    last = span(
        5,
        9,
        commit=6,
        timestamp=77,
        wal_offset=4152,
        wal_size=100,
        wal_salt1=1,
        wal_salt2=2,
        node_id=3,
        pre_checksum=FLAG | 3,
        post_checksum=FLAG | 4,
    )
    assert merge_headers([first, middle, last]) == span(
        2,
        9,
        commit=6,
        timestamp=77,
        wal_offset=0,
        pre_checksum=FLAG | 1,
        post_checksum=FLAG | 4,
    )


def test_time_is_the_latest_although_a_clock_was_set_back() -> None:
    """A restore to a time before any of the transactions must not find them."""
    merged = merge_headers(
        [span(n, n, timestamp=t) for n, t in [(2, 5), (3, 9), (4, 6)]]
    )
    assert merged.timestamp == 9


def test_unknown_last_checksum_leaves_no_extension() -> None:
    """If the last file is Litestream's, the checksum afterwards is unknown."""
    first = span(2, 3, pre_checksum=FLAG | 1, post_checksum=FLAG | 2)
    merged = merge_headers([first, span(4, 4)])
    assert (merged.pre_checksum, merged.post_checksum) == (0, 0)


def test_unknown_first_checksum_keeps_the_last() -> None:
    """If the first file is Litestream's, only the checksum before is unknown."""
    last = span(4, 4, pre_checksum=FLAG | 2, post_checksum=FLAG | 3)
    merged = merge_headers([span(2, 3), last])
    assert (merged.pre_checksum, merged.post_checksum) == (0, FLAG | 3)


@pytest.mark.parametrize(
    "spans",
    [
        [(2, 3), (5, 5)],
        [(2, 3), (3, 3)],
        [(2, 3), (2, 2)],
        [(2, 9), (3, 5)],
        [(2, 3), (4, 4), (6, 6)],
        [(4, 4), (3, 3)],
    ],
)
def test_files_that_do_not_join_are_refused(spans: list[tuple[int, int]]) -> None:
    """No TXID may be left out, and each file must go further."""
    with pytest.raises(PosMismatchError) as caught:
        merge_headers([span(*txids) for txids in spans])
    previous, following = spans[-2:]
    assert caught.value.expected_txid == previous[1] + 1
    assert caught.value.found_txid == following[0]
    assert caught.value.kind == "gap"


def test_overlapping_files_are_merged() -> None:
    """A file may repeat TXIDs of its predecessor if it goes further."""
    assert merge_headers([span(2, 5), span(4, 7)]).max_txid == 7


def test_files_of_different_histories_are_refused() -> None:
    """Where both are known, checksum after and checksum before must agree."""
    one = span(2, 2, pre_checksum=FLAG | 1, post_checksum=FLAG | 2)
    other = span(3, 3, pre_checksum=FLAG | 9, post_checksum=FLAG | 3)
    with pytest.raises(PosMismatchError) as caught:
        merge_headers([one, other])
    assert caught.value.kind == "checksum"


def test_different_page_sizes_are_refused() -> None:
    """The page size is that of the database and cannot change in a chain."""
    with pytest.raises(InvalidFileError) as caught:
        merge_headers([span(2, 2), span(3, 3, page_size=1024)])
    assert caught.value.kind == "page-size"


def test_nothing_to_merge_is_a_mistake_of_the_caller() -> None:
    """A merger of no files has no header."""
    with pytest.raises(ValueError, match="nothing"):
        compact([], list)


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_input_is_refused(which: int) -> None:
    """Every input is read to its end and verified."""
    files = [made(5, 9, 1, 2, 3), made(6, 4, 1)]
    files[which] = files[which][:-1] + bytes([files[which][-1] ^ 1])
    with pytest.raises(ChecksumMismatchError):
        compacted(*files)


def test_merged_pages_can_be_used_without_writing_a_file() -> None:
    """A restore needs the pages, not the file."""
    files = [made(1, 2, 1, 2), made(2, 2, 2)]
    header, pages = merge([Decoder(BytesIO(data)) for data in files])
    assert header.max_txid == 2
    assert list(pages) == [(1, make_page(512, 1001)), (2, make_page(512, 2002))]


def test_many_files_take_little_memory() -> None:
    """One page of each input is held at a time, not the inputs."""
    whole = encode(make_header(commit=2000), image(512, 2000))
    files = [whole, *(made(txid, 2000, *range(1, 200)) for txid in range(2, 40))]
    inputs = [BytesIO(data) for data in files]
    gc.collect()
    tracemalloc.start()
    try:
        compact(inputs, len)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, files)) > 2_500_000
    assert peak < 16 << 20
