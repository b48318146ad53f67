"""Prometheus's own checker of rules, and a real scrape as what it takes for input."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.samples import Sample

__all__ = ["alerts_of", "check_rules", "expressions_of", "firing", "run_rule_tests"]

_HALF_AN_HOUR = 30
_SCRAPED_AS = {"job": "app", "instance": "localhost:9090"}


def _promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool: Debian's package prometheus has it")
    words = [program, *map(str, arguments)]
    return subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=120
    )


def check_rules(path: Path) -> subprocess.CompletedProcess[str]:
    """Parse a file of rules, all expressions included."""
    return _promtool("check", "rules", path)


def run_rule_tests(path: Path) -> subprocess.CompletedProcess[str]:
    """Run a file of unit tests of rules."""
    return _promtool("test", "rules", path)


def alerts_of(rules: Path) -> dict[str, str]:
    """Expression by name of the alert."""
    groups = yaml.safe_load(rules.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def expressions_of(dashboard: Path) -> list[str]:
    """All expressions of a dashboard of Grafana, its variables replaced."""
    panels = json.loads(dashboard.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [e.replace("$__rate_interval", "5m").replace("$db", ".*") for e in found]


def firing(
    rules: Path, samples: Iterable[Sample], expected: Mapping[str, int], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Whether just these alerts fire when every scrape of half an hour is like this one."""
    want: list[Any] = [
        {"labels": f'{{alertname="{name}"}}', "value": count}
        for name, count in expected.items()
    ]
    test = {
        "interval": "1m",
        "input_series": [_steady(sample) for sample in samples],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{_HALF_AN_HOUR}m",
                "exp_samples": want,
            }
        ],
    }
    path = folder / "scrape_test.yml"
    path.write_text(json.dumps({"rule_files": [str(rules)], "tests": [test]}))
    return run_rule_tests(path)


def _steady(sample: Sample) -> dict[str, str]:
    pairs = {**sample.labels, **_SCRAPED_AS}.items()
    labels = ", ".join(f"{key}={json.dumps(value)}" for key, value in pairs)
    series = f"{sample.name}{{{labels}}}"
    return {"series": series, "values": f"{sample.value:.6f}x{_HALF_AN_HOUR}"}
