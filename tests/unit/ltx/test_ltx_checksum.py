"""Page and database checksums."""

from __future__ import annotations

import pytest
from fastcrc.crc64 import go_iso

from sqlitereplica.ltx import (
    EMPTY_CHECKSUM,
    database_checksum,
    page_checksum,
    page_checksums,
)

FLAG = 1 << 63


def crc64_bitwise(data: bytes) -> int:
    """CRC-64/GO-ISO from its definition."""
    crc = 2**64 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD800000000000000 if crc & 1 else 0)
    return crc ^ 2**64 - 1


def test_crc_is_the_variant_of_go() -> None:
    """The library has the published check value, and continues where it stopped."""
    assert go_iso(b"123456789") == 0xB90956C775A41001
    assert go_iso(b"456789", go_iso(b"123")) == 0xB90956C775A41001
    assert crc64_bitwise(b"123456789") == 0xB90956C775A41001


def test_page_checksum_covers_number_and_contents() -> None:
    """It is the CRC of the big-endian number and the page, flagged."""
    page = bytes(range(256)) * 2
    expected = FLAG | crc64_bitwise(bytes.fromhex("00010203") + page)
    assert page_checksum(0x010203, page) == expected
    assert page_checksum(0x010203, memoryview(bytearray(page))) == expected
    assert page_checksum(0x010204, page) != expected


@pytest.mark.parametrize("count", [0, 1, 2, 64, 256, 600])
@pytest.mark.parametrize("first", [1, 2, 255, 256, 65_530, 2**24 - 300, 2**32 - 601])
def test_checksums_made_together_are_those_made_alone(first: int, count: int) -> None:
    """Whichever bytes of the numbers change on the way."""
    pages = [bytes([n % 251]) * 512 for n in range(count)]
    alone = [page_checksum(pgno, page) for pgno, page in enumerate(pages, first)]
    assert list(page_checksums(first, pages)) == alone


def test_database_checksum_of_no_pages_is_the_flag() -> None:
    """An empty database has a checksum that is not 0."""
    assert database_checksum([]) == EMPTY_CHECKSUM == FLAG


def test_database_checksum_can_be_updated_page_by_page() -> None:
    """Xoring the old and the new checksum of a page replaces the page."""
    sums = [page_checksum(n, bytes([n]) * 512) for n in (1, 2, 3)]
    new = page_checksum(2, b"\xff" * 512)
    before = database_checksum(sums)
    after = database_checksum([sums[0], new, sums[2]])
    assert FLAG | before ^ sums[1] ^ new == after != before


def test_database_checksum_ignores_order() -> None:
    """Pages can be summed in any order."""
    sums = [page_checksum(n, bytes(512)) for n in (1, 2, 3)]
    assert database_checksum(iter(sums[::-1])) == database_checksum(sums)
