"""What a group answers: frozen values, safe to keep and to log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlitereplica.markup import card
from sqlitereplica.replicate import Status

__all__ = ["GroupHealth", "GroupStatus", "MemberStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """A group at one moment: counts, so that it stays small however many there are."""

    folder: str
    state: str
    """``running`` or ``stopped``."""
    databases: int
    """How many there are."""
    running: int
    """How many have a Replicator at work, those that start or are being parked too."""
    parked: int
    """How many are in their replicas, and have nothing open."""
    waiting: int
    """How many have changed, or are new, and wait for their turn."""
    empty: int
    """How many are files of no bytes: no database is in there yet."""
    failed: int
    """How many cannot be replicated at present."""
    removed: int
    """How many have gone since the start."""
    longest_wait: float
    """Seconds that the first of those that wait has waited."""
    last_look: datetime | None
    """When all files were looked at last."""
    look_seconds: float
    """What that took."""
    errors: Mapping[str, str]
    """What fails, by path below the folder (``""`` is the folder itself): the first 20."""

    @property
    def ok(self) -> bool:
        """True when it runs and nothing fails."""
        return self.state == "running" and not self.failed and not self.errors

    def to_json(self) -> bytes:
        """The fields as one JSON object; times in RFC 3339."""
        import msgspec

        return msgspec.json.encode(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return card(
            self.state,
            self.folder,
            [
                ("databases", self.databases),
                ("running", self.running),
                ("parked", self.parked),
                ("waiting", self.waiting),
                ("failed", self.failed),
            ],
            ok=self.ok,
            lines=[f"{path}: {error}" for path, error in self.errors.items()],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """One database of a group."""

    database: str
    state: str
    """``waiting``, ``starting``, ``running``, ``parking``, ``parked``, ``empty``,
    ``failed``, ``removed`` or ``unknown`` (there was never one of that name)."""
    error: Exception | None
    """Why it cannot be replicated; None when it can."""
    status: Status | None
    """That of its Replicator, while it has one."""
    next_tending: datetime | None
    """When a parked one is started though nothing changed, for its history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHealth:
    """Whether a group does what it is for; true in a condition when it does."""

    ok: bool
    reasons: tuple[str, ...]
    """Why not, as sentences: the first 20."""
    status: GroupStatus

    def __bool__(self) -> bool:
        return self.ok

    def to_json(self) -> bytes:
        """For a health endpoint."""
        import msgspec

        return msgspec.json.encode(self)
