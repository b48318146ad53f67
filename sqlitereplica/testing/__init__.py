"""For tests of applications that replicate, and of filesystems that hold replicas.

``LTXStoreTests`` needs pytest; the rest does not, so it is only imported when asked for.
The fixtures are in ``_sqlitereplica_pytest.py``, which pytest finds by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlitereplica.testing.clock import SteppingClock
from sqlitereplica.testing.database import ReplicatedDatabase
from sqlitereplica.testing.faults import Fault, Operation, Plan, at, only, since
from sqlitereplica.testing.filesystem import FaultyFileSystem, InjectedError, Record
from sqlitereplica.testing.ltxfile import LTXFile, image_of
from sqlitereplica.testing.stepped import SteppedReplicator
from sqlitereplica.testing.stores import FaultyStore, MemoryStore

if TYPE_CHECKING:
    from sqlitereplica.testing.contract import LTXStoreTests

__all__ = [
    "Fault",
    "FaultyFileSystem",
    "FaultyStore",
    "InjectedError",
    "LTXFile",
    "LTXStoreTests",
    "MemoryStore",
    "Operation",
    "Plan",
    "Record",
    "ReplicatedDatabase",
    "SteppedReplicator",
    "SteppingClock",
    "at",
    "image_of",
    "only",
    "since",
]


def __getattr__(name: str) -> Any:
    if name == "LTXStoreTests":
        from sqlitereplica.testing.contract import LTXStoreTests

        return LTXStoreTests
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
