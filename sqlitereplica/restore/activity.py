"""How much changed when: what restore points say of it, and a plot of that.

Each point adds the transactions since the one before and the bytes of the smallest file of
changes that leads to it. Snapshots hold the database and not changes, so they add none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlitereplica.ltx import FileInfo
from sqlitereplica.sizes import size_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sqlitereplica.restore.points import RestorePoint, RestorePoints

__all__ = ["Step", "plot_activity", "steps_of"]

_STEPS = 60
_SHORTEST = timedelta(milliseconds=1)
_BLUE, _AMBER = "#3b82f6", "#f59e0b"


class Step(NamedTuple):
    """What changed in one of many spans of time of the same length."""

    start: datetime
    transactions: int
    bytes: int


def steps_of(
    points: Sequence[RestorePoint], files: Iterable[FileInfo], count: int = _STEPS
) -> tuple[timedelta, list[Step]]:
    """Return the length of a step, and all steps from the first point to the last."""
    if not points:
        return _SHORTEST, []
    first = points[0].time
    length = max((points[-1].time - first) / count, _SHORTEST)
    transactions, sizes = [0] * count, [0] * count
    changes = _changes(files)
    for point in points:
        step = min((point.time - first) // length, count - 1)
        transactions[step] += point.txid - point.min_txid + 1
        sizes[step] += changes.get(point.txid, 0)
    return length, [
        Step(first + step * length, transactions[step], sizes[step])
        for step in range(count if points[-1].time > first else 1)
    ]


def _changes(files: Iterable[FileInfo]) -> dict[int, int]:
    """The bytes of the smallest file of changes by the transaction that it ends with."""
    smallest: dict[int, int] = {}
    for file in files:
        if not file.is_snapshot:
            size = smallest.get(file.max_txid, file.size)
            smallest[file.max_txid] = min(size, file.size)
    return smallest


def plot_activity(
    points: RestorePoints, files: Iterable[FileInfo], ax: Axes | None
) -> Axes:
    """Draw bytes as bars, and transactions as dots on a second scale."""
    try:
        from matplotlib import dates, pyplot
    except ImportError as error:
        raise ImportError("plot() needs matplotlib: pip install matplotlib") from error
    length, steps = steps_of(points, files)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(9, 3), layout="constrained")
    _draw(ax, dates, length, steps)
    # Names come from a replica: they are no formulas.
    ax.set_title(f"Activity of {points.replica}", parse_math=False)
    return ax


def _draw(ax: Any, dates: Any, length: timedelta, steps: Sequence[Step]) -> None:
    """Draw steps; the types of matplotlib are partial, so there are none here."""
    starts, sizes = [s.start for s in steps], [s.bytes for s in steps]
    ax.bar(starts, sizes, length, align="edge", color=_BLUE, alpha=0.7)
    ax.yaxis.set_major_formatter(lambda size, _: size_text(max(0, round(size))))
    ax.set_ylabel("bytes of changes", color=_BLUE)
    busy = [step for step in steps if step.transactions]
    middles = [step.start + length / 2 for step in busy]
    second = ax.twinx()
    second.plot(middles, [step.transactions for step in busy], "o", color=_AMBER)
    second.set_ylim(bottom=0)
    second.yaxis.get_major_locator().set_params(integer=True)
    second.set_ylabel("transactions", color=_AMBER)
    locator = dates.AutoDateLocator()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
