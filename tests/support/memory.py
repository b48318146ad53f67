"""Peak memory of a process, for programs that tests run."""

from __future__ import annotations

from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory() -> int:
    """The most bytes that this process has had in memory since it began.

    Not ``ru_maxrss``: that begins with what the *parent* had when it made this process, so
    that whatever fits into pytest's own memory would go unnoticed.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say")
