"""Figures of several rounds, as a table of medians with ratios, and as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.context import Figures

_Medians = dict[str, dict[str, dict[str, float]]]
"""By "workload: case", figure and system."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one system did in one case of a workload in one round."""

    workload: str
    case: str
    system: str
    round: int
    figures: Figures


def medians(rows: Iterable[Row]) -> _Medians:
    """The median over all rounds of every figure."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.figures.items():
            values[f"{row.workload}: {row.case}", name, row.system].append(value)
    found: _Medians = {}
    for (case, name, system), numbers in values.items():
        found.setdefault(case, {}).setdefault(name, {})[system] = median(numbers)
    return found


def table(rows: Iterable[Row]) -> str:
    """All figures side by side, as Markdown."""
    lines = []
    for case, figures in medians(rows).items():
        lines += [
            f"### {case}",
            "",
            "| figure | ours | litestream | none | ours/litestream | ours/none |",
            "|---|---|---|---|---|---|",
        ]
        for name, by_system in figures.items():
            ours, theirs, none = map(by_system.get, ("ours", "litestream", "none"))
            cells = [*map(_number, (ours, theirs, none))]
            cells += [_ratio(ours, theirs), _ratio(ours, none)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value is not None and base else "–"


def _with_ratios(by_system: Mapping[str, float]) -> Mapping[str, float]:
    """One figure of all systems, and ours as a multiple of each other's."""
    ours = by_system.get("ours")
    return dict(by_system) | {
        f"ours/{name}": ours / value
        for name, value in by_system.items()
        if name != "ours" and ours is not None and value
    }


def write_json(path: Path, rows: Iterable[Row], about: Mapping[str, object]) -> None:
    """All rows, medians with ratios, and what was measured with what."""
    rows = list(rows)
    data = {
        "about": about,
        "medians": {
            case: {name: _with_ratios(found) for name, found in figures.items()}
            for case, figures in medians(rows).items()
        },
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(data, indent=1) + "\n")
