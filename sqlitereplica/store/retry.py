"""Trying again: how often and with what pauses. Pure; the sleeping is done by callers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential pauses with full jitter (each between 0 and its cap)."""

    attempts: int = 4
    """How often an operation is tried in all."""
    base: float = 0.1
    """Seconds that cap the first pause; it doubles from there."""
    cap: float = 5.0
    """Seconds that no pause exceeds."""

    def pauses(self, rng: Callable[[], float]) -> Iterator[float]:
        """Seconds to wait before the second, third, ... attempt."""
        for attempt in range(self.attempts - 1):
            yield min(self.cap, self.base * 2.0**attempt) * rng()
