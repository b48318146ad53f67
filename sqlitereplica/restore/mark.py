"""A note on a restored database of what it is: an extended attribute of its file.

The next restore over it learns from the note which transaction it holds, so that only the
files after that one are needed. The note is never believed by itself: it carries a digest
of the source, the transaction and the checksums of all pages, which the file must still
have. (The database checksum would not do, see ``ltx.sums``.) It is lost on filesystems
and systems without such attributes and when a file is copied; nothing depends on it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array

__all__ = ["make_mark", "marked_txid", "read_mark", "write_mark"]

_ATTRIBUTE = "user.sqlitereplica.restored"
_FIELDS = struct.Struct(">8sQ32s")
_MAGIC = b"SQLRRM01"


def make_mark(source: str, txid: int, page_size: int, sums: array[int]) -> bytes:
    """Return the note on a database with these page checksums.

    ``source`` names the replica that it was restored from.
    """
    return _FIELDS.pack(_MAGIC, txid, _digest(source, txid, page_size, sums))


def marked_txid(
    mark: bytes, source: str, page_size: int, sums: array[int]
) -> int | None:
    """Return the transaction of the replica that a database holds, None if unknown.

    ``mark`` is the note on it, ``sums`` are the checksums of the pages that it has now.
    """
    if len(mark) != _FIELDS.size:
        return None
    magic, txid, digest = _FIELDS.unpack(mark)
    if magic != _MAGIC or digest != _digest(source, txid, page_size, sums):
        return None
    return int(txid)


def write_mark(fd: int, mark: bytes) -> bool:
    """Put the note on an open file; False where that cannot be done."""
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(fd, _ATTRIBUTE, mark)
    except OSError:
        return (
            False  # no such attributes there, or no room: a later restore does without
        )
    return True


def read_mark(fd: int) -> bytes:
    """Return the note on an open file; ``b""`` if there is none."""
    if not hasattr(os, "getxattr"):
        return b""
    try:
        return os.getxattr(fd, _ATTRIBUTE)
    except OSError:
        return b""


def _digest(source: str, txid: int, page_size: int, sums: array[int]) -> bytes:
    name = source.encode()
    digest = hashlib.sha256(struct.pack(">IQQQ", page_size, txid, len(sums), len(name)))
    digest.update(name)
    digest.update(sums)
    return digest.digest()
