"""What is encoded is decoded, and a merger equals its inputs applied one by one."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ltxfiles import PAGE_SIZES, RawFile

from sqlitereplica.ltx import (
    Decoder,
    Header,
    PageIndex,
    compact,
    decode,
    encode,
    format_filename,
    parse_filename,
)

pytestmark = pytest.mark.property

FLAG = 1 << 63
U32, U64 = 2**32 - 1, 2**64 - 1
Pages = dict[int, bytes]

checksums = st.integers(0, FLAG - 1).map(FLAG.__or__)
page_sizes = st.sampled_from(PAGE_SIZES)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Any valid header."""
    txids = sorted(draw(st.tuples(*[st.integers(1, U64)] * 2)))
    post = draw(st.just(0) | checksums)
    offset = draw(st.just(0) | st.integers(32, 2**63 - 1))
    salts = st.integers(0, U32 if offset else 0)
    return Header(
        page_size=draw(page_sizes),
        commit=draw(st.integers(1, U32 - 1)),
        min_txid=txids[0],
        max_txid=txids[1],
        timestamp=draw(st.integers(-62_135_596_800_000, 253_402_300_799_999)),
        wal_offset=offset,
        wal_size=draw(st.integers(0, 2**63 - 1 if offset else 0)),
        wal_salt1=draw(salts),
        wal_salt2=draw(salts),
        node_id=draw(st.integers(0, U64)),
        pre_checksum=draw(st.just(0) | checksums) if post else 0,
        post_checksum=post,
    )


@st.composite
def pages_of(draw: st.DrawFn, page_size: int, numbers: list[int]) -> Pages:
    """Contents for these pages: a random part, repeated."""
    pages = {}
    for pgno in numbers:
        part = draw(st.binary(min_size=1, max_size=64))
        pages[pgno] = (part * (page_size // len(part) + 1))[:page_size]
    return pages


@st.composite
def files(draw: st.DrawFn) -> tuple[Header, Pages]:
    """A later file with some pages."""
    page_size = draw(page_sizes)
    commit = draw(st.integers(1, 2000))
    header = Header(
        page_size=page_size, commit=commit, min_txid=2, max_txid=5, timestamp=0
    )
    numbers = sorted(draw(st.sets(st.integers(1, commit), max_size=12)))
    return header, draw(pages_of(page_size, numbers))


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[Header, Pages]]:
    """A snapshot and files that follow, each with the pages by which it grows."""
    chain = []
    before, txid = 0, 1
    for _ in range(draw(st.integers(1, 5))):
        commit = draw(st.integers(1, 12))
        grown = set(range(before + 1, commit + 1))
        changed = draw(st.sets(st.integers(1, commit), max_size=6))
        last = txid + draw(st.integers(0, 3))
        header = Header(
            page_size=512,
            commit=commit,
            min_txid=txid,
            max_txid=last,
            timestamp=1000 * last,
        )
        numbers = sorted(grown | changed)
        chain.append((header, draw(pages_of(512, numbers))))
        before, txid = commit, last + 1
    return chain


def applied(chain: list[tuple[Header, Pages]]) -> Pages:
    """The model: write the pages of each file, then cut to its size."""
    database: Pages = {}
    for header, pages in chain:
        database |= pages
        database = {n: page for n, page in database.items() if n <= header.commit}
    return dict(sorted(database.items()))


@given(headers())
def test_any_header_is_read_back(header: Header) -> None:
    """Unpacking is the inverse of packing."""
    assert Header.unpack(header.pack()) == header


@given(files(), st.integers(1, 5000))
def test_any_file_is_read_back(file: tuple[Header, Pages], read_size: int) -> None:
    """Encoding is exact, however the file is cut into pieces when it is read."""
    header, pages = file
    data = encode(header, pages.items())
    assert data == RawFile.of(header, list(pages.items())).build()
    assert decode(data) == (header, list(pages.items()))
    decoder = Decoder(BytesIO(data), read_size=read_size)
    assert dict(decoder.pages()) == pages
    assert list(PageIndex.parse(data, len(data))) == list(pages)


@given(chains(), st.data())
def test_merger_equals_files_applied_in_order(
    chain: list[tuple[Header, Pages]], data: st.DataObject
) -> None:
    """Merging a chain in one step or in two gives what applying it gives."""
    encoded = [encode(header, pages.items()) for header, pages in chain]
    whole = compacted(encoded)
    header, pages = decode(whole)
    assert dict(pages) == applied(chain)
    assert header.is_snapshot
    assert header.max_txid == chain[-1][0].max_txid
    cut = data.draw(st.integers(0, len(chain) - 1), label="cut")
    later = compacted(encoded[cut:])
    assert compacted([*encoded[:cut], later]) == whole


def compacted(encoded: list[bytes]) -> bytes:
    """The merger of these files."""
    merged = bytearray()
    compact([BytesIO(data) for data in encoded], merged.extend)
    return bytes(merged)


@given(st.integers(1, U64), st.integers(1, U64))
def test_any_name_is_read_back(one: int, other: int) -> None:
    """Names lose nothing."""
    txids = min(one, other), max(one, other)
    assert parse_filename(format_filename(*txids)) == txids


@given(st.text(max_size=45) | st.from_regex(r"[0-9a-f]{16}-[0-9a-f]{16}\.ltx\s?"))
def test_any_text_that_is_taken_for_a_name_is_that_name(text: str) -> None:
    """What is accepted is exactly what would be written."""
    txids = parse_filename(text)
    assert txids is None or format_filename(*txids) == text
