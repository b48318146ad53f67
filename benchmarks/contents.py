"""What a replica in a folder holds, and since when.

A file is visible from its inode's change time on: the moment it was given its name. Which
numbered rows it has is read from its pages.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import MAGIC
from sqlitereplica.ltx import Decoder, parse_filename

_LEAF = 13


@dataclass(frozen=True, slots=True)
class Stored:
    """One LTX file of a replica; ``visible`` is seconds since the epoch."""

    path: Path
    level: int
    min_txid: int
    max_txid: int
    size: int
    visible: float


def stored(replica: Path) -> list[Stored]:
    """All files of a replica by level and TXID."""
    found = []
    for folder in (replica / "ltx").glob("[0-9]"):
        for entry in os.scandir(folder):
            txids = parse_filename(entry.name)
            if txids is None:
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # compacted away
            path = Path(entry.path)
            visible = status.st_ctime_ns / 1e9
            level = int(folder.name)
            found.append(Stored(path, level, *txids, status.st_size, visible))
    return sorted(found, key=lambda f: (f.level, f.max_txid))


def increments(replica: Path) -> list[Stored]:
    """The files of level 0."""
    return [f for f in stored(replica) if f.level == 0]


def first_restorable(replica: Path) -> Stored | None:
    """The file with which a restore became possible; None before."""
    return min(increments(replica), key=lambda f: f.visible, default=None)


def size_mib(files: list[Stored]) -> float:
    """Bytes of files together, in MiB."""
    return sum(f.size for f in files) / (1 << 20)


class RowFinder:
    """Finds out when rows became visible in a replica; reads each file once."""

    def __init__(self, replica: Path) -> None:
        self._replica = replica
        self._last: dict[Path, int] = {}

    def visible(self) -> list[tuple[int, float]]:
        """(last row, visible since) of the files of level 0, in order of TXIDs."""
        return [(self._row(f), f.visible) for f in increments(self._replica)]

    def time_of(self, number: int) -> float | None:
        """When a row became visible; None if it is not yet."""
        return next((seen for last, seen in self.visible() if last >= number), None)

    def _row(self, file: Stored) -> int:
        if file.path not in self._last:
            self._last[file.path] = last_row(file.path)
        return self._last[file.path]


def last_row(path: Path) -> int:
    """The highest number among the rows in an LTX file; 0 when it has none."""
    with path.open("rb") as file:
        pages = Decoder(file).pages()
        return max((_last_of(p) for pgno, p in pages if pgno > 1), default=0)


def _last_of(page: bytes) -> int:
    """The number of the last row in a leaf page of the table of numbered rows."""
    count = int.from_bytes(page[3:5], "big")
    if page[0] != _LEAF or not count:
        return 0
    # Only the last cell counts: what else the page has may be left from before.
    at = int.from_bytes(page[6 + 2 * count : 8 + 2 * count], "big")
    found = page.find(MAGIC, at, at + 32)
    if found < 0:
        return 0
    start = found + len(MAGIC)
    return int.from_bytes(page[start : start + 8], "big")
