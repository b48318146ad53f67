"""The pytest plugin: fixtures for tests of applications that replicate.

pytest imports this module at the start of every test run in an environment in which
sqlitereplica is installed. It is no module of the package since that would import the
package; a run that uses none of the fixtures pays for this file only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from sqlitereplica.testing import FaultyStore, MemoryStore, ReplicatedDatabase

__all__ = ["faulty_store", "replica_store", "replicated_db", "replicated_db_options"]


@pytest.fixture
def replica_store() -> MemoryStore:
    """A replica in memory, empty, for this test alone."""
    from sqlitereplica.testing import MemoryStore

    return MemoryStore()


@pytest.fixture
def faulty_store() -> FaultyStore:
    """A replica in memory that fails as its ``plan`` says; at first it does not."""
    from sqlitereplica.testing import FaultyStore

    return FaultyStore()


@pytest.fixture
def replicated_db_options() -> dict[str, Any]:
    """Arguments for the Replicator of ``replicated_db``; override it to give some."""
    return {}


@pytest.fixture
def replicated_db(
    tmp_path: Path, replica_store: MemoryStore, replicated_db_options: dict[str, Any]
) -> Iterator[ReplicatedDatabase]:
    """A database in ``tmp_path`` that is being replicated to ``replica_store``."""
    from sqlitereplica.testing import ReplicatedDatabase

    with ReplicatedDatabase(
        tmp_path, replica_store, **replicated_db_options
    ) as database:
        yield database
