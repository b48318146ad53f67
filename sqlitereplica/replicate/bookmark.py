"""Positions: how far a database was at a moment, and in which captured state that is.

Capture looks at the WAL again and again, and each look takes everything that is committed.
So "all that was committed before now" is "what the next look will have seen", and needs no
request to anything: a position is the number of that look. It stays comparable as long as
one capture lives; a look of an earlier life says nothing about states of this one.

    Invariant: what ``state_of`` answers holds every commit made before the position was
    taken. When that is not known it answers None, and whoever asks has to capture anew,
    which covers every position there can be.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

__all__ = ["Looks", "Position"]

_TEXT = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16})-([0-9a-f]{1,16})")
_KEPT = 256


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Everything committed to one database before one moment.

    Positions of one database are ordered: the later covers the earlier. ``str`` makes a
    text of it that fits into a header or a cookie, and ``parse`` reads that.

    Example:
        >>> Position.parse("19ac2b3f7d1-2a-5f3c") > Position.parse("19ac2b3f7d1-29-5f3c")
        True
    """

    life: int
    """Milliseconds since the epoch at which the capture that counts began."""
    look: int
    """The look at the WAL that sees these commits, counted by that capture."""
    node: int
    """The metadata folder of the database: a random number."""

    def __str__(self) -> str:
        return f"{self.life:x}-{self.look:x}-{self.node:x}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` made.

        Raises:
            ValueError: anything else.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not the text of a Position")
        return cls(*(int(part, 16) for part in match.groups()))


class Looks:
    """Counts the looks of one capture. ``position`` and ``state_of`` are for any thread."""

    def __init__(
        self,
        node: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._node, self._now_ms = node, now_ms
        self._life, self._look = now_ms(), 0
        self._states: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        """(look, seq): the state ``seq`` holds all that was seen up to ``look``."""
        self._lock = threading.Lock()

    @property
    def node(self) -> int:
        """Whose positions these are."""
        return self._node

    def position(self) -> Position:
        """Everything committed before this call: what the next look will have seen."""
        with self._lock:
            return Position(self._life, self._look + 1, self._node)

    def begin(self) -> None:
        """A look begins: who asks from now on waits for the next one."""
        with self._lock:
            self._look += 1

    def captured(self, seq: int) -> None:
        """The look has ended, and the state ``seq`` holds all that it saw."""
        with self._lock:
            if self._states and self._states[-1][1] == seq:
                self._states.pop()
            self._states.append((self._look, seq))

    def restart(self) -> None:
        """Nothing is known of the database any more: positions begin anew."""
        with self._lock:
            self._life, self._look = max(self._life + 1, self._now_ms()), 0
            self._states.clear()

    def state_of(self, position: Position) -> int | None:
        """A state that holds everything the position stands for; None for unknown."""
        with self._lock:
            if position.life != self._life:
                return None
            seqs = (seq for look, seq in self._states if look >= position.look)
            return next(seqs, None)
