"""Which processes have a file open, as Linux tells. Elsewhere nothing is found.

What other users' processes have open cannot be seen, nor what is beyond a container.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

__all__ = ["open_files", "other_processes"]


def other_processes() -> Iterator[int]:
    """Yield the other processes that can be seen."""
    try:
        entries = os.listdir("/proc")
    except OSError:
        return
    for entry in entries:
        if entry.isdigit() and int(entry) != os.getpid():
            yield int(entry)


def open_files(pid: int | Literal["self"]) -> Iterator[tuple[int, int]]:
    """Yield the files that a process has open, by device and inode."""
    folder = f"/proc/{pid}/fd"
    try:
        entries = os.listdir(folder)
    except OSError:  # ended, or another user's
        return
    for entry in entries:
        try:
            status = os.stat(f"{folder}/{entry}")
        except OSError:  # closed since it was listed
            continue
        yield status.st_dev, status.st_ino
