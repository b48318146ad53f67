"""Names of LTX files, ``<min txid>-<max txid>.ltx`` (litestream.md 1.9).

A name from a listing is untrusted: only the two numbers taken from it are used further,
never its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlitereplica.errors import InvalidFileError

__all__ = [
    "FileInfo",
    "format_filename",
    "format_txid",
    "parse_filename",
    "parse_txid",
]

_TXID = re.compile(r"[0-9a-f]{16}")
_FILENAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a replica as a listing shows it.

    ``size`` is in bytes, ``timestamp`` in milliseconds since the epoch.
    """

    level: int
    min_txid: int
    max_txid: int
    size: int
    timestamp: int

    @property
    def is_snapshot(self) -> bool:
        """Whether it holds the whole database (litestream.md 0.4), at whatever level."""
        return self.min_txid == 1

    @property
    def name(self) -> str:
        """The file name within its level."""
        return format_filename(self.min_txid, self.max_txid)


def format_txid(txid: int) -> str:
    """Return a TXID as 16 lower-case hexadecimal digits.

    Raises InvalidFileError unless it is an unsigned 64-bit number.
    """
    if not 0 <= txid < 2**64:
        raise InvalidFileError(f"TXID {txid} is not a 64-bit number", kind="txid")
    return f"{txid:016x}"


def parse_txid(text: str) -> int:
    """Read a TXID of exactly 16 lower-case hexadecimal digits, or InvalidFileError."""
    if not _TXID.fullmatch(text):
        raise InvalidFileError(
            f"{text!r} is not a TXID of 16 lower-case hexadecimal digits", kind="txid"
        )
    return int(text, 16)


def format_filename(min_txid: int, max_txid: int) -> str:
    """Return the name of the file that holds these TXIDs."""
    return f"{format_txid(min_txid)}-{format_txid(max_txid)}.ltx"


def parse_filename(name: str) -> tuple[int, int] | None:
    """Return (min TXID, max TXID), or None for a name that is no LTX file's."""
    match = _FILENAME.fullmatch(name)
    if match is None:
        return None
    min_txid, max_txid = int(match[1], 16), int(match[2], 16)
    return (min_txid, max_txid) if 1 <= min_txid <= max_txid else None
