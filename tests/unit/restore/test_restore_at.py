"""Points in time as users write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sqlitereplica.restore.at import parse_at

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_MS = 1_772_366_400_000


def test_now_is_the_constant_below_it() -> None:
    """The two constants of this file mean the same moment."""
    assert NOW.timestamp() * 1000 == NOW_MS


@pytest.mark.parametrize(
    "at",
    [
        NOW,
        NOW.astimezone(timezone(timedelta(hours=-7))),
        "2026-03-01T12:00:00Z",
        "2026-03-01 13:00:00+01:00",
        "20260301T120000.000+0000",
        " 2026-03-01T12:00Z ",
        NOW_MS // 1000,
        NOW_MS / 1000,
    ],
    ids=str,
)
def test_same_moment_in_every_spelling(at: Any) -> None:
    """Zone and type do not change what is meant."""
    assert parse_at(at, NOW) == NOW_MS


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        ("5 minutes ago", 300),
        ("5m ago", 300),
        ("1 min ago", 60),
        ("90s ago", 90),
        ("1 second ago", 1),
        ("30 secs ago", 30),
        ("2 hours ago", 7200),
        ("2 hrs ago", 7200),
        ("1.5h ago", 5400),
        ("3 days ago", 259_200),
        ("3d ago", 259_200),
        ("1 week ago", 604_800),
        ("2w ago", 1_209_600),
        ("1h 30m ago", 5400),
        ("1h30m ago", 5400),
        ("1 hour, 30 minutes ago", 5400),
        ("  5 MINUTES  AGO ", 300),
    ],
)
def test_relative_times_count_back_from_now(at: str, seconds: int) -> None:
    """Numbers and units may be spelled out, shortened and combined."""
    assert parse_at(at, NOW) == NOW_MS - seconds * 1000


def test_part_of_a_millisecond_includes_the_file_of_that_millisecond() -> None:
    """A file of 12:00:00.123 is before 12:00:00.1234, and not before 12:00:00.123."""
    moment = NOW + timedelta(milliseconds=123)
    assert parse_at(moment, NOW) == NOW_MS + 123
    assert parse_at(moment + timedelta(microseconds=400), NOW) == NOW_MS + 124
    assert parse_at("2026-03-01T12:00:00.1234Z", NOW) == NOW_MS + 124


@pytest.mark.parametrize("millisecond", [0, 1, 123, 500, 999])
def test_float_seconds_mean_their_millisecond(millisecond: int) -> None:
    """A float is never the wrong millisecond for not being exact."""
    assert parse_at((NOW_MS + millisecond) / 1000, NOW) == NOW_MS + millisecond


def test_times_before_1970_are_negative() -> None:
    """The epoch is not the beginning of time."""
    assert parse_at("1969-12-31T23:59:59.9995Z", NOW) == 0
    assert parse_at(-1.5, NOW) == -1500


@pytest.mark.parametrize(
    "at", [NOW.replace(tzinfo=None), "2026-03-01T12:00:00", "2026-03-01"], ids=str
)
def test_time_without_zone_is_refused_and_says_how(at: Any) -> None:
    """What is no single moment is not guessed."""
    with pytest.raises(ValueError, match=r"no time zone.*'Z'.*timezone\.utc"):
        parse_at(at, NOW)


@pytest.mark.parametrize(
    "at",
    [
        "",
        "yesterday",
        "5 minutes",
        "minutes ago",
        "ago",
        "5 fortnights ago",
        "-5 minutes ago",
        "5 m5 ago",
        "2026-13-01T00:00:00Z",
        "99999999999999999999 weeks ago",
        "9" * 400 + " s ago",
        float("nan"),
        float("inf"),
        NOW_MS,
        -1e300,
        10**400,
    ],
    ids=lambda at: str(at)[:30],
)
def test_what_is_no_time_is_refused(at: Any) -> None:
    """Anything else is a ValueError, milliseconds for seconds among it."""
    with pytest.raises(ValueError, match="at="):
        parse_at(at, NOW)


@pytest.mark.parametrize(
    "at", [True, None, b"2026-03-01T12:00:00Z", timedelta(1)], ids=str
)
def test_other_types_are_refused(at: Any) -> None:
    """A bool is not a number of seconds."""
    with pytest.raises(TypeError, match="at is"):
        parse_at(at, NOW)
