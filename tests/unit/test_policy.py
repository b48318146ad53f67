"""What users may say about retention, and what is refused."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from sqlitereplica.policy import Retention

MINUTE, DAY = 60_000, 86_400_000


def test_defaults_are_those_of_litestream() -> None:
    """A day of history, five minutes of single uploads, nothing beyond."""
    policy = Retention()
    assert (policy.window_ms, policy.fine_ms) == (DAY, 5 * MINUTE)
    assert policy.grace_seconds == 3600
    assert policy.delete


@pytest.mark.parametrize("short", ["30d", timedelta(days=30), 30 * 86_400])
def test_duration_alone_is_the_window(short: Any) -> None:
    """The shorthand changes nothing else."""
    assert Retention.of(short) == Retention(window=short)
    assert Retention.of(short).window_ms == 30 * DAY


def test_policy_and_none_are_taken_as_they_are() -> None:
    """None is the default policy."""
    policy = Retention(keep_last=3)
    assert Retention.of(policy) is policy
    assert Retention.of(None) == Retention()


def test_window_is_no_shorter_than_fine() -> None:
    """Who wants each upload for two days gets two days."""
    assert Retention(fine="2d").window_ms == 2 * DAY
    assert Retention(window="1m").window_ms == 5 * MINUTE


def test_part_of_a_millisecond_counts_as_one() -> None:
    """Rounding never makes anything go earlier."""
    assert Retention(window=1.0001, fine=0).window_ms == 1001


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": "soon"}, "window='soon' is not a duration"),
        ({"fine": -1}, "fine=-1 is negative"),
        ({"grace": "1x"}, "grace='1x' is not a duration"),
        ({"daily": -1}, "daily=-1 is negative"),
        ({"keep_last": -2}, "keep_last=-2 is negative"),
    ],
)
def test_value_that_makes_no_sense_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=message):
        Retention(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weekly": "4"}, "weekly is a number of points, not '4'"),
        ({"monthly": True}, "monthly is a number"),
        ({"hourly": 1.0}, "hourly is a number"),
        ({"delete": "no"}, "delete is True or False"),
        ({"window": None}, "a duration is text"),
    ],
)
def test_value_of_another_type_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    """Nothing is converted silently."""
    with pytest.raises(TypeError, match=message):
        Retention(**changes)


def test_policy_is_a_value() -> None:
    """It can be compared and a dictionary's key, and cannot be changed."""
    assert Retention(window="1d") == Retention(window="1d")
    assert len({Retention(daily=7), Retention(daily=7)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retention().daily = 1  # type: ignore[misc]
