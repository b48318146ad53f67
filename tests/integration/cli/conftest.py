"""What tests of the command line share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A short one: the path of a socket has at most 107 bytes."""
    folder = tempfile.mkdtemp(prefix="sr-")
    yield f"{folder}/s"
    shutil.rmtree(folder)
