"""Restore points for people: a few lines of text, or a table with a drawing.

The drawing is SVG by itself: no script, no style sheet, nothing that is fetched. Names come
from a replica and its listing, so everything that is not a number is escaped. Its size
does not depend on how many points there are: they are counted in columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlitereplica.ltx import SNAPSHOT_LEVEL
from sqlitereplica.markup import card, moment_text, table
from sqlitereplica.sizes import size_text
from sqlitereplica.store import Pin
from sqlitereplica.store.reach import to_datetime

if TYPE_CHECKING:
    from sqlitereplica.restore.points import RestorePoint, RestorePoints

__all__ = ["describe_html", "describe_text"]

_MOST_LISTED = 5
_NEWEST = 10

# -- the drawing, in pixels --------------------------------------------------------------
_WIDTH, _HEIGHT, _MARGIN = 720, 108, 8
_COLUMN = 4
_TOP, _AXIS = 24, 78
_MOST_FLAGS = 50
_LETTER_WIDTH = 7
_BLUE, _AMBER, _RED, _VIOLET = "#3b82f6", "#f59e0b", "#ef4444", "#8b5cf6"

_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
_STEPS = (
    *(n for decade in (1, 10, 100) for n in (decade, 2 * decade, 5 * decade)),
    *(_SECOND * n for n in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 30, 91, 182, 365)),
    *(_DAY * 365 * n for n in (2, 5, 10, 50, 100, 500, 1000, 5000)),
)
_MOST_TICKS = 6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def describe_text(points: RestorePoints) -> str:
    """A summary of a few lines."""
    lines = [f"RestorePoints of {points.replica}"]
    lines += [f"  {name + ':':<10}{text}" for name, text in _summary(points)]
    return "\n".join(lines)


def describe_html(points: RestorePoints) -> str:
    """The summary as a table, with a drawing and the newest points."""
    drawing = _timeline(points) + _legend(points) if points else ""
    return card(
        "Restore points",
        f"of {points.replica}",
        _summary(points),
        above=drawing,
        below=_newest(points),
    )


# -- what is said ------------------------------------------------------------------------


def _summary(points: RestorePoints) -> Iterator[tuple[str, str]]:
    """Yield names and texts, neither of them escaped."""
    first, last = points.earliest, points.latest
    if first is None or last is None:
        yield "points", "none"
    else:
        count = f"{len(points):,} of transactions {first.txid} to {last.txid}"
        yield "points", count if len(points) > 1 else f"1, of transaction {last.txid}"
        yield "window", f"{_duration(points.window)}, {_time(first)} to {_time(last)}"
        fetched = f"{size_text(last.bytes_to_fetch)} in {_count(last.files, 'file')}"
        yield "restore", f"of the newest fetches {fetched}"
    total = f"{size_text(points.total_bytes)} in {_count(points.total_files, 'file')}"
    yield "replica", total
    if points.database_size is not None:
        yield "database", size_text(points.database_size)
    lost = {pin.name for pin in points.lost_pins}
    if points.pins:
        yield "pins", _listed(_pin_text(pin, pin.name in lost) for pin in points.pins)
    if points.damaged_pins:
        yield "damaged", f"pins that cannot be read: {_listed(points.damaged_pins)}"
    if points.gaps:
        yield "gaps", _listed(map(str, points.gaps)) + ": files are missing"


def _pin_text(pin: Pin, is_lost: bool) -> str:
    lost = ", files are missing" if is_lost else ""
    return f"{pin.name} (transaction {pin.txid}{lost})"


def _listed(texts: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    found = list(texts)
    more = len(found) - _MOST_LISTED
    return ", ".join(found[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _duration(span: timedelta) -> str:
    """The two greatest units."""
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {int(seconds) % 60} s"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{_count(hours // 24, 'day')} {hours % 24} h"


def _time(point: RestorePoint) -> str:
    return moment_text(point.time)


def _newest(points: RestorePoints) -> str:
    """The newest points as a table that can be opened."""
    if not points:
        return ""
    head = ("txid", "time", "level", "fetches", "files", "pins")
    rows = [
        (
            point.txid,
            _time(point),
            point.level,
            size_text(point.bytes_to_fetch),
            f"{point.files:,}",
            _listed(point.pins),
        )
        for point in reversed(points[-_NEWEST:])
    ]
    title = f"The newest {len(rows)}" if len(rows) > 1 else "The newest"
    return f"<details><summary>{title}</summary>{table(rows, head)}</details>"


# -- what is drawn -----------------------------------------------------------------------


class _Axis:
    """Time from left to right, in milliseconds and pixels."""

    def __init__(self, first: datetime, last: datetime) -> None:
        self.start, self.end = _ms(first), _ms(last)
        if self.start == self.end:
            self.start, self.end = self.start - _SECOND, self.end + _SECOND

    def x(self, time: datetime) -> float:
        """Where a time is."""
        return self.at(_ms(time))

    def at(self, ms: int) -> float:
        """Where a number of milliseconds since the epoch is."""
        share = (ms - self.start) / (self.end - self.start)
        return round(_MARGIN + share * (_WIDTH - 2 * _MARGIN), 1)

    def ticks(self) -> Iterator[tuple[int, str]]:
        """Yield round times and how to write them."""
        span = self.end - self.start
        step = next((s for s in _STEPS if span // s < _MOST_TICKS), _STEPS[-1])
        form = "%Y-%m-%d" if step >= _DAY else "%m-%d %H:%M"
        if step < _MINUTE:
            form = "%H:%M:%S"
        for ms in range(-(-self.start // step) * step, self.end + 1, step):
            text = to_datetime(ms).strftime(form)
            yield ms, text + (f".{ms % _SECOND:03}" if step < _SECOND else "")


def _ms(time: datetime) -> int:
    return (time - _EPOCH) // _MILLISECOND


def _timeline(points: RestorePoints) -> str:
    axis = _Axis(points[0].time, points[-1].time)
    parts = [
        *_draw_gaps(points, axis),
        *_draw_columns(points, axis),
        *_draw_axis(axis),
        *_draw_snapshots(points, axis),
        *_draw_flags(points, axis),
    ]
    label = f"{_count(len(points), 'restore point')} over {_duration(points.window)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
        ' style="display:block;max-width:100%;margin:6px 0"'
        f' font-family="system-ui,sans-serif" font-size="11">{"".join(parts)}</svg>'
    )


def _legend(points: RestorePoints) -> str:
    """Say what the colours mean, of those that are there."""
    signs = [("&#9646;", _BLUE, "points"), ("&#9670;", _AMBER, "snapshots")]
    if any(point.pins for point in points):
        signs.append(("&#9679;", _VIOLET, "pins"))
    if points.gaps:
        signs.append(("&#9646;", _RED, "files are missing"))
    items = (f'<span style="color:{c}">{sign}</span> {text}' for sign, c, text in signs)
    return f'<div style="font-size:11px;opacity:.8">{" &ensp;".join(items)}</div>'


def _draw_columns(points: RestorePoints, axis: _Axis) -> Iterator[str]:
    """Draw how many points there are where, on a logarithmic scale."""
    columns: dict[int, list[RestorePoint]] = {}
    for point in points:
        columns.setdefault(int(axis.x(point.time)) // _COLUMN, []).append(point)
    most = max(map(len, columns.values())).bit_length()
    for column, members in columns.items():
        share = 0.4 + 0.6 * len(members).bit_length() / most
        height = round(share * (_AXIS - _TOP - 4), 1)
        yield (
            f'<rect x="{column * _COLUMN}" y="{_AXIS - height}" width="{_COLUMN - 1}"'
            f' height="{height}" rx="1" fill="{_BLUE}">'
            f"<title>{escape(_members(members))}</title></rect>"
        )


def _members(members: Sequence[RestorePoint]) -> str:
    first, last = members[0], members[-1]
    if first is last:
        return f"transaction {first.txid}, {_time(first)}"
    levels = Counter(point.level for point in members)
    return (
        f"{len(members):,} points, transactions {first.txid} to {last.txid},"
        f" {_time(first)} to {_time(last)}, levels"
        f" {', '.join(str(level) for level in sorted(levels))}"
    )


def _draw_axis(axis: _Axis) -> Iterator[str]:
    yield (
        f'<path d="M{_MARGIN} {_AXIS + 0.5}H{_WIDTH - _MARGIN}" stroke="currentColor"'
        ' stroke-opacity=".4"/>'
    )
    for ms, text in axis.ticks():
        x = axis.at(ms)
        anchor = "start" if x < 40 else "end" if x > _WIDTH - 40 else "middle"
        yield (
            f'<path d="M{x} {_AXIS}v5" stroke="currentColor" stroke-opacity=".4"/>'
            f'<text x="{x}" y="{_HEIGHT - 6}" text-anchor="{anchor}"'
            f' fill="currentColor" fill-opacity=".7">{text}</text>'
        )


def _draw_snapshots(points: RestorePoints, axis: _Axis) -> Iterator[str]:
    """Mark where full images are, one for each column at most."""
    marks: dict[int, list[RestorePoint]] = {}
    for point in points:
        if point.level == SNAPSHOT_LEVEL:
            column = int(axis.x(point.time)) // (2 * _COLUMN)
            marks.setdefault(column, []).append(point)
    for members in marks.values():
        x = axis.x(members[0].time)
        yield (
            f'<path d="M{x} {_AXIS - 4}l4 4l-4 4l-4 -4z" fill="{_AMBER}">'
            f"<title>snapshot: {escape(_members(members))}</title></path>"
        )


def _draw_flags(points: RestorePoints, axis: _Axis) -> Iterator[str]:
    """Mark pins above the columns; a name is written where there is room for it."""
    pinned = [point for point in points if point.pins][-_MOST_FLAGS:]
    places = pairwise([*(axis.x(point.time) for point in pinned), _WIDTH + 7.0])
    taken = 0.0
    for point, (x, following) in zip(pinned, places, strict=True):
        name = _listed(point.pins)
        yield (
            f'<path d="M{x} {_AXIS}V{_TOP - 8}" stroke="{_VIOLET}"/>'
            f'<circle cx="{x}" cy="{_TOP - 10}" r="4" fill="{_VIOLET}">'
            f"<title>{escape(name)}: {escape(_members([point]))}</title></circle>"
        )
        width = len(name) * _LETTER_WIDTH
        fits_right = x + 7 + width <= following - 7
        if fits_right or taken <= x - 7 - width:
            at, anchor = (x + 7, "start") if fits_right else (x - 7, "end")
            yield (
                f'<text x="{at:.1f}" y="{_TOP - 6}" text-anchor="{anchor}"'
                f' fill="currentColor">{escape(name)}</text>'
            )
        taken = x + 7 + (width + 7 if fits_right else 0)


def _draw_gaps(points: RestorePoints, axis: _Axis) -> Iterator[str]:
    """Shade what cannot be restored, from the point before to the one after."""
    edge = float(_WIDTH - _MARGIN)
    shades: dict[tuple[int, int], str] = {}
    for gap in points.gaps:
        left = right = axis.x(points.find(gap.min_txid - 1).time)
        if gap.max_txid < points[-1].txid:
            right = axis.x(points.find(gap.max_txid + 1).time)
        left = min(left, edge - _COLUMN)
        right = max(right, left + _COLUMN)
        shade = (
            f'<rect x="{left}" y="{_TOP}" width="{round(right - left, 1)}"'
            f' height="{_AXIS - _TOP}" fill="{_RED}" fill-opacity=".25">'
            f"<title>{gap}: files are missing</title></rect>"
        )
        shades.setdefault((int(left), int(right)), shade)
    yield from shades.values()
