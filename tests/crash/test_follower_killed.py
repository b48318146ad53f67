"""A follower that is killed leaves a database that any SQLite puts right by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sqlitereplica

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def test_kill_at_every_call_that_writes_leaves_the_old_state_or_the_new_one(
    tmp_path: Path,
) -> None:
    """SIGKILL before and after each one, two readers at work: no mixture, no repair."""
    package = str(Path(sqlitereplica.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-m", "support.plain_killed", str(tmp_path), "2"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": package},
        check=True,
        stdout=subprocess.PIPE,
        timeout=250,
    )
    seen = json.loads(done.stdout)
    assert seen["kills"] > 80
    assert seen["old"] > 0 and seen["new"] > 0
    assert seen["follow"] > 50
    assert seen["reads"] > 100 and seen["states"] > 2
