"""What ``Replicator.status()`` answers: frozen values, safe to keep and to log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlitereplica.markup import card, moment_text, table
from sqlitereplica.replicate.drill import VerifySummary
from sqlitereplica.sizes import size_text

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

    @property
    def ok(self) -> bool:
        """True when it gets every change and nothing fails."""
        found = self.state, self.error, self.history_error
        return found == ("streaming", None, None)

    def _repr_html_(self) -> str:
        """For notebooks."""
        drill = self.last_verify
        verified, problem = (drill.at, drill.problem) if drill else (None, None)
        return card(
            self.state,
            self.name,
            [
                ("transaction", self.txid),
                ("lag", f"{self.lag_seconds:.3g} s"),
                ("last success", moment_text(self.last_success)),
                ("waiting", size_text(self.spool_bytes)),
                ("last snapshot", moment_text(self.last_snapshot)),
                ("last verified", moment_text(verified)),
                ("last repair", self.last_repair),
            ],
            ok=self.ok,
            lines=_problems(self.error, self.history_error, problem),
        )


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

    def _repr_html_(self) -> str:
        """For notebooks."""
        return card(
            f"lease {self.state}",
            self.replica,
            [("holder", self.holder), ("epoch", self.epoch)],
            ok=None if self.error is None else False,
            lines=_problems(self.error),
        )


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
        fine = (self.state, self.error) == ("running", None)
        return fine and all(replica.ok for replica in self.replicas)

    def _repr_html_(self) -> str:
        """For notebooks: the database, and its replicas in a table."""
        rows = [
            (
                replica.name,
                replica.state,
                replica.txid,
                f"{replica.lag_seconds:.3g} s",
                moment_text(replica.last_success),
                size_text(replica.spool_bytes),
                "; ".join(_problems(replica.error, replica.history_error)),
            )
            for replica in self.replicas
        ]
        lease = self.lease
        holder = f"{lease.state}, holder {lease.holder or 'unknown'}" if lease else None
        return card(
            self.state,
            self.database,
            [
                ("transaction", self.txid),
                ("pages pending", self.pending_pages),
                ("process", self.pid or None),
                ("lease", holder),
            ],
            ok=self.ok,
            lines=_problems(self.error, lease.error if lease else None),
            below=table(rows, _COLUMNS) if rows else "",
        )


_COLUMNS = ("replica", "state", "txid", "lag", "last success", "waiting", "error")


def _problems(*errors: str | None) -> list[str]:
    return [error for error in errors if error]
