"""Replicate SQLite databases from inside the application, in Litestream's format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from sqlitereplica.group import (
        GroupHealth,
        GroupStatus,
        MemberStatus,
        ReplicatorGroup,
    )

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


_GROUP = frozenset({"GroupHealth", "GroupStatus", "MemberStatus", "ReplicatorGroup"})


def __getattr__(name: str) -> Any:
    """Look up only when asked for: the version (metadata are slow to read), and groups."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sqlitereplica")
    if name in _GROUP:
        from sqlitereplica import group

        return getattr(group, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
