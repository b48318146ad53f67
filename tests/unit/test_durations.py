"""Durations as users write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sqlitereplica.durations import parse_duration, parse_span


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("5m", 300),
        ("24h", 86_400),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1 hour, 30 minutes", 5400),
        ("1.5h", 5400),
        ("1s500ms", 1.5),
        ("500 milliseconds", 0.5),
        (" 5M ", 300),
        ("0s", 0),
        (timedelta(minutes=5), 300),
        (90, 90),
        (0.25, 0.25),
        (0, 0),
    ],
    ids=str,
)
def test_same_length_in_every_spelling(written: Any, seconds: float) -> None:
    """Text with units, a timedelta and seconds are durations."""
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "written",
    ["", "5", "m", "5 fortnights", "-5m", "5m ago", "1h-30m", "5mm", "five m", "1e3s"],
)
def test_text_that_is_no_duration_says_what_is_one(written: str) -> None:
    """The error names the argument and shows how durations are written."""
    with pytest.raises(ValueError, match=r"window=.* is not a duration.*'1h30m'"):
        parse_duration(written, "window")


@pytest.mark.parametrize(
    "written", [float("nan"), float("inf"), 1e300, "9" * 400 + "s", "99999999999w"]
)
def test_endless_duration_is_refused(written: Any) -> None:
    """What no timedelta can be is a ValueError, not an OverflowError."""
    with pytest.raises(ValueError, match="window="):
        parse_duration(written, "window")


@pytest.mark.parametrize("written", [-1, -0.5, timedelta(seconds=-1)])
def test_negative_duration_is_refused(written: Any) -> None:
    """A duration has no direction."""
    with pytest.raises(ValueError, match="is negative"):
        parse_duration(written)


@pytest.mark.parametrize("written", [None, True, b"5m", [5]])
def test_other_type_is_refused(written: Any) -> None:
    """A bool is not a number of seconds."""
    with pytest.raises(TypeError, match="a duration is text"):
        parse_duration(written)


def test_span_that_is_none_is_none() -> None:
    """Who reads other text, too, is told that this is not a span."""
    assert parse_span("tomorrow") is None
    assert parse_span("2 days") == timedelta(days=2)
