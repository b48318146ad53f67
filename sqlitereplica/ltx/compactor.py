"""Merging consecutive LTX files into one (litestream.md 1.8).

Theory. Applying files one after another leaves, of each page, its copy in the latest
file that has it, unless the database became too small for the page. As every file is in
page order, one pass through all of them in parallel finds these copies with one page
per file in memory. If the database shrank and grew again in between, the growing file
has the new pages (litestream.md 0.5), so that no older copy comes back.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from sqlitereplica.errors import InvalidFileError, PosMismatchError
from sqlitereplica.ltx.decoder import READ_SIZE, Decoder
from sqlitereplica.ltx.encoder import Encoder
from sqlitereplica.ltx.format import BinaryReader, Buffer, Header

__all__ = ["compact", "merge", "merge_headers"]

_READ_AHEAD = 16 << 20  # bytes, of all inputs together
_MIN_READ_SIZE = 16 << 10


def compact(
    inputs: Sequence[BinaryReader], write: Callable[[Buffer], object]
) -> Header:
    """Write the merger of consecutive files, given in order; return its header.

    ``write`` is used as ``Encoder`` does.

    Raises InvalidFileError if an input is not valid or the page sizes differ, and
    PosMismatchError if the inputs do not join. What was written is a whole file only
    if this returns.
    """
    read_size = min(READ_SIZE, _READ_AHEAD // max(1, len(inputs)))
    read_size = max(_MIN_READ_SIZE, read_size)
    header, pages = merge([Decoder(file, read_size=read_size) for file in inputs])
    encoder = Encoder(write, header)
    encoder.add(pages)
    encoder.finish()
    return header


def merge(decoders: Sequence[Decoder]) -> tuple[Header, Iterator[tuple[int, bytes]]]:
    """Return the header and the pages of the merger of consecutive files.

    Raises as ``compact`` does. When the iterator ends all inputs are verified.
    """
    header = merge_headers([decoder.header for decoder in decoders])
    return header, _merge_pages(decoders, header.commit)


def merge_headers(headers: Sequence[Header]) -> Header:
    """Return the header of the merger of consecutive files.

    Its time is the latest of all. (Litestream takes that of the last file. If a clock was
    set back in between, a restore to a time before an earlier one would then find it.)

    Raises PosMismatchError if they do not join: TXIDs are left out, do not advance, or
    the database checksums of neighbours, where known, differ. Raises InvalidFileError
    if page sizes differ.
    """
    if not headers:
        raise ValueError("nothing to merge")
    for previous, following in pairwise(headers):
        _check_joined(previous, following)
    first, last = headers[0], headers[-1]
    return replace(
        last,
        min_txid=first.min_txid,
        timestamp=max(header.timestamp for header in headers),
        wal_offset=0,
        wal_size=0,
        wal_salt1=0,
        wal_salt2=0,
        node_id=0,
        pre_checksum=first.pre_checksum if last.post_checksum else 0,
    )


def _check_joined(previous: Header, following: Header) -> None:
    if previous.page_size != following.page_size:
        raise InvalidFileError(
            f"page size {following.page_size} after {previous.page_size}",
            kind="page-size",
        )
    expected, found = previous.max_txid + 1, following.min_txid
    if found > expected or following.max_txid < expected:
        raise PosMismatchError(
            f"TXIDs {found}..{following.max_txid} do not continue after"
            f" {previous.max_txid}",
            expected_txid=expected,
            found_txid=found,
        )
    before, after = previous.post_checksum, following.pre_checksum
    if found == expected and before and after and before != after:
        raise PosMismatchError(
            f"TXID {found} was made of another database than TXID {previous.max_txid}"
            f" left: checksum {after:016x} instead of {before:016x}",
            expected_txid=expected,
            found_txid=found,
            kind="checksum",
        )


def _merge_pages(
    decoders: Sequence[Decoder], commit: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the latest copy of each page that the database still has."""
    # By page number, and of one page the latest input first.
    streams = [_ranked(decoder, -age) for age, decoder in enumerate(decoders)]
    last = 0
    for pgno, _, page in heapq.merge(*streams):
        if last < pgno <= commit:
            last = pgno
            yield pgno, page


def _ranked(decoder: Decoder, rank: int) -> Iterator[tuple[int, int, bytes]]:
    for pgno, page in decoder.pages():
        yield pgno, rank, page
