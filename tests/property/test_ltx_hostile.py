"""Damaged and malicious files: an InvalidFileError or a sound value, nothing else.

A checksum in front blinds a fuzzer, so most mutations here get the right one again.
"""

from __future__ import annotations

from array import array
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.ltxfiles import (
    RawFile,
    RawFrame,
    image,
    leb128,
    make_header,
    make_page,
    with_file_checksum,
)

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import (
    Header,
    PageIndex,
    compress_bound,
    decode,
    decode_frame,
    decode_sums,
    encode,
    encode_sums,
    lock_pgno,
)

pytestmark = pytest.mark.property

SNAPSHOT = make_header(commit=4)
LATER = make_header(min_txid=2, max_txid=3, commit=9)
SEEDS = [
    encode(SNAPSHOT, image(512, 4)),
    encode(LATER, [(n, make_page(512, n)) for n in (1, 4, 9)]),
    encode(LATER, []),
]


def check_sound(data: bytes) -> None:
    """Decode; what is accepted must satisfy every rule, so that we can write it."""
    try:
        header, pages = decode(data)
    except InvalidFileError:
        return
    numbers = [n for n, _ in pages]
    assert numbers == sorted(set(numbers))
    assert all(1 <= n <= header.commit for n in numbers)
    assert lock_pgno(header.page_size) not in numbers
    assert {len(page) for _, page in pages} <= {header.page_size}
    assert decode(encode(header, pages)) == (header, pages)
    assert list(PageIndex.parse(data, len(data))) == numbers


@st.composite
def edits(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few of them replaced, inserted, deleted or moved."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(result)))
        piece = draw(st.binary(max_size=12))
        match draw(st.sampled_from(["replace", "insert", "delete", "copy"])):
            case "replace":
                result[at : at + len(piece)] = piece
            case "insert":
                result[at:at] = piece
            case "delete":
                del result[at : at + draw(st.integers(1, 40))]
            case _:
                source = draw(st.integers(0, len(result)))
                part = result[source : source + draw(st.integers(1, 40))]
                result[at : at + len(part)] = part
    return bytes(result)


@given(st.sampled_from(SEEDS).flatmap(edits))
def test_edited_file_is_refused_or_sound(data: bytes) -> None:
    """Bytes may be changed anywhere."""
    check_sound(data)


@given(st.sampled_from(SEEDS).flatmap(edits))
def test_edited_file_with_right_checksum_is_refused_or_sound(data: bytes) -> None:
    """The file checksum is no defence: who changes the file can set it right."""
    check_sound(with_file_checksum(data))


@given(st.binary(max_size=300))
@example(b"")
def test_random_bytes_are_refused_or_sound(data: bytes) -> None:
    """Whatever follows a valid header, or stands in its place."""
    check_sound(data)
    check_sound(LATER.pack() + data)
    check_sound(with_file_checksum(LATER.pack() + data))


def test_right_checksum_is_set_by_the_helper() -> None:
    """The mutations above are not refused for their checksum only."""
    for seed in SEEDS:
        broken = seed[:-8] + bytes(8)
        assert with_file_checksum(broken) == seed


numbers = st.sampled_from([0, 1, 2, 3, 4, 5, 9, 10, 2**31, 2**32 - 1])
sizes = st.sampled_from([0, 1, 511, 512, 513, compress_bound(512) + 1, 2**32 - 1])
payloads = st.none() | st.binary(max_size=40) | st.just(b"\x04\x22\x4d\x18\x40\x70\xdf")
raw_frames = st.builds(
    RawFrame,
    pgno=numbers,
    page=st.integers(0, 255).map(lambda seed: make_page(512, seed)),
    flags=st.sampled_from([0, 1, 1, 1, 1, 2, 3, 0x8000, 0xFFFF]),
    size=st.none() | sizes,
    payload=payloads,
)
valid_frames = st.sets(st.integers(1, 9), max_size=5).map(
    lambda chosen: [RawFrame(n, make_page(512, n)) for n in sorted(chosen)]
)
varints = st.lists(st.integers(0, 2**70) | st.integers(0, 600), max_size=12).map(
    lambda values: b"".join(map(leb128, values)) + b"\0"
)


@st.composite
def raw_files(draw: st.DrawFn) -> bytes:
    """Files of valid structure in which one part or another lies."""
    raw = RawFile(
        header=draw(st.sampled_from([SNAPSHOT, LATER])).pack(),
        frames=draw(valid_frames | st.lists(raw_frames, max_size=5)),
    )
    u64 = st.integers(0, 200) | st.integers(0, 2**64 - 1)
    raw.index = draw(st.none() | varints | st.binary(max_size=60))
    raw.index_length = draw(st.none() | u64)
    raw.post_apply = draw(st.just(0) | u64)
    return raw.build()


@given(raw_files())
def test_file_with_lying_parts_is_refused_or_sound(data: bytes) -> None:
    """Each field may disagree with the others while the checksum is right."""
    check_sound(data)


@given(st.binary(min_size=100, max_size=100) | edits(SEEDS[0][:100]))
def test_any_header_is_refused_or_can_be_written(data: bytes) -> None:
    """Nothing is read that we would not write."""
    try:
        header = Header.unpack(data)
    except InvalidFileError:
        return
    assert Header.unpack(header.pack()) == header


@given(st.binary(max_size=80) | varints, st.integers(0, 200), st.integers(0, 2**64 - 1))
def test_any_index_is_refused_or_within_the_file(
    index: bytes, extra: int, length: int
) -> None:
    """No page is looked for where there is none, whatever the index says."""
    for stated in (len(index), length):
        tail = index + stated.to_bytes(8, "big") + bytes(16)
        size = 106 + extra + len(tail)
        try:
            found = PageIndex.parse(tail, size)
        except InvalidFileError:
            continue
        assert all(100 <= at < at + n <= size for at, n in found.values())


SUMS_HEADER = make_header(commit=4, post_checksum=1 << 63 | 3)
SUMS = array("Q", [1 << 63 | n for n in (1, 2, 4, 4)])


@given(edits(encode_sums(SUMS_HEADER, SUMS)) | st.binary(max_size=90))
def test_any_list_of_page_checksums_is_refused_or_the_one(data: bytes) -> None:
    """The state says what its list is: nothing else is accepted."""
    try:
        found = decode_sums(BytesIO(data), SUMS_HEADER)
    except InvalidFileError:
        return
    assert found == SUMS


@given(edits(SEEDS[0][100:]) | st.binary(max_size=600), st.integers(1, 4))
def test_any_frame_alone_is_refused_or_a_page(data: bytes, pgno: int) -> None:
    """Whatever the bytes: one whole page, or an error."""
    try:
        page = decode_frame(data, pgno, 512)
    except InvalidFileError:
        return
    assert len(page) == 512
