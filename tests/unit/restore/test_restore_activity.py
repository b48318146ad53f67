"""How much changed when: what is counted, and that it is drawn."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.activity import Step, steps_of
from sqlitereplica.restore.points import RestorePoints, points_of
from sqlitereplica.store.reach import reach, to_datetime

START = 1_700_000_000_000
FILES = (
    FileInfo(9, 1, 1, 5000, START),
    FileInfo(0, 2, 2, 10, START + 1000),
    FileInfo(0, 3, 3, 20, START + 2000),
    FileInfo(1, 2, 3, 25, START + 2000),  # holds what the two before hold
    FileInfo(2, 4, 7, 40, START + 10_000),  # four that were merged
    FileInfo(9, 1, 7, 6000, START + 10_000),
)


def listed(files: Sequence[FileInfo], name: str = "replica") -> RestorePoints:
    """The points of a listing that was made up."""
    return points_of(name, files, reach(files), (), database_size=4096)


@pytest.fixture
def no_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Figures that are drawn in memory, and closed."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def test_changes_are_counted_once_and_snapshots_are_none() -> None:
    """Each transaction once, by the smallest file; at the time of the point."""
    length, steps = steps_of(listed(FILES), FILES, count=5)
    assert length == timedelta(seconds=2)
    assert steps == [
        Step(to_datetime(START), 2, 10),
        Step(to_datetime(START + 2000), 1, 20),
        Step(to_datetime(START + 4000), 0, 0),
        Step(to_datetime(START + 6000), 0, 0),
        Step(to_datetime(START + 8000), 4, 40),
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_every_transaction_is_in_one_step(count: int) -> None:
    """Sums are those of the listing, however many points there are."""
    files = [FileInfo(0, n, n, 7, START + 333 * n) for n in range(1, count + 1)]
    _, steps = steps_of(listed(files), files)
    assert sum(step.transactions for step in steps) == count
    assert sum(step.bytes for step in steps) == 7 * max(0, count - 1)
    assert len(steps) <= 60


@pytest.mark.usefixtures("no_window")
def test_plot_shows_bytes_and_transactions() -> None:
    """Bars and dots of what was counted, under the name of the replica."""
    ax = listed(FILES, name="a $x^$ name").plot()
    heights = [bar.get_height() for bar in ax.patches]
    assert sum(heights) == 70 and max(heights) == 40
    (_, second) = ax.figure.axes
    (line,) = second.get_lines()
    assert sum(line.get_ydata()) == 7
    assert ax.get_title() == "Activity of a $x^$ name"
    ax.figure.savefig(image := io.BytesIO(), format="png")
    assert image.getvalue().startswith(b"\x89PNG")


@pytest.mark.usefixtures("no_window")
@pytest.mark.parametrize("end", [None, START, START + 1, START + 10**12])
def test_any_span_of_time_is_drawn(end: int | None) -> None:
    """Nothing, a moment, a millisecond, decades: into the axes that are given."""
    from matplotlib import pyplot

    files = [FileInfo(0, 1, 1, 1, START), FileInfo(0, 2, 2, 1, end or START)]
    figure, ax = pyplot.subplots()
    assert listed(files if end else []).plot(ax) is ax
    figure.savefig(io.BytesIO(), format="png")


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no dependency."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        listed(FILES).plot()
