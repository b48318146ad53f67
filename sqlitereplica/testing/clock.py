"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlitereplica.durations import Duration, parse_duration

__all__ = ["SteppingClock"]


class SteppingClock:
    """Monotonic seconds and the time of day; both move only by ``advance``.

    Called, it gives monotonic seconds, so that it goes wherever ``time.monotonic`` does;
    ``advance`` goes wherever ``time.sleep`` does.

    Example:
        >>> clock = SteppingClock()
        >>> begun = clock()
        >>> clock.advance("1h30m")
        >>> clock() - begun
        5400.0
    """

    def __init__(self, start: datetime | None = None) -> None:
        """Begin at an aware time of day; by default at one in 2027.

        Raises:
            ValueError: ``start`` has no zone.
        """
        start = start or datetime(2027, 1, 15, 8, tzinfo=UTC)
        if start.tzinfo is None:
            raise ValueError(f"the start has no zone: {start!r}")
        self.seconds = 1000.0
        self.wall_ms = round(start.timestamp() * 1000)

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self.seconds

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self.wall_ms

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=self.wall_ms)

    def advance(self, duration: Duration) -> None:
        """Let time pass: seconds, ``"30d"``, a timedelta.

        Raises:
            ValueError, TypeError: that is no duration.
        """
        seconds = parse_duration(duration).total_seconds()
        self.seconds += seconds
        self.wall_ms += round(seconds * 1000)
