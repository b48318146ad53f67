"""Where Litestream 0.3 kept its files: ``generations``, which is only read here.

::

    generations/<16 hex>/snapshots/<index, 8 hex>.snapshot.lz4
    generations/<16 hex>/wal/<index, 8 hex>_<offset, 8 hex or more>.wal.lz4

A generation is an unbroken history of one database, its name random. The WAL between two
resets has an index. A snapshot of an index is the database file as it was while that WAL
grew; a segment is a piece of that WAL, from a byte offset on (litestream.md 2.2). The same
on every kind of store.

Names that a listing shows are hostile: only numbers are taken from them, and a name that
is not the one made of its numbers is a foreign one. Pure: keys in, keys out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlitereplica.store.layout import seconds_of

__all__ = [
    "KINDS",
    "GenerationFile",
    "generation_files",
    "generations_root",
    "is_generation",
]

KINDS = ("snapshots", "wal")
"""The folders in that of a generation."""

_GENERATION = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(
    r"([0-9a-f]{16})/(?:snapshots/([0-9a-f]{8})\.snapshot\.lz4"
    r"|wal/([0-9a-f]{8})_([0-9a-f]{8}|[1-9a-f][0-9a-f]{8,14})\.wal\.lz4)"
)


@dataclass(frozen=True, slots=True)
class GenerationFile:
    """A snapshot, or a segment of a WAL: the one that has an ``offset``.

    ``size`` is in bytes, as stored. ``timestamp`` is the store's time of the file, for
    there is no other, in milliseconds since the epoch; 0 if the store tells none. What is
    in the file was committed no later than ``committed_by``, which is rounded up: to the end
    of the second where the store seems to count only these.
    """

    generation: str
    index: int
    offset: int | None
    size: int
    timestamp: int
    committed_by: int

    @property
    def name(self) -> str:
        """The name below ``generations``."""
        if self.offset is None:
            return f"{self.generation}/snapshots/{self.index:08x}.snapshot.lz4"
        return f"{self.generation}/wal/{self.index:08x}_{self.offset:08x}.wal.lz4"

    def key(self, root: str) -> str:
        """The full key."""
        return f"{generations_root(root)}/{self.name}"


def generations_root(root: str) -> str:
    """The folder of all generations.

    In a bucket without a path the keys of 0.3 have no "./" before them, as those of 0.5
    have.
    """
    return f"{root.removesuffix('/.')}/generations"


def is_generation(name: str) -> bool:
    """Whether a folder's name is that of a generation."""
    return _GENERATION.fullmatch(name) is not None


def generation_files(
    root: str, entries: Iterable[Mapping[str, Any]]
) -> list[GenerationFile]:
    """The files among what a listing shows, by generation, index and offset."""
    prefix = generations_root(root).strip("/") + "/"
    found = set()
    for entry in entries:
        # Some filesystems name what is below "/x" without the slash.
        key = str(entry["name"]).lstrip("/")
        match = _FILE.fullmatch(key, len(prefix))
        if not key.startswith(prefix) or match is None:
            continue
        if entry.get("type") == "directory":
            continue
        generation, snapshot, segment, offset = match.groups()
        seconds = seconds_of(entry)
        found.add(
            GenerationFile(
                generation,
                int(snapshot or segment, 16),
                None if offset is None else int(offset, 16),
                int(entry.get("size") or 0),
                round(seconds * 1000),
                _rounded_up(seconds),
            )
        )
    return sorted(found, key=_order)


def _order(file: GenerationFile) -> tuple[str, int, int]:
    return file.generation, file.index, -1 if file.offset is None else file.offset


def _rounded_up(seconds: float) -> int:
    """Return the milliseconds at the end of what may be meant."""
    microseconds = round(seconds * 1_000_000)  # no float near today resolves more
    if microseconds % 1_000_000 == 0:
        return microseconds // 1000 + 999
    return -(-microseconds // 1000)
