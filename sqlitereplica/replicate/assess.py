"""Whether a Replicator is healthy enough: a pure judgement of its status by thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlitereplica.markup import card
from sqlitereplica.replicate.status import ReplicaStatus, Status

__all__ = ["HealthReport", "Limits", "assess"]

_SOUND = frozenset({"running", "standby", "waiting"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """The answer of ``Replicator.health``. True in a condition when it is ``ok``."""

    ok: bool
    """Whether traffic and trust may go here."""
    reasons: tuple[str, ...]
    """What is wrong, one sentence each; also such as do not make it unhealthy."""
    status: Status

    def __bool__(self) -> bool:
        return self.ok

    def to_json(self) -> bytes:
        """The fields as one JSON object, for the body of a health endpoint."""
        import msgspec

        return msgspec.json.encode(self)

    def _repr_html_(self) -> str:
        """For notebooks: the judgement, and the status that it is of."""
        title = "healthy" if self.ok else "not healthy"
        status = self.status
        below = status._repr_html_()
        return card(title, status.database, ok=self.ok, lines=self.reasons, below=below)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is still healthy."""

    max_lag: float
    """Seconds that a replica may be behind."""
    max_spool_bytes: int | None
    """Bytes that may wait for a replica; None for any."""
    max_verify_age: float | None
    """Seconds since the last drill that ended well; None for any."""
    need: int
    """How many replicas must be within these limits."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.max_lag > 0:
            raise ValueError(f"max_lag must be above 0 seconds: {self.max_lag!r}")
        for name in ("max_spool_bytes", "max_verify_age"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative: {value!r}")


def assess(status: Status, limits: Limits, now: datetime) -> HealthReport:
    """Judge a status; ``now`` is the time of day."""
    reasons = []
    if status.state not in _SOUND:
        reasons.append(f"replication is {status.state}")
    if status.error is not None:
        reasons.append(f"the database: {status.error}")
    broken = bool(reasons)
    if status.state == "running":
        faults = [_faults(replica, limits, now) for replica in status.replicas]
        sound = sum(not found for found in faults)
        broken = broken or sound < min(limits.need, len(faults))
        reasons += [reason for found in faults for reason in found]
    return HealthReport(ok=not broken, reasons=tuple(reasons), status=status)


def _faults(replica: ReplicaStatus, limits: Limits, now: datetime) -> list[str]:
    found = []
    if replica.state == "failed":
        found.append(f"has failed for good: {replica.error}")
    if replica.lag_seconds > limits.max_lag:
        why = f": {replica.error}" if replica.error else ""
        found.append(f"is {replica.lag_seconds:.1f} s behind{why}")
    elif replica.error is not None and replica.last_success is None:
        found.append(f"was never reached: {replica.error}")
    most = limits.max_spool_bytes
    if most is not None and replica.spool_bytes > most:
        found.append(f"has {replica.spool_bytes} bytes waiting")
    if limits.max_verify_age is not None:
        found += _drill(replica, limits.max_verify_age, now)
    return [f"{replica.name} {fault}" for fault in found]


def _drill(replica: ReplicaStatus, most: float, now: datetime) -> list[str]:
    last = replica.last_verify
    if last is None:
        return ["was not verified yet"]
    if not last.ok:
        return [f"cannot be restored as it should: {last.problem}"]
    age = (now - last.at).total_seconds()
    return [f"was verified {age:.0f} s ago"] if age > most else []
