"""How a replica fares: what fails, since when, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Health"]

_PAUSE = (0.25, 60.0)
_URGENT = 1.0


@dataclass(slots=True)
class Health:
    """The failures in a row of one replica; times are monotonic seconds."""

    error: Exception | None = None
    failures: int = 0
    failed_at: float = 0.0
    last_success: float | None = None
    """Seconds since the epoch at which it last confirmed anything."""
    _pause: float = 0.0

    def failed(self, error: Exception, now: float, spread: float) -> None:
        """Note a failure. ``spread`` in 0..1 keeps many from trying again at once."""
        self.error, self.failed_at = error, now
        self.failures += 1
        least, most = _PAUSE
        doubled = min(most, least * 2.0 ** min(self.failures - 1, 16))
        self._pause = doubled * (0.5 + spread / 2)

    def succeeded(self, wall: float) -> bool:
        """Note a confirmation; True when it ends a row of failures."""
        self.last_success = wall
        ended = self.error is not None
        self.error, self.failures = None, 0
        return ended

    def pause(self, now: float, *, urgent: bool = False) -> float:
        """Seconds until the next try; 0 when nothing failed, or it is time.

        ``urgent``: somebody waits, so the pauses stay short.
        """
        if self.error is None:
            return 0.0
        pause = min(self._pause, _URGENT) if urgent else self._pause
        return max(0.0, self.failed_at + pause - now)
