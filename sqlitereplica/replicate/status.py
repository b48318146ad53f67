"""What ``Replicator.status()`` answers: frozen values, safe to keep and to log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlitereplica.replicate.drill import VerifySummary

__all__ = ["LeaseStatus", "ReplicaStatus", "Status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One replica."""

    name: str
    """Its URL, without secrets."""
    state: str
    """``connecting``, ``comparing``, ``catching-up``, ``streaming`` or ``failed``."""
    txid: int
    """The newest transaction that it holds for certain; 0 for none yet."""
    lag_seconds: float
    """Age of the oldest change that it does not hold yet; 0.0 when it has all."""
    last_success: datetime | None
    """When it last confirmed anything."""
    error: str | None
    """What fails at present; None when nothing does."""
    spool_bytes: int
    """Captured bytes that wait for it, in memory and on disk."""
    history_error: str | None = None
    """What keeps compaction, snapshots or retention from working; None when nothing does."""
    last_snapshot: datetime | None = None
    """When this process last made a snapshot."""
    last_verify: VerifySummary | None = None
    """How the last drill ended; None before the first, and without ``verify_interval``."""
    last_repair: str | None = None
    """Which file this process last found damaged or gone, and how it was healed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStatus:
    """The lease, as this host knows it."""

    replica: str
    """Where it is: the first replica."""
    state: str
    """``waiting`` (another host has it), ``held``, ``unconfirmed`` (held, but it could not
    be renewed in time: nothing is uploaded), ``lost``, ``released`` or ``unsupported``."""
    epoch: int
    """The number of this host's turn; 0 before the first."""
    holder: str | None
    """Who has it, as ``host:pid``; None when it is free, or nobody knows."""
    error: str | None
    """What keeps it from being read or renewed, or the store from having one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A Replicator at one moment."""

    database: str
    state: str
    """``stopped``, ``waiting`` (no database yet), ``attaching``, ``running``, ``failed``,
    ``standby`` (another host has the lease), or ``electing``: no process of this host
    replicates at present, or it does not answer."""
    txid: int
    """The newest transaction that any replica holds."""
    error: str | None
    """What keeps capture, or its checkpoints, from working; None when nothing does."""
    pending_pages: int
    """Pages captured since the last increment was made."""
    replicas: tuple[ReplicaStatus, ...]
    pid: int = 0
    """The process that replicates, which may be another; 0 when none is known."""
    lease: LeaseStatus | None = None
    """None without ``lease=``."""

    def to_json(self) -> bytes:
        """The fields as one JSON object, for a health endpoint; times in RFC 3339."""
        import msgspec

        return msgspec.json.encode(self)

    @property
    def ok(self) -> bool:
        """True when the database is captured and every replica keeps up.

        Of a standby: when it follows.
        """
        if self.state == "standby" and self.lease is not None:
            return (self.error, self.lease.error) == (None, None)
        return (self.state, self.error) == ("running", None) and all(
            (r.state, r.error, r.history_error) == ("streaming", None, None)
            for r in self.replicas
        )
