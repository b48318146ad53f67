"""Increments between capture and the replicas: bounded memory, bounded disk, no more.

Each replica has its place in one line of increments. An increment leaves when the last
replica has it. While a store is away the line moves from memory to files; past the bound on
disk the slowest replica loses its place, and is told which pages it then misses: it comes
back by a delta (``worker.py``). Capture never waits.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Mapping
from pathlib import Path

from sqlitereplica.capture import Increment

__all__ = ["Backlog", "Dropped", "Spool"]

Dropped = Mapping[str, frozenset[int]]
"""Per replica that lost its place: the pages of the increments that it will not get."""

Backlog = tuple[int, int, int | None]
"""(increments waiting, their bytes, timestamp in ms of the oldest or None)."""


class Spool:
    """The line of increments. Thread-safe; ``add`` belongs to the capture thread."""

    def __init__(self, folder: Path, *, memory_limit: int, disk_limit: int) -> None:
        self._folder = folder
        self._memory_limit, self._disk_limit = memory_limit, disk_limit
        self._line: list[Increment] = []
        self._unspilled: list[Increment] = []
        """Those in the line that are no files yet, in its order: few, however long it is."""
        self._on_disk = 0
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()

    def subscribe(self, name: str, seq: int) -> None:
        """Give ``name`` the increments after ``seq`` from now on."""
        with self._lock:
            self._done[name] = seq

    def unsubscribe(self, name: str) -> None:
        """Take ``name`` out of the line."""
        with self._lock:
            self._done.pop(name, None)
            self._purge()

    def add(self, increment: Increment) -> Dropped:
        """Append an increment; returns who lost its place to keep the bounds."""
        with self._lock:
            self._line.append(increment)
            self._on_disk += increment.on_disk()
            if not increment.on_disk():
                self._unspilled.append(increment)
            dropped: dict[str, frozenset[int]] = {}
            if increment.body is None:
                for name in list(self._done):
                    dropped[name] = self._drop(name)
            self._purge()
            while not self._fits() and self._done:
                slowest = min(self._done, key=self._done.__getitem__)
                dropped[slowest] = self._drop(slowest)
                self._purge()
            return dropped

    def next(self, name: str) -> Increment | None:
        """The increment that ``name`` needs next, None when there is none."""
        with self._lock:
            if name not in self._done:
                return None
            at = self._after(self._done[name])
            return self._line[at] if at < len(self._line) else None

    def done(self, name: str, seq: int) -> None:
        """``name`` has everything up to ``seq``."""
        with self._lock:
            if name in self._done:
                self._done[name] = seq
                self._purge()

    def backlog(self, name: str) -> Backlog:
        """What waits for ``name``."""
        with self._lock:
            if name not in self._done:
                return 0, 0, None
            line = self._line[self._after(self._done[name]) :]
            size = sum(i.in_memory() + i.on_disk() for i in line)
            return len(line), size, line[0].state.timestamp if line else None

    def clear(self) -> None:
        """Drop the line and everybody's place in it."""
        with self._lock:
            self._done.clear()
            self._purge()

    def _fits(self) -> bool:
        """Spill what memory must not hold; False when the bounds are passed all the same."""
        try:
            if sum(i.in_memory() for i in self._unspilled) > self._memory_limit:
                self._spill()
        except OSError:
            # No space for a spool: somebody loses the place in line instead.
            return False
        return self._on_disk <= self._disk_limit

    def _spill(self) -> None:
        """Make files of all but the oldest: it is the one being sent."""
        while self._unspilled and self._unspilled[-1] is not self._line[0]:
            increment = self._unspilled[-1]
            increment.spill(self._folder)
            self._unspilled.pop()
            self._on_disk += increment.on_disk()

    def _drop(self, name: str) -> frozenset[int]:
        line = self._line[self._after(self._done.pop(name)) :]
        return frozenset(p for increment in line for p in increment.pgnos)

    def _purge(self) -> None:
        """Discard what everybody has."""
        everybody = min(self._done.values(), default=None)
        keep = len(self._line) if everybody is None else self._after(everybody)
        for increment in self._line[:keep]:
            self._on_disk -= increment.on_disk()
            increment.discard()
        del self._line[:keep]
        oldest = self._line[0].state.seq if self._line else math.inf
        left = bisect.bisect_left(self._unspilled, oldest, key=lambda i: i.state.seq)
        del self._unspilled[:left]

    def _after(self, seq: int) -> int:
        return bisect.bisect_right(self._line, seq, key=lambda i: i.state.seq)
