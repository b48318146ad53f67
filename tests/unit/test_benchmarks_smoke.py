"""The benchmarks run: tiny sizes, every workload, every figure a number."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.interop]


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="only in the repository")
@pytest.mark.parametrize(
    ("names", "systems"),
    [
        (
            "commits lag idle snapshot bulk restore verify resume sync",
            "none,litestream,ours",
        ),
        ("compaction delta", "none,litestream,ours"),
        ("folders", "litestream,ours"),
        pytest.param("remote waiters", "ours", marks=pytest.mark.s3),
        pytest.param("readers", "none,litestream,ours", marks=pytest.mark.s3),
    ],
)
def test_workloads_measure_ours_and_the_others(
    tmp_path: Path, names: str, systems: str
) -> None:
    """One round of each ends well and gives finite figures for each system."""
    results = tmp_path / "results.json"
    tiny = ["--size=1", "--seconds=0.1", "--rounds=1", "--many=2", "--files=3"]
    tiny += [*names.split(), f"--systems={systems}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *tiny, f"--json={results}"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(results.read_text())
    rows = printed["rows"]
    assert {row["system"] for row in rows} == set(systems.split(","))
    workloads = {"readers": "reading follow"}.get(names, names).split()
    assert {row["workload"] for row in rows} == set(workloads)
    for row in rows:
        assert row["figures"], row
        assert all(math.isfinite(value) for value in row["figures"].values()), row
    assert "| ours | litestream | none |" in done.stdout
    assert {case.partition(":")[0] for case in printed["medians"]} == set(workloads)
