"""Small files that a replica has beside its levels: pins, page checksums.

``<root>/<folder>/<name>``; Litestream lists only the folders of levels and never sees them.
Folder and name are parts of a key, so both are narrow: letters, digits, ``.``, ``_`` and
``-``, not beginning with a dot. Names that a listing shows are hostile and pass the same
door. Pure: keys in, keys out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SideFile", "is_side_name", "side_files", "side_key"]

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class SideFile:
    """One file beside the levels; ``size`` in bytes."""

    folder: str
    name: str
    size: int


def is_side_name(text: str) -> bool:
    """Whether a text can be the name of such a file."""
    return _NAME.fullmatch(text) is not None


def side_key(root: str, *parts: str) -> str:
    """The full key of a folder, or of a file in it.

    Raises:
        ValueError: a part that cannot be in a key.
    """
    for part in parts:
        if not is_side_name(part):
            raise ValueError(
                f"{part!r} cannot be a name in a replica: use up to 128 letters, digits,"
                " '.', '_' and '-', not beginning with '.'"
            )
    return "/".join((root, *parts))


def side_files(
    root: str, folder: str, entries: Iterable[Mapping[str, Any]]
) -> list[SideFile]:
    """The files directly in a folder, by name, among what a listing shows."""
    prefix = f"{side_key(root, folder)}/".lstrip("/")
    found = set()
    for entry in entries:
        # Some filesystems name what is below "/x" without the slash.
        key = str(entry["name"]).lstrip("/")
        name = key.removeprefix(prefix)
        if entry.get("type") == "directory" or name == key or not is_side_name(name):
            continue
        found.add(SideFile(folder, name, int(entry.get("size") or 0)))
    return sorted(found, key=lambda file: file.name)
