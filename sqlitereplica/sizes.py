"""Numbers of bytes, for people."""

from __future__ import annotations

import re

__all__ = ["parse_size", "size_text"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[KMGT](?:i?B)?|B)?)", re.IGNORECASE)


def size_text(count: int) -> str:
    """Bytes as a number of at most four digits and its unit: ``"1.5 MiB"``."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:,.1f} TiB"


def parse_size(text: str, name: str = "size") -> int:
    """Return bytes from ``"8388608"``, ``"8MB"`` (of 1000) or ``"8MiB"`` (of 1024).

    Raises:
        ValueError: It is anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{name}={text!r} is not a size: use bytes or a unit, such as '32MB' or '1GiB'"
        )
    unit = match[2].upper()
    power = " KMGT".index(unit[0]) if unit not in ("", "B") else 0
    factor: int = (1024 if unit.endswith("IB") else 1000) ** power
    return round(float(match[1]) * factor)
