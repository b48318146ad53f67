"""Fixtures and settings that all tests share.

``HYPOTHESIS_PROFILE`` chooses how many examples are generated: ``quick``, ``ci`` (the
default) or ``thorough``. The first two try the same ones every time, so that a change is
judged by what it does and not by luck; ``thorough`` (``nox -s property``) looks for more.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from support.capturing import make_database
from support.litestream import Litestream, find_litestream

if TYPE_CHECKING:
    from support.servers import S3Server

# The applications under test; one has tests of its own, which are run from outside.
collect_ignore = ["apps"]

# Real files and threads make single examples slow now and then: no deadline.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=20)
settings.register_profile(
    "thorough", settings.get_profile("ci"), max_examples=2000, derandomize=False
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server, one for each process of the test run."""
    from support.servers import start_s3_server

    with start_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def litestream() -> Litestream:
    """The real Litestream, of the version that is pinned."""
    return find_litestream()


# -- a database of an application and its replica; folders and modules may have others ------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "app.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """The application's connection."""
    connection = make_database(path)
    yield connection
    connection.close()


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """Where the replica is."""
    return tmp_path / "replica"
