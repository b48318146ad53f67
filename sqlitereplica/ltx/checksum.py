"""Checksums of LTX: CRC-64/GO-ISO with bit 63 set (litestream.md 1.6)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Final

from fastcrc.crc64 import go_iso

from sqlitereplica.ltx.format import CHECKSUM_FLAG, Buffer

__all__ = ["EMPTY_CHECKSUM", "database_checksum", "page_checksum", "page_checksums"]

EMPTY_CHECKSUM: Final = CHECKSUM_FLAG
"""The checksum of a database without pages."""

_LAST_BYTE = [go_iso(bytes([n])) ^ go_iso(b"\0") for n in range(256)]
"""What the last byte of a number adds to the checksum of one that ends in 0."""


def page_checksum(pgno: int, page: Buffer) -> int:
    """Return the checksum of one page, which depends on its number."""
    return CHECKSUM_FLAG | go_iso(page, go_iso(pgno.to_bytes(4, "big")))


def page_checksums(first: int, pages: Sequence[Buffer]) -> array[int]:
    """Return the checksums of pages that follow each other, from number ``first`` on."""
    sums = map(go_iso, pages, _number_checksums(first, len(pages)))
    return array("Q", [CHECKSUM_FLAG | checksum for checksum in sums])


def _number_checksums(first: int, count: int) -> list[int]:
    """Return the checksums of ``first`` and the numbers behind it, of 4 bytes each.

    A checksum is linear but for a constant: two numbers that differ in the last byte only
    have checksums that differ as those of any other two with the same last bytes do.
    """
    sums: list[int] = []
    while len(sums) < count:
        start, last = divmod(first + len(sums), 256)
        common = go_iso((256 * start).to_bytes(4, "big"))
        sums += [common ^ its for its in _LAST_BYTE[last : last + count - len(sums)]]
    return sums


def database_checksum(page_checksums: Iterable[int]) -> int:
    """Return the checksum of the pages of a database, the lock page left out.

    It is an exclusive or: a page is replaced by xoring its old and its new checksum
    to the result and setting bit 63 again.
    """
    result = 0
    for checksum in page_checksums:
        result ^= checksum
    return CHECKSUM_FLAG | result
