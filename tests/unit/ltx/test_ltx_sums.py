"""Lists of page checksums: written, read back, and refused unless they are the state's."""

from __future__ import annotations

import gc
import struct
import tracemalloc
from array import array
from dataclasses import replace
from io import BytesIO

import pytest
from support.ltxfiles import make_header

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx import (
    Header,
    database_checksum,
    decode_sums,
    encode_sums,
    lock_pgno,
    sums_size,
)

FLAG = 1 << 63


def made(commit: int = 5, **fields: int) -> tuple[Header, array[int]]:
    """A header and the checksums that it goes with, as if of pages."""
    header = make_header(commit=commit, max_txid=7, **fields)
    sums = array("Q", (FLAG | (n + 1) ** 3 for n in range(commit)))
    if (lock := lock_pgno(header.page_size)) <= commit:
        sums[lock - 1] = 0
    return replace(header, post_checksum=database_checksum(sums)), sums


def kind_of(data: bytes, header: Header) -> str:
    """The kind of the error that reading raises."""
    with pytest.raises(InvalidFileError) as caught:
        decode_sums(BytesIO(data), header)
    return caught.value.kind


@pytest.mark.parametrize("commit", [1, 5, 65_536, 65_537, 140_000])
def test_list_is_read_back(commit: int) -> None:
    """Whatever its length, also over the pieces in which it is read."""
    header, sums = made(commit)
    data = encode_sums(header, sums)
    assert len(data) == sums_size(commit)
    assert decode_sums(BytesIO(data), header) == sums


def test_layout_is_the_documented_one() -> None:
    """Big-endian on every machine: fields, checksums by page, the file's own."""
    header, sums = made(2)
    data = encode_sums(header, sums)
    fields = struct.unpack(">8sIIQqQ2QQ", data)
    assert fields[:6] == (
        b"SQLRPS01",
        512,
        2,
        7,
        header.timestamp,
        header.post_checksum,
    )
    assert fields[6:8] == tuple(sums) and fields[8] >= FLAG


def test_lock_page_has_no_checksum() -> None:
    """Its place holds a 0, and no other place does."""
    lock = lock_pgno(65_536)
    header, sums = made(lock + 3, page_size=65_536)
    assert decode_sums(BytesIO(encode_sums(header, sums)), header) == sums
    for pgno in (1, lock):
        wrong = array("Q", sums)
        wrong[pgno - 1] = 5
        changed = replace(header, post_checksum=database_checksum(wrong))
        with pytest.raises(InvalidFileError) as caught:
            encode_sums(changed, wrong)
        assert caught.value.kind == "incomplete"


@pytest.mark.parametrize(
    "change",
    [
        {"page_size": 1024},
        {"commit": 4},
        {"max_txid": 8},
        {"timestamp": 1},
        {"post_checksum": FLAG | 1},
    ],
)
def test_list_of_another_state_is_refused(change: dict[str, int]) -> None:
    """It is bound to everything that tells the states of a replica apart."""
    header, sums = made()
    data = encode_sums(header, sums)
    assert kind_of(data, replace(header, **change)) == "state"
    assert decode_sums(BytesIO(data), replace(header, min_txid=3, node_id=9)) == sums


def test_checksums_that_are_not_the_states_are_not_written() -> None:
    """Their number and their exclusive or must be those of the header."""
    header, sums = made()
    with pytest.raises(InvalidFileError) as caught:
        encode_sums(header, sums[:-1])
    assert caught.value.kind == "commit"
    sums[0] ^= 1
    with pytest.raises(ChecksumMismatchError):
        encode_sums(header, sums)


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    """A damaged list is no list."""
    header, sums = made()
    data = encode_sums(header, sums)
    for at in range(len(data)):
        assert kind_of(data[:at], header) in ("truncated", "state"), at
        for bit in range(8):
            wrong = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            kind_of(wrong, header)
    assert kind_of(data + b"\0", header) == "trailing"


def test_list_that_lies_about_its_checksums_is_refused() -> None:
    """With a right checksum of its own: two changes that cancel out are no problem here."""
    header, sums = made()
    sums[1] ^= 1
    other = replace(header, post_checksum=database_checksum(sums))
    data = bytearray(encode_sums(other, sums))
    data[32:40] = header.post_checksum.to_bytes(8, "big")
    assert kind_of(bytes(data), header) == "checksum"


def test_nothing_is_allocated_by_a_stated_size() -> None:
    """A header of 2**32 pages and a short file cost no memory."""
    header = replace(make_header(commit=2**32 - 2), post_checksum=FLAG | 1)
    head = struct.pack(
        ">8sIIQqQ", b"SQLRPS01", 512, 2**32 - 2, 1, header.timestamp, FLAG | 1
    )
    gc.collect()
    tracemalloc.start()
    try:
        assert kind_of(head + bytes(1000), header) == "truncated"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_memory_is_the_list_alone() -> None:
    """Reading takes 8 bytes a page and a bounded piece; so does writing."""
    commit = 500_000
    header, sums = made(commit)
    gc.collect()
    tracemalloc.start()
    try:
        data = encode_sums(header, sums)
        assert tracemalloc.get_traced_memory()[1] < 8 * commit * 1.3 + (2 << 20)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        decode_sums(BytesIO(data), header)
        peak = tracemalloc.get_traced_memory()[1] - before
        assert peak < 8 * commit * 1.3 + (2 << 20)
    finally:
        tracemalloc.stop()
