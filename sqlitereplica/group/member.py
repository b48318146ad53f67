"""One database of a group, and the table of them all."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from sqlitereplica.group.decide import State
from sqlitereplica.group.signature import Signature
from sqlitereplica.replicate import Replicator

__all__ = ["SLOTTED", "Member", "Table"]

SLOTTED = frozenset({State.STARTING, State.RUNNING, State.PARKING})


class Member:
    """One database: a few words while it is parked, since there may be very many."""

    __slots__ = (
        "claims",
        "due_at",
        "error",
        "failures",
        "is_gone",
        "known",
        "quiet_since",
        "rel",
        "replicator",
        "since",
        "state",
        "users",
    )

    def __init__(self, rel: str, state: State) -> None:
        self.rel, self.state = rel, state
        self.known: Signature | None = None
        """What the files were like when it was parked, or failed; while it runs: last."""
        self.due_at: float | None = None
        """Seconds since the epoch at which it is started though nothing changed."""
        self.error: Exception | None = None
        self.failures = 0
        self.replicator: Replicator | None = None
        self.since = self.quiet_since = 0.0
        """Monotonic: when it came to its state, and when its files changed last."""
        self.users = 0
        """How many have it in use: it is not parked meanwhile."""
        self.claims: tuple[Hashable, ...] = ()
        """What no other may have: its file, its replica."""
        self.is_gone = False
        """Whether it has left the table: its file is not there any more."""


class Table:
    """All databases by name, and what each of them claims for itself. Not thread-safe."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._claims: dict[Hashable, Member] = {}
        self.slotted: dict[Member, None] = {}
        """Those that take a slot, oldest first."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __contains__(self, rel: str) -> bool:
        return rel in self._members

    def get(self, rel: str) -> Member | None:
        """The member of that name."""
        return self._members.get(rel)

    def add(self, member: Member) -> None:
        """Take one in."""
        self._members[member.rel] = member

    def remove(self, member: Member) -> None:
        """Let one go."""
        member.is_gone = True
        del self._members[member.rel]
        self._give_up(member)

    def claim(self, member: Member, keys: Sequence[Hashable]) -> Member | None:
        """Claim these and nothing else for it, or say who has one of them."""
        for key in keys:
            owner = self._claims.get(key, member)
            if owner is not member:
                return owner
        self._give_up(member)
        member.claims = tuple(keys)
        for key in keys:
            self._claims[key] = member
        return None

    def _give_up(self, member: Member) -> None:
        for key in member.claims:
            del self._claims[key]
        member.claims = ()
