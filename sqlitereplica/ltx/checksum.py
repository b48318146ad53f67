"""Checksums of LTX: CRC-64/GO-ISO with bit 63 set (litestream.md 1.6)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

from fastcrc.crc64 import go_iso

from sqlitereplica.ltx.format import CHECKSUM_FLAG, Buffer

__all__ = ["EMPTY_CHECKSUM", "database_checksum", "page_checksum", "page_checksums"]

EMPTY_CHECKSUM: Final = CHECKSUM_FLAG
"""The checksum of a database without pages."""


def page_checksum(pgno: int, page: Buffer) -> int:
    """Return the checksum of one page, which depends on its number."""
    return CHECKSUM_FLAG | go_iso(page, go_iso(pgno.to_bytes(4, "big")))


def page_checksums(first: int, pages: Iterable[Buffer]) -> array[int]:
    """Return the checksums of pages that follow each other, from number ``first`` on."""
    return array(
        "Q",
        [
            CHECKSUM_FLAG | go_iso(page, go_iso(pgno.to_bytes(4, "big")))
            for pgno, page in enumerate(pages, first)
        ],
    )


def database_checksum(page_checksums: Iterable[int]) -> int:
    """Return the checksum of the pages of a database, the lock page left out.

    It is an exclusive or: a page is replaced by xoring its old and its new checksum
    to the result and setting bit 63 again.
    """
    result = 0
    for checksum in page_checksums:
        result ^= checksum
    return CHECKSUM_FLAG | result
