"""The header of an LTX file and the constants of the format."""

from __future__ import annotations

import random

import cramjam
import pytest
from support.ltxfiles import PAGE_SIZES, make_header

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import (
    HEADER_SIZE,
    MAX_COMMIT,
    Header,
    compress_bound,
    lock_pgno,
    snapshot_page_count,
)

U64 = 2**64 - 1
FLAG = 1 << 63

FULL = Header(
    page_size=4096,
    commit=0x01020304,
    min_txid=2,
    max_txid=0x0A0B0C0D0E0F1011,
    timestamp=1_700_000_000_123,
    wal_offset=4152,
    wal_size=8240,
    wal_salt1=0xDEADBEEF,
    wal_salt2=0xCAFEF00D,
    node_id=7,
    pre_checksum=FLAG | 5,
    post_checksum=FLAG | 6,
)


def test_header_is_laid_out_as_documented() -> None:
    """Each field has its place and width (litestream.md 1.1)."""
    expected = (
        b"LTX1"
        + bytes.fromhex("00000002 00001000 01020304")
        + bytes.fromhex("0000000000000002 0a0b0c0d0e0f1011")
        + (1_700_000_000_123).to_bytes(8, "big")
        + bytes(8)
        + bytes.fromhex("0000000000001038 0000000000002030 deadbeef cafef00d")
        + bytes.fromhex("0000000000000007")
        + b"SQLR"
        + bytes.fromhex("8000000000000005 8000000000000006")
    )
    assert FULL.pack() == expected
    assert len(expected) == HEADER_SIZE


@pytest.mark.parametrize(
    "header",
    [
        FULL,
        make_header(),
        make_header(min_txid=5, max_txid=9, wal_offset=0),
        make_header(commit=MAX_COMMIT, max_txid=U64, node_id=U64),
        make_header(post_checksum=FLAG),
        make_header(wal_offset=2**63 - 1, wal_size=2**63 - 1, wal_salt2=2**32 - 1),
        *[make_header(page_size=size) for size in PAGE_SIZES],
    ],
)
def test_header_unpacks_to_what_was_packed(header: Header) -> None:
    """Packing and unpacking are inverse up to the bounds."""
    assert Header.unpack(header.pack()) == header


def test_header_without_checksum_leaves_reserved_bytes_zero() -> None:
    """A file without the extension looks as Litestream's own."""
    assert make_header().pack()[80:] == bytes(20)


BAD_FIELDS = [
    ("page-size", {"page_size": 0}),
    ("page-size", {"page_size": 256}),
    ("page-size", {"page_size": 513}),
    ("page-size", {"page_size": 131072}),
    ("page-size", {"page_size": -512}),
    ("commit", {"commit": 0}),
    ("commit", {"commit": 2**32 - 1}),
    ("txid", {"min_txid": 0}),
    ("txid", {"min_txid": 3, "max_txid": 2}),
    ("txid", {"max_txid": 2**64}),
    ("timestamp", {"timestamp": -(2**62)}),
    ("timestamp", {"timestamp": 2**62}),
    ("wal", {"wal_offset": -1}),
    ("wal", {"wal_offset": 1}),
    ("wal", {"wal_offset": 31}),
    ("wal", {"wal_offset": 2**63}),
    ("wal", {"wal_size": -1}),
    ("wal", {"wal_size": 2**63}),
    ("wal", {"wal_salt1": 2**32}),
    ("wal", {"wal_salt2": -1}),
    ("wal", {"wal_offset": 0, "wal_size": 1}),
    ("wal", {"wal_offset": 0, "wal_salt1": 1}),
    ("wal", {"wal_offset": 0, "wal_salt2": 1}),
    ("node-id", {"node_id": -1}),
    ("node-id", {"node_id": 2**64}),
    ("extension", {"pre_checksum": FLAG}),
    ("extension", {"post_checksum": 1}),
    ("extension", {"post_checksum": 2**64}),
    ("extension", {"pre_checksum": 1, "post_checksum": FLAG}),
]


@pytest.mark.parametrize(("kind", "changes"), BAD_FIELDS)
def test_header_with_field_out_of_bounds_is_not_packed(
    kind: str, changes: dict[str, int]
) -> None:
    """We write no header that a reader would refuse."""
    with pytest.raises(InvalidFileError) as caught:
        make_header(**changes).pack()
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("kind", "offset", "value"),
    [
        ("magic", 0, b"LTX2"),
        ("flags", 4, bytes.fromhex("00000001")),
        ("flags", 4, bytes.fromhex("00000003")),
        ("flags", 4, bytes.fromhex("80000002")),
        ("page-size", 8, bytes(4)),
        ("page-size", 8, bytes.fromhex("00000001")),
        ("page-size", 8, bytes.fromhex("00020000")),
        ("page-size", 8, bytes.fromhex("00000300")),
        ("commit", 12, bytes(4)),
        ("commit", 12, b"\xff" * 4),
        ("txid", 16, bytes(8)),
        ("txid", 24, bytes(8)),
        ("txid", 16, bytes.fromhex("0000000000000002")),
        ("timestamp", 32, b"\x7f" + b"\xff" * 7),
        ("timestamp", 32, b"\x80" + bytes(7)),
        ("pre-apply-checksum", 40, b"\x80" + bytes(7)),
        ("wal", 48, bytes.fromhex("000000000000001f")),
        ("wal", 48, b"\xff" * 8),
        ("wal", 56, b"\xff" * 8),
        ("extension", 80, b"SQLR"),
        ("extension", 80, b"SQLR" + bytes(8) + b"\x01" + bytes(7)),
        ("extension", 80, b"SQLR" + bytes(7) + b"\x01\x80" + bytes(7)),
        ("extension", 80, b"SQLR\x80" + bytes(15)),
    ],
)
def test_header_that_breaks_a_rule_is_refused(
    kind: str, offset: int, value: bytes
) -> None:
    """Every rule on the header is applied when it is read."""
    data = bytearray(make_header().pack())
    data[offset : offset + len(value)] = value
    with pytest.raises(InvalidFileError) as caught:
        Header.unpack(data)
    assert caught.value.kind == kind
    assert caught.value.offset is not None


def test_header_with_salts_but_no_offset_is_refused() -> None:
    """Salts need a WAL offset, as Litestream demands."""
    data = bytearray(make_header(wal_salt1=5).pack())
    data[48:56] = bytes(8)
    with pytest.raises(InvalidFileError, match="without an offset"):
        Header.unpack(data)


@pytest.mark.parametrize("size", range(HEADER_SIZE))
def test_short_header_is_truncated(size: int) -> None:
    """Fewer than 100 bytes are no header."""
    with pytest.raises(InvalidFileError) as caught:
        Header.unpack(FULL.pack()[:size])
    assert caught.value.kind == "truncated"


def test_header_ignores_what_follows() -> None:
    """Only the first 100 bytes are read."""
    assert Header.unpack(memoryview(FULL.pack() + b"more")) == FULL


def test_unknown_reserved_bytes_are_ignored() -> None:
    """As Litestream does, a header with other reserved bytes is read."""
    data = make_header().pack()[:80] + b"other contents here!"
    assert Header.unpack(data) == make_header()


def test_checksums_of_litefs_are_accepted_but_not_kept() -> None:
    """Flags 0 need a pre-apply checksum, except in a snapshot."""
    header = make_header(min_txid=4, max_txid=4)
    data = bytearray(header.pack())
    data[4:8] = bytes(4)
    with pytest.raises(InvalidFileError, match="pre-apply"):
        Header.unpack(data)
    data[40] = 0x80
    assert Header.unpack(data) == header
    snapshot = bytearray(make_header().pack())
    snapshot[4:8] = bytes(4)
    assert Header.unpack(snapshot) == make_header()


def test_flipped_bit_in_header_is_refused_or_changes_the_value() -> None:
    """No bit but those of unused reserved bytes is without a meaning."""
    packed = FULL.pack()
    for bit in range(8 * HEADER_SIZE):
        data = bytearray(packed)
        data[bit // 8] ^= 1 << bit % 8
        try:
            assert Header.unpack(data) != FULL, bit
        except InvalidFileError:
            continue


def test_only_first_transaction_makes_a_snapshot() -> None:
    """A file that begins at TXID 1 holds the whole database."""
    assert make_header(max_txid=9).is_snapshot
    assert not make_header(min_txid=2, max_txid=9).is_snapshot


@pytest.mark.parametrize(
    ("page_size", "pgno"),
    [(512, 2097153), (4096, 262145), (32768, 32769), (65536, 16385)],
)
def test_lock_page_is_the_one_at_one_gibibyte(page_size: int, pgno: int) -> None:
    """The lock page holds byte 0x40000000 (litestream.md 1.3)."""
    assert lock_pgno(page_size) == pgno
    assert (pgno - 1) * page_size <= 0x40000000 < pgno * page_size


def test_snapshot_count_leaves_out_lock_page_only() -> None:
    """From the lock page on, a snapshot has one page less than the database."""
    counts = [snapshot_page_count(65536, commit) for commit in range(16384, 16388)]
    assert counts == [16384, 16384, 16385, 16386]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_no_block_exceeds_the_bound(page_size: int) -> None:
    """Random bytes, the worst case, stay within the bound of LZ4."""
    page = random.Random(page_size).randbytes(page_size)
    block = cramjam.lz4.compress_block(page, store_size=False)
    assert page_size < len(block) <= compress_bound(page_size)
