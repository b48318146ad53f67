"""Points in time as users give them.

LTX files carry milliseconds, and a restore "at" a time uses the files *before* it, as
Litestream does. So a time becomes the smallest number of milliseconds that is not
before it: a file of that very millisecond is used exactly if it is before the time.
Text that is no time may be the name of a pin; that is for those to find out who know a
replica.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from sqlitereplica.durations import parse_span

__all__ = ["TIME_FORMS", "At", "NoTimeError", "parse_at"]

At = datetime | str | int | float
"""An aware datetime, ISO 8601 text with a zone, "5 minutes ago", epoch seconds; where
there is a replica also the name of a pin."""

TIME_FORMS = (
    "ISO 8601 with a time zone, such as '2026-01-31T12:00:00Z', or a relative time, such"
    " as '5 minutes ago'"
)


class NoTimeError(ValueError):
    """Text that means no time in any of the forms."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

_AGO = re.compile(r"(.*)\sago", re.IGNORECASE | re.DOTALL)


def parse_at(at: At, now: datetime) -> int:
    """Return the time as milliseconds since the epoch; files before it are meant.

    Args:
        at: An aware datetime, ISO 8601 text with a time zone, seconds since the epoch,
            or text such as ``"5 minutes ago"`` or ``"1h 30m ago"`` with seconds,
            minutes, hours, days or weeks, spelled out or by their first letter.
        now: What relative times are relative to; aware.

    Raises:
        NoTimeError: The text is no time; a ValueError.
        ValueError: The time has no zone or is out of range.
        TypeError: ``at`` is of another type.
    """
    point: object = _parse_text(at.strip(), now) if isinstance(at, str) else at
    if isinstance(point, datetime):
        if point.utcoffset() is None:
            raise ValueError(_no_zone(repr(point)))
        microseconds = (point - _EPOCH) // _MICROSECOND
    elif isinstance(point, int) and not isinstance(point, bool):
        microseconds = point * 1_000_000
    elif isinstance(point, float):
        if not math.isfinite(point):
            raise ValueError(f"at={point} is not a time")
        # A float near today resolves 0.2 us; only rounding finds the millisecond meant.
        microseconds = round(point * 1e6)
    else:
        kind = type(point).__name__
        raise TypeError(f"at is a datetime, text or seconds since 1970, not {kind}")
    if not _FIRST <= microseconds <= _LAST:
        raise ValueError(f"at={at} is out of range: numbers are seconds since 1970")
    return -(-microseconds // 1000)


def _parse_text(text: str, now: datetime) -> datetime:
    """Read ISO 8601 text or a relative time."""
    try:
        relative = _AGO.fullmatch(text)
        ago = parse_span(relative[1]) if relative else None
        if ago is not None:
            return now - ago
        parsed = datetime.fromisoformat(text)
    except OverflowError as error:
        raise ValueError(f"at={text!r} is out of range") from error
    except ValueError as error:
        raise NoTimeError(f"at={text!r} is not a time: use {TIME_FORMS}") from error
    if parsed.utcoffset() is None:
        raise ValueError(_no_zone(repr(text)))
    return parsed


def _no_zone(at: str) -> str:
    return (
        f"at={at} has no time zone, so it is not one point in time: end text with 'Z' or"
        " '+00:00', and make a datetime with tzinfo=datetime.timezone.utc or"
        " by .astimezone() if it is local time"
    )
