"""Variables and dates in the texts of a configuration. Pure.

``$NAME`` and ``${NAME}`` are variables, ``${NAME:-default}`` has a default for one that is
not set or empty, ``$PID`` is the process, ``$$`` is a dollar. ``$(date +FORMAT)`` is the date
by strftime, in local time as the shell's; no shell is run and no other command is known.

Litestream replaces variables in the text of the file, before YAML sees it, and has no escape
for a dollar. Here each value is replaced after YAML has read it, so that a secret with ``#``,
``:`` or a quote stays what it is. A dollar before anything else is left alone, as in
``pa$!word``, where Litestream would drop it.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from datetime import datetime

__all__ = [
    "ExpandError",
    "date_format",
    "date_glob",
    "expand",
    "expand_dates",
    "is_dated",
]

_TOKEN = re.compile(
    r"\$(?:(?P<dollar>\$)"
    r"|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<date>\(date \+(?P<quote>['\"]?)(?P<format>[^)]*?)(?P=quote)\))"
    r"|(?P<bad>[({]))"
)
_DATE = re.compile(r"\$\(date \+(['\"]?)([^)]*?)\1\)")
_SHORT = {"%F": "%Y-%m-%d", "%T": "%H:%M:%S", "%R": "%H:%M", "%D": "%m/%d/%y"}
_LONG = re.compile("|".join(_SHORT))


class ExpandError(ValueError):
    """A text that cannot be expanded; the message shows no value of a variable."""


def expand(text: str, env: Mapping[str, str], *, pid: int) -> str:
    """Replace variables; dates are left for ``expand_dates``, as they change.

    Raises:
        ExpandError: ``${`` or ``$(`` begins something that is not known.
    """

    def replace(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["date"]:
            return match[0]
        if match["bad"]:
            raise ExpandError(
                f"what begins with {match[0]!r} is not understood: known are ${{NAME}},"
                " ${NAME:-default} and $(date +FORMAT); a dollar is written $$"
            )
        name = match["braced"] or match["name"]
        value = str(pid) if name == "PID" and name not in env else env.get(name, "")
        default = match["default"]
        return default[2:] if default and not value else value

    return _TOKEN.sub(replace, text)


def is_dated(text: str) -> bool:
    """Whether a text has a date in it, and so changes."""
    return _DATE.search(text) is not None


def expand_dates(text: str, now: datetime) -> str:
    """Replace ``$(date +FORMAT)`` by a time."""
    return _DATE.sub(lambda match: now.strftime(match[2]), text)


def date_format(text: str) -> str:
    """The format with which ``datetime.strptime`` reads the date back from a text."""
    parts, end = [], 0
    for match in _DATE.finditer(text):
        parts.append(text[end : match.start()].replace("%", "%%"))
        parts.append(_LONG.sub(lambda short: _SHORT[short[0]], match[2]))
        end = match.end()
    parts.append(text[end:].replace("%", "%%"))
    return "".join(parts)


def date_glob(text: str) -> str:
    """The glob that finds what a text was on any day; the rest is taken as it is."""
    parts, end = [], 0
    for match in _DATE.finditer(text):
        parts += [glob.escape(text[end : match.start()]), "*"]
        end = match.end()
    return "".join([*parts, glob.escape(text[end:])])
