"""Variables and dates in configuration texts."""

from __future__ import annotations

import fnmatch
from datetime import datetime

import pytest

from sqlitereplica.config.expand import (
    ExpandError,
    date_format,
    date_glob,
    expand,
    expand_dates,
    is_dated,
)

ENV = {"NAME": "n", "EMPTY": "", "SECRET": "pa$$ # : x"}
NOW = datetime(2026, 11, 8, 4, 5, 6)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$NAME/${NAME}", "n/n"),
        ("a${NAME}b", "anb"),
        ("$UNSET|${UNSET}", "|"),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${NAME:-d}", "n"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:b/c d}", "a:b/c d"),
        ("$SECRET", "pa$$ # : x"),
        ("cost: 5$$", "cost: 5$"),
        ("$$NAME", "$NAME"),
        ("pa$!word $1 $", "pa$!word $1 $"),
        ("$PID", "77"),
        ("$(date +%Y)", "$(date +%Y)"),
        ("$(date +'%Y %m')/$NAME", "$(date +'%Y %m')/n"),
    ],
)
def test_variables_are_replaced(text: str, expected: str) -> None:
    """As a shell would, with a way to write a dollar."""
    assert expand(text, ENV, pid=77) == expected


@pytest.mark.parametrize(
    "text", ["${", "${1}", "${A", "$(ls)", "$(date)", "$(date %Y)"]
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    """No command but date is known, and no other form."""
    with pytest.raises(ExpandError, match="not understood"):
        expand(text, ENV, pid=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b/$(date +%Y-%m-%d)", "b/2026-11-08"),
        ("b/$(date +%F)/x", "b/2026-11-08/x"),
        ('b/$(date +"%H:%M")', "b/04:05"),
        ("$(date +%Y)/$(date +%m)", "2026/11"),
        ("nothing", "nothing"),
    ],
)
def test_dates_are_replaced_and_read_back(text: str, expected: str) -> None:
    """What a time makes is found again by the glob and read by the format."""
    assert expand_dates(text, NOW) == expected
    assert is_dated(text) == (text != expected)
    assert fnmatch.fnmatchcase(expected, date_glob(text))
    parsed = datetime.strptime(expected, date_format(text))  # noqa: DTZ007
    assert parsed.strftime(date_format(text)) == expected


def test_what_looks_like_a_pattern_is_none() -> None:
    """Brackets, stars and percent signs of the path stand for themselves."""
    text = "b[1]*%d/$(date +%d)"
    assert expand_dates(text, NOW) == "b[1]*%d/08"
    assert fnmatch.fnmatchcase("b[1]*%d/08", date_glob(text))
    assert not fnmatch.fnmatchcase("b1xx%d/08", date_glob(text))
    day = datetime.strptime("b[1]*%d/08", date_format(text))  # noqa: DTZ007
    assert day.day == 8
