"""A replica, and a Replicator stepped by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stepping import Stepped
from support.told import MakeStepped, ToldStore


@pytest.fixture
def store(tmp_path: Path) -> ToldStore:
    """The replica."""
    return ToldStore.open(tmp_path / "replica")


@pytest.fixture
def make(path: Path, store: ToldStore) -> Iterator[MakeStepped]:
    """Makes stepped replicators that are closed at the end."""
    made = []

    def make_one(**options: object) -> Stepped:
        stepped = Stepped(path, [lambda: store], **options)  # type: ignore[arg-type]
        made.append(stepped)
        return stepped

    yield make_one
    for stepped in made:
        stepped.engine.close()
