"""Numbers of bytes, for people."""

from __future__ import annotations

__all__ = ["size_text"]


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
