"""HTML for notebooks: a title, a table of names and values, a list of lines.

Nothing but text and style attributes: no script, no style sheet, nothing that is fetched.
Whatever is given is text and is escaped here, since names come from replicas, databases and
errors, which are hostile: no markup, and no characters that are not seen, such as those that
turn the direction of writing. What is shown of one text is bounded: a notebook keeps its
output in its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

__all__ = ["card", "moment_text", "table", "text"]

_GOOD, _BAD = "#15803d", "#dc2626"
_CELL = ' style="text-align:left;padding:1px 12px 1px 0"'
_LONGEST = 2000


def text(value: object) -> str:
    """A value as escaped text of bounded length."""
    full = str(value)
    short = full if len(full) <= _LONGEST else f"{full[: _LONGEST - 3]}..."
    return escape("".join(map(_visible, short)))


def table(rows: Iterable[Sequence[object]], head: Sequence[object] = ()) -> str:
    """A table of values, under the names of its columns if there are any."""
    names = [_row(f"<b>{text(name)}</b>" for name in head)] if head else []
    return _table([*names, *(_row(map(text, row)) for row in rows)])


def card(
    title: object,
    subject: object,
    rows: Iterable[tuple[object, object]] = (),
    *,
    ok: bool | None = None,
    lines: Iterable[object] = (),
    above: str = "",
    below: str = "",
) -> str:
    """Describe one value.

    Args:
        title: What it is, or how it is, in bold; green or red if ``ok`` says so.
        subject: Of what.
        rows: Names and values. Those without a value, None or empty, are left out.
        ok: Whether all is well.
        lines: A list below them.
        above: HTML above the rows; it is not escaped.
        below: HTML below the list, the same.
    """
    colour = "" if ok is None else f' style="color:{_GOOD if ok else _BAD}"'
    shown = [(name, value) for name, value in rows if value not in (None, "")]
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px">'
        f"<div><b{colour}>{text(title)}</b> {text(subject)}</div>{above}"
        + _table(_row((f"<b>{text(name)}</b>", text(value))) for name, value in shown)
        + (f"<ul>{items}</ul>" if items else "")
        + f"{below}</div>"
    )


def moment_text(time: datetime | None) -> str:
    """A time with milliseconds, ``Z`` for UTC; nothing for None."""
    if time is None:
        return ""
    return time.isoformat(" ", "milliseconds").replace("+00:00", "Z")


def _visible(letter: str) -> str:
    if letter.isprintable() or letter == "\n":
        return letter
    return letter.encode("unicode_escape").decode()


def _row(cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<td{_CELL}>{cell}</td>" for cell in cells) + "</tr>"


def _table(rows: Iterable[str]) -> str:
    html = "".join(rows)
    return f'<table style="margin:4px 0">{html}</table>' if html else ""
