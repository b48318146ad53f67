"""The rollback journal of SQLite, as bytes (fileformat2.html section 3).

A journal holds what pages of a database were before a transaction, and how many there were.
While it lies beside a database that nobody writes it is *hot*: whoever opens the database
next, in whatever program, puts these pages back, cuts the file to its old size and deletes
the journal. So whoever replaces pages under SQLite's locks and has a journal on disk before
may be killed at any point.

Format, integers big-endian::

    header      magic(8) records(u32) nonce(u32) pages before(u32) sector(u32) page size(u32)
                zeros up to the end of the sector
    records     page number(u32) old page  nonce + every 200th byte of the page(u32)

The lock page has no record: SQLite takes one as the end of the journal.
"""

from __future__ import annotations

import struct

from sqlitereplica.ltx import Buffer

__all__ = ["JOURNAL_HEADER_SIZE", "journal_header", "journal_record"]

JOURNAL_HEADER_SIZE = 512
"""Bytes of the sector that the header takes; it says so itself."""

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER = struct.Struct(">8sIIIII")
_U32 = struct.Struct(">I").pack
_STEP = 200


def journal_header(records: int, nonce: int, pages: int, page_size: int) -> bytes:
    """The first sector; ``pages`` is the size of the database before."""
    fields = (_MAGIC, records, nonce, pages, JOURNAL_HEADER_SIZE, page_size)
    return _HEADER.pack(*fields).ljust(JOURNAL_HEADER_SIZE, b"\0")


def journal_record(pgno: int, page: Buffer, nonce: int) -> bytes:
    """What one page was before."""
    total = nonce + sum(page[len(page) - _STEP : 0 : -_STEP])
    return b"".join((_U32(pgno), page, _U32(total & 0xFFFFFFFF)))
