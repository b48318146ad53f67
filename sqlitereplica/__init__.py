"""Replicate SQLite databases from inside the application, in Litestream's format.

Names are loaded when they are first asked for, so that a program pays for what it uses: who
only restores loads no replicator. What watches for a second copy of SQLite is there at once,
to see every connection that is opened from the import on.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import sqlitereplica.sqlite  # noqa: F401
from sqlitereplica.errors import (
    AnotherWriterError,
    ChecksumMismatchError,
    ConfigError,
    DatabaseStateError,
    DivergedError,
    EncryptionError,
    FollowTimeoutError,
    InvalidFileError,
    JobLostError,
    LeaseHeldError,
    LeaseLostError,
    MixedSQLiteCopiesError,
    NotRestorableError,
    PinExistsError,
    PosMismatchError,
    QueryError,
    ReplicatorClosedError,
    SQLiteReplicaError,
    StoreError,
    SyncTimeoutError,
    TamperedError,
    TargetExistsError,
    VerificationError,
    VerifyStoppedError,
)

if TYPE_CHECKING:
    from sqlitereplica.group import (
        GroupHealth,
        GroupStatus,
        MemberStatus,
        ReplicatorGroup,
    )
    from sqlitereplica.policy import Lease, Retention
    from sqlitereplica.progress import progress
    from sqlitereplica.reading import (
        Branch,
        Diff,
        RowChange,
        SchemaChange,
        branch,
        connect,
        diff,
        replica_uri,
    )
    from sqlitereplica.replicate import (
        Follower,
        FollowerStatus,
        HealthReport,
        LeaseStatus,
        Mirror,
        Position,
        ReplicaStatus,
        Replicator,
        Require,
        Status,
    )
    from sqlitereplica.restore import (
        RestorePoint,
        RestorePoints,
        RestoreResult,
        VerifyReport,
        restore,
        restore_points,
        verify,
    )
    from sqlitereplica.store import Encryption, Pin, Replica

__all__ = [
    "AnotherWriterError",
    "Branch",
    "ChecksumMismatchError",
    "ConfigError",
    "DatabaseStateError",
    "Diff",
    "DivergedError",
    "Encryption",
    "EncryptionError",
    "FollowTimeoutError",
    "Follower",
    "FollowerStatus",
    "GroupHealth",
    "GroupStatus",
    "HealthReport",
    "InvalidFileError",
    "JobLostError",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "LeaseStatus",
    "MemberStatus",
    "Mirror",
    "MixedSQLiteCopiesError",
    "NotRestorableError",
    "Pin",
    "PinExistsError",
    "PosMismatchError",
    "Position",
    "QueryError",
    "Replica",
    "ReplicaStatus",
    "Replicator",
    "ReplicatorClosedError",
    "ReplicatorGroup",
    "Require",
    "RestorePoint",
    "RestorePoints",
    "RestoreResult",
    "Retention",
    "RowChange",
    "SQLiteReplicaError",
    "SchemaChange",
    "Status",
    "StoreError",
    "SyncTimeoutError",
    "TamperedError",
    "TargetExistsError",
    "VerificationError",
    "VerifyReport",
    "VerifyStoppedError",
    "__version__",
    "branch",
    "connect",
    "diff",
    "progress",
    "replica_uri",
    "restore",
    "restore_points",
    "verify",
]

_NAMES = {
    "group": (
        "GroupHealth",
        "GroupStatus",
        "MemberStatus",
        "ReplicatorGroup",
    ),
    "policy": (
        "Lease",
        "Retention",
    ),
    "progress": ("progress",),
    "reading": (
        "Branch",
        "Diff",
        "RowChange",
        "SchemaChange",
        "branch",
        "connect",
        "diff",
        "replica_uri",
    ),
    "replicate": (
        "Follower",
        "FollowerStatus",
        "HealthReport",
        "LeaseStatus",
        "Mirror",
        "Position",
        "ReplicaStatus",
        "Replicator",
        "Require",
        "Status",
    ),
    "restore": (
        "RestorePoint",
        "RestorePoints",
        "RestoreResult",
        "VerifyReport",
        "restore",
        "restore_points",
        "verify",
    ),
    "store": (
        "Encryption",
        "Pin",
        "Replica",
    ),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Look up what was not asked for before; the version, too: metadata are slow to read."""
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Facade(ModuleType):
    """``restore`` and ``progress`` are functions, although submodules have these names.

    An import binds each submodule here, whoever loads it first.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade
