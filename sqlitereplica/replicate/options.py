"""What is given to a ``Replicator``, checked and brought into one form."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Self, TypeAlias

from sqlitereplica.durations import Duration, parse_duration
from sqlitereplica.events import Observer
from sqlitereplica.policy import Lease, Retention
from sqlitereplica.replicate.mirror import Mirror
from sqlitereplica.replicate.schedule import DEFAULT_LEVELS, parse_levels
from sqlitereplica.sqlite import Connect
from sqlitereplica.store import Replica

__all__ = [
    "Options",
    "ReplicaLike",
    "database_path",
    "replica_values",
    "seconds_of",
]

ReplicaLike: TypeAlias = str | os.PathLike[str] | Replica | Mirror


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions:
    """What becomes of the files of a replica; times in milliseconds."""

    levels: tuple[int, ...] = DEFAULT_LEVELS
    snapshot_interval: int | None = 86_400_000
    amplification: float = 2.0
    retention: Retention = field(default_factory=Retention)
    verify_interval: int | None = None

    @classmethod
    def of(
        cls,
        levels: Iterable[Duration],
        snapshot_interval: Duration | None,
        retention: Retention | Duration | None,
        verify_interval: Duration | None,
    ) -> Self:
        """From what users write; ValueError or TypeError for what makes no sense."""
        return cls(
            levels=parse_levels(levels),
            snapshot_interval=_interval(snapshot_interval, "snapshot_interval"),
            retention=Retention.of(retention),
            verify_interval=_interval(verify_interval, "verify_interval"),
        )

    def for_replica(self, replica: Replica) -> Self:
        """With the replica's own retention, if it has one."""
        if replica.retention is None:
            return self
        return replace(self, retention=Retention.of(replica.retention))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All settings of one Replicator; sizes in bytes, times in seconds."""

    path: str
    replicas: tuple[Replica, ...]
    mirrors: tuple[Mirror, ...] = ()
    connect: Connect
    sync_interval: float
    set_wal: bool
    buffer_size: int
    spool_size: int
    meta_path: Path
    observer: Observer
    history: HistoryOptions
    lease: Lease | None = None
    standby: bool = False

    @property
    def names(self) -> list[str]:
        """What all replicas are called, mirrors too."""
        return [
            *(replica.display_name for replica in self.replicas),
            *(mirror.display_name for mirror in self.mirrors),
        ]

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if any(os.path.realpath(m.pattern) == self.path for m in self.mirrors):
            raise ValueError(f"{self.path} cannot be a mirror of itself")
        places = (replace(r, name=None).display_name for r in self.replicas)
        if any(os.path.realpath(place) == self.path for place in places):
            raise ValueError(
                f"{self.path} cannot be a replica of itself: give a folder for the files"
            )
        if self.standby and self.lease is None:
            raise ValueError("a standby waits for a lease: lease=False excludes it")
        if self.lease is not None and not self.replicas:
            raise ValueError(
                "a lease needs a replica to be in: a mirror cannot hold it"
            )
        if self.lease is not None and any(
            replica.encryption is not None and not replica.encryption.can_read
            for replica in self.replicas
        ):
            raise ValueError(
                "a lease needs replicas that this host can read: give Encryption(...)"
                " identities, or pass lease=False"
            )
        if not self.sync_interval > 0:
            raise ValueError(
                f"sync_interval must be above 0 seconds: {self.sync_interval!r}"
            )
        if self.buffer_size < 1 << 20:
            raise ValueError(
                f"buffer_size must be at least 1 MiB: {self.buffer_size!r} bytes"
            )
        if self.spool_size < 0:
            raise ValueError(
                f"spool_size must not be negative: {self.spool_size!r} bytes"
            )


def _interval(duration: Duration | None, name: str) -> int | None:
    if duration is None:
        return None
    found = parse_duration(duration, name) // timedelta(milliseconds=1)
    if found < 1:
        raise ValueError(f"{name} must be a millisecond at least: {duration!r}")
    return found


def seconds_of(duration: Duration, name: str) -> float:
    """Seconds of a duration that is not negative; ValueError or TypeError for none."""
    return parse_duration(duration, name).total_seconds()


def database_path(db: str | os.PathLike[str]) -> str:
    """The real path of a database file; ValueError for what is none."""
    path = os.fspath(db)
    if not isinstance(path, str):
        raise ValueError(f"db must be a path as text, not bytes: {path!r}")
    if path in ("", ":memory:") or path.startswith("file:"):
        raise ValueError(f"db must be the path of a database file: {path!r}")
    return os.path.realpath(path)


def replica_values(
    replicas: Sequence[ReplicaLike] | ReplicaLike,
) -> tuple[tuple[Replica, ...], tuple[Mirror, ...]]:
    """Replicas and mirrors as values; ValueError if there are none, or two of one name."""
    if isinstance(replicas, (str, os.PathLike, Replica, Mirror)):
        replicas = [replicas]
    if not isinstance(replicas, Iterable):
        raise ValueError(_no_replica(replicas))
    values = [_replica_value(r) for r in replicas]
    if not values:
        raise ValueError("replicas must name at least one destination")
    names = [v.display_name for v in values]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"replicas names {name} twice: if they are two places, give one a name="
            )
    return (
        tuple(v for v in values if isinstance(v, Replica)),
        tuple(v for v in values if isinstance(v, Mirror)),
    )


def _replica_value(replica: ReplicaLike) -> Replica | Mirror:
    if isinstance(replica, Replica | Mirror):
        return replica
    if not isinstance(replica, str | os.PathLike):
        raise ValueError(_no_replica(replica))
    return Replica(replica)


def _no_replica(given: object) -> str:
    return f"a replica is a URL, a folder, a Replica or a Mirror, not {given!r}"
