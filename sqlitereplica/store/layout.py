"""Where files of a replica are: Litestream's keys, one layout per kind of backend.

``ltx/<level>/<name>`` everywhere except on S3 and OSS, which have ``<level as 4 hex>/<name>``
(litestream.md 2.1). Pure: keys in, keys out.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlitereplica.ltx import (
    MAX_LEVEL,
    FileInfo,
    format_filename,
    parse_filename,
)

__all__ = ["Layout", "layout_for", "seconds_of", "time_of", "timestamp_metadata"]

_HEX_PROTOCOLS = frozenset({"s3", "s3a", "oss"})
_WITH_METADATA = frozenset({"s3", "s3a", "gs", "gcs"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay levels out below a root."""

    hexadecimal: bool

    def level_path(self, root: str, level: int) -> str:
        """The folder, or key prefix, of a level.

        Raises:
            ValueError: there is no such level.
        """
        if not 0 <= level <= MAX_LEVEL:
            raise ValueError(f"there is no level {level}, only 0 to {MAX_LEVEL}")
        return f"{root}/{level:04x}" if self.hexadecimal else f"{root}/ltx/{level}"

    def key(self, root: str, level: int, min_txid: int, max_txid: int) -> str:
        """The full key of a file."""
        name = format_filename(min_txid, max_txid)
        return f"{self.level_path(root, level)}/{name}"

    def parse(self, below_root: str, *, size: int, timestamp: int) -> FileInfo | None:
        """The file that a key below the root names; None for a foreign one.

        Keys come from the store and are hostile: only names built of digits are taken,
        and paths are always built anew from the numbers.
        """
        *folders, name = below_root.split("/")
        level = self._level(folders)
        numbers = parse_filename(name)
        if level is None or numbers is None:
            return None
        return FileInfo(level, *numbers, size, timestamp)

    def files(self, root: str, entries: Iterable[Mapping[str, Any]]) -> list[FileInfo]:
        """The files of a replica among what a listing shows, each once."""
        # Some filesystems name what is below "/x" without the slash.
        root = root.strip("/")
        found = set()
        for entry in entries:
            name = str(entry["name"]).lstrip("/")
            if entry.get("type") == "directory" or not name.startswith(root):
                continue
            below = name[len(root) :].removeprefix("/")
            info = self.parse(
                below, size=int(entry.get("size") or 0), timestamp=time_of(entry)
            )
            if info is not None:
                found.add(info)
        return list(found)

    def _level(self, folders: list[str]) -> int | None:
        match folders:
            case [text] if self.hexadecimal and len(text) == 4:
                base = 16
            case ["ltx", text] if not self.hexadecimal and len(text) == 1:
                base = 10
            case _:
                return None
        if not set(text) <= set(string.hexdigits if base == 16 else string.digits):
            return None
        level = int(text, base)
        return level if level <= MAX_LEVEL else None


def layout_for(protocol: str) -> Layout:
    """Litestream's layout for a filesystem protocol such as ``"s3"`` or ``"file"``."""
    return Layout(hexadecimal=protocol in _HEX_PROTOCOLS)


def timestamp_metadata(protocol: str, timestamp: int) -> dict[str, str]:
    """Object metadata that carry a file's time (ms), {} where there are none.

    Go's RFC3339Nano: the fraction without trailing zeros (litestream.md 1.9, 2.1). None
    on Azure, whose filesystem takes no metadata: Litestream goes by the upload time there.
    """
    if protocol not in _WITH_METADATA:
        return {}
    at = _EPOCH + timedelta(milliseconds=timestamp)
    fraction = f".{timestamp % 1000:03}".rstrip("0").rstrip(".")
    return {"litestream-timestamp": f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"}


def time_of(entry: Mapping[str, Any]) -> int:
    """Milliseconds since the epoch that a listing tells for a file; 0 when it does not."""
    return round(seconds_of(entry) * 1000)


def seconds_of(entry: Mapping[str, Any]) -> float:
    """The time of ``time_of`` as the store has it; some count whole seconds only."""
    for name in ("mtime", "LastModified", "last_modified", "created", "updated"):
        value = entry.get(name)
        if isinstance(value, datetime):
            value = value.timestamp()
        if isinstance(value, int | float):
            return value
    return 0
