"""For tests of applications that replicate, and of filesystems that hold replicas.

``LTXStoreTests`` needs pytest; the rest does not, so it is only imported when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlitereplica.testing.faults import Fault, Operation, Plan, at, only, since
from sqlitereplica.testing.filesystem import FaultyFileSystem, InjectedError, Record

if TYPE_CHECKING:
    from sqlitereplica.testing.contract import LTXStoreTests

__all__ = [
    "Fault",
    "FaultyFileSystem",
    "InjectedError",
    "LTXStoreTests",
    "Operation",
    "Plan",
    "Record",
    "at",
    "only",
    "since",
]


def __getattr__(name: str) -> Any:
    if name == "LTXStoreTests":
        from sqlitereplica.testing.contract import LTXStoreTests

        return LTXStoreTests
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
