"""Durations as users write them: ``"5m"``, ``"1h30m"``, ``"2 days"``, a timedelta, seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta

__all__ = ["Duration", "parse_duration", "parse_span"]

Duration = str | timedelta | int | float
"""Text such as ``"1h30m"``, a timedelta, or seconds."""

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_UNIT = (
    r"w(?:eeks?)?|d(?:ays?)?|h(?:rs?|ours?)?|ms|milliseconds?"
    r"|m(?:ins?|inutes?)?|s(?:ecs?|econds?)?"
)
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNIT})(?![a-z])[\s,]*")
_SPAN = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(value: Duration, name: str = "duration") -> timedelta:
    """Return a duration that is not negative; ``name`` is what errors call it.

    Raises:
        ValueError: It is none, is negative or is too long.
        TypeError: It is of another type.
    """
    try:
        found = _convert(value)
    except OverflowError as error:
        raise ValueError(f"{name}={value!r} is too long") from error
    if found is None:
        raise ValueError(
            f"{name}={value!r} is not a duration: use text with the units ms, s, m, h, d"
            " and w, such as '30s' or '1h30m', a timedelta, or a number of seconds"
        )
    if found < timedelta(0):
        raise ValueError(f"{name}={value!r} is negative")
    return found


def parse_span(text: str) -> timedelta | None:
    """Return the sum of numbers with units, or None if the text is anything else.

    Units are spelled out or shortened: ``"1h30m"``, ``"1 hour, 30 minutes"``.

    Raises:
        OverflowError: It is longer than a timedelta can be.
    """
    lowered = text.strip().lower()
    if not _SPAN.fullmatch(lowered):
        return None
    parts = _PART.findall(lowered)
    return sum(
        (float(number) * _value_of(unit) for number, unit in parts), timedelta(0)
    )


def _value_of(unit: str) -> timedelta:
    return _UNITS["ms" if unit.startswith(("ms", "mil")) else unit[0]]


def _convert(value: Duration) -> timedelta | None:
    if isinstance(value, str):
        return parse_span(value)
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = type(value).__name__
        raise TypeError(f"a duration is text, a timedelta or seconds, not {kind}")
    return timedelta(seconds=value) if math.isfinite(value) else None
