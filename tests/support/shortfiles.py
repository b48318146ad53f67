"""Small replicas of real LTX files, for tests of what a listing says."""

from __future__ import annotations

from support.ltxfiles import image, make_header

from sqlitereplica import ltx
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore

__all__ = ["START", "put_file", "put_level_0"]

START = 1_700_000_000_000
"""The time of TXID 0, in milliseconds; each further one is a second later."""


def put_file(
    store: LTXStore, level: int, first: int, last: int, time: int | None = None
) -> FileInfo:
    """Store a file of these transactions, with the time of the last one."""
    timestamp = START + 1000 * last if time is None else time
    header = make_header(min_txid=first, max_txid=last, timestamp=timestamp)
    data = ltx.encode(header, image(512, 2, seed=last))
    return store.put(level, first, last, data, timestamp=timestamp)


def put_level_0(store: LTXStore, first: int, last: int) -> list[FileInfo]:
    """Store one file for each transaction."""
    return [put_file(store, 0, txid, txid) for txid in range(first, last + 1)]
