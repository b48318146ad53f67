"""Whoever promotes a followed file may be killed at any point: it is begun again and ends.

``SEED`` replays which calls were chosen.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sqlitereplica

if TYPE_CHECKING:
    from support.servers import S3Server

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SEED = os.environ.get("SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"


def promote_killed(folder: Path, replicas: str, most: str, **env: str) -> None:
    """Run the program; it did what it should."""
    print(f"SEED={SEED}")
    package = str(Path(sqlitereplica.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-m", "support.promote_killed", folder, replicas, most, SEED],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **env, "PYTHONPATH": package},
        check=True,
        stdout=subprocess.PIPE,
        timeout=1800,
    )
    seen = json.loads(done.stdout)
    assert seen["kills"] > 0 and seen["held"] > 0, seen


def test_promotion_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    """At some calls, and just before the end, where the file was given away already."""
    promote_killed(tmp_path, str(tmp_path / "replicas" / "{}"), "6")


@pytest.mark.s3
def test_promotion_that_was_killed_on_s3_is_begun_again(
    tmp_path: Path, s3_server: S3Server
) -> None:
    """Before and after requests, too."""
    url = s3_server.url(s3_server.make_bucket(), "some/{}")
    promote_killed(tmp_path, url, "1", **s3_server.environment)


@pytest.mark.torture
def test_promotion_that_was_killed_anywhere_is_begun_again(tmp_path: Path) -> None:
    """At every call that changes a name or a file."""
    promote_killed(tmp_path, str(tmp_path / "replicas" / "{}"), "all")


@pytest.mark.torture
@pytest.mark.s3
def test_promotion_that_was_killed_anywhere_on_s3_is_begun_again(
    tmp_path: Path, s3_server: S3Server
) -> None:
    """At those, and before and after every request."""
    url = s3_server.url(s3_server.make_bucket(), "some/{}")
    promote_killed(tmp_path, url, "all", **s3_server.environment)
