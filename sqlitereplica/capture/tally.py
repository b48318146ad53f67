"""How often capture tried a checkpoint, and what that took: for metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["CHECKPOINT_MODES", "CheckpointTally", "Checkpoints"]

CHECKPOINT_MODES = ("passive", "truncate")
"""What is ever tried. Those of the application are not ours to count."""


@dataclass(slots=True)
class CheckpointTally:
    """Checkpoints of one mode."""

    count: int = 0
    """All that were tried, also those that others were in the way of."""
    errors: int = 0
    """Those that failed: a full disk, for one. Being busy is no failure."""
    seconds: float = 0.0


class Checkpoints:
    """Counts checkpoints by mode, from one ``take`` to the next.

    Belongs to the capture thread, and outlives what is attached.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tallies: dict[str, CheckpointTally] = {}

    @contextmanager
    def counted(self, mode: str) -> Iterator[None]:
        """Count what is done inside as one checkpoint."""
        tally = self._tallies.setdefault(mode, CheckpointTally())
        began = self._clock()
        try:
            yield
        except Exception:
            tally.errors += 1
            raise
        finally:
            tally.count += 1
            tally.seconds += self._clock() - began

    def take(self) -> Mapping[str, CheckpointTally]:
        """What came since the last call."""
        taken, self._tallies = self._tallies, {}
        return taken
