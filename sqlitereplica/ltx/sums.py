"""The checksums of all pages of one state, as a file beside the levels of a replica.

Theory. A database checksum cannot tell whether two states are the same: it is the
exclusive or of checksums that are linear. Two pages that change in the same bits leave
it as it was, and one ``UPDATE`` of two rows at the same place in their pages does that.
Page by page the checksums do tell. So who holds an old copy of a database and this list
of 8 bytes a page knows which pages of the state to fetch, and which it has.

The list is bound to its state by the fields of an LTX header that are never the same for
two states of one replica: transaction, time, size, database checksum. One that is bound
to another state, or that is damaged, is refused as a whole.

Format, integers big-endian::

    magic           8 bytes, SQLRPS01
    page size       u32
    commit          u32, the size of the database in pages: n
    txid            u64, the transaction after which the database was in that state
    timestamp       i64, of the file that leads to it, milliseconds since the epoch
    checksum        u64, of the database
    page checksums  n times u64, 0 for the lock page
    file checksum   u64, CRC-64/GO-ISO of all before, with bit 63 set
"""

from __future__ import annotations

import struct
import sys
from array import array
from io import BytesIO
from typing import Final

from fastcrc.crc64 import go_iso

from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx.checksum import database_checksum
from sqlitereplica.ltx.format import CHECKSUM_FLAG, BinaryReader, Header, lock_pgno

__all__ = ["decode_sums", "encode_sums", "sums_size"]

_MAGIC: Final = b"SQLRPS01"
_FIELDS: Final = struct.Struct(">8sIIQqQ")
_BLOCK: Final = 1 << 16  # checksums at a time


def sums_size(commit: int) -> int:
    """Return the bytes that the list of ``commit`` pages takes."""
    return _FIELDS.size + 8 * commit + 8


def encode_sums(header: Header, sums: array[int]) -> bytes:
    """Return the list of the state after a file, given the header of that file.

    ``sums`` has the checksum of each page by page number less one, 0 for the lock page.
    Raises InvalidFileError if they are not those of the state, as far as that shows.
    """
    _check(header, sums)
    file = BytesIO()
    head = _head(header)
    file.write(head)
    crc = go_iso(head)
    for at in range(0, len(sums), _BLOCK):
        block = sums[at : at + _BLOCK]
        if sys.byteorder == "little":
            block.byteswap()
        data = block.tobytes()
        crc = go_iso(data, crc)
        file.write(data)
    file.write((CHECKSUM_FLAG | crc).to_bytes(8, "big"))
    return file.getvalue()


def decode_sums(file: BinaryReader, header: Header) -> array[int]:
    """Read the list of the state after a file, given the header of that file.

    Memory: the list, which grows with what is read and ends at ``header.commit``.
    Raises InvalidFileError unless it is the whole list of that very state.
    """
    head = _take(file, _FIELDS.size)
    if head != _head(header):
        raise InvalidFileError("page checksums of another state", kind="state")
    crc = go_iso(head)
    sums = array("Q")
    while left := header.commit - len(sums):
        block = _take(file, 8 * min(left, _BLOCK))
        crc = go_iso(block, crc)
        sums.frombytes(block)
    if sys.byteorder == "little":
        sums.byteswap()
    recorded = int.from_bytes(_take(file, 8), "big")
    if recorded != CHECKSUM_FLAG | crc:
        raise ChecksumMismatchError(
            "file", expected=recorded, actual=CHECKSUM_FLAG | crc
        )
    if file.read(1):
        raise InvalidFileError("bytes behind the page checksums", kind="trailing")
    _check(header, sums)
    return sums


def _head(header: Header) -> bytes:
    return _FIELDS.pack(
        _MAGIC,
        header.page_size,
        header.commit,
        header.max_txid,
        header.timestamp,
        header.post_checksum,
    )


def _take(file: BinaryReader, size: int) -> bytes:
    """Return ``size`` bytes; InvalidFileError if the file ends before."""
    parts = []
    while size:
        part = file.read(size)
        if not part:
            raise InvalidFileError("page checksums end early", kind="truncated")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _check(header: Header, sums: array[int]) -> None:
    """Raise InvalidFileError unless a state with this header can have the checksums."""
    if len(sums) != header.commit:
        what = f"{len(sums)} page checksums for {header.commit} pages"
        raise InvalidFileError(what, kind="commit")
    lock = lock_pgno(header.page_size)
    unset = sum(1 for value in sums if value < CHECKSUM_FLAG)
    expected = 1 if lock <= header.commit else 0
    if unset != expected or (expected and sums[lock - 1] != 0):
        raise InvalidFileError("a page without a checksum", kind="incomplete")
    actual = database_checksum(sums)
    if actual != header.post_checksum:
        raise ChecksumMismatchError(
            "database", expected=header.post_checksum, actual=actual
        )
