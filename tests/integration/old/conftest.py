"""A replica in the layout of Litestream 0.3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.oldreplica import OldReplica


@pytest.fixture
def old(tmp_path: Path) -> Iterator[OldReplica]:
    """A database and its old replica, in which nothing is yet."""
    made = OldReplica(tmp_path)
    yield made
    made.close()
