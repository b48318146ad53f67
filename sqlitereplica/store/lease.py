"""Who may write to a replica: the protocol of ``lock.json``, as pure functions.

One object beside the levels says who holds the lease and for how long. Whoever wants it, or
wants to keep it, reads and writes that object; what to do next follows from what was read,
the own ``State`` and the own monotonic clock, and from nothing else. ``replicate/leasing.py``
drives this with a thread and a store, the simulation of the tests with thousands of
imagined networks.

Theory. The store replaces the object only under a condition: that it still is what the writer
saw last (its *tag*: an ETag, a number). Every body has a nonce, so no tag ever comes again.
Therefore the bodies form one line, each made in knowledge of the one before.

* **It is never deleted.** A release writes a body that says so. The *epoch* (Litestream's
  ``generation``) grows by one with each acquisition and never falls.
* **Clocks of two hosts are never compared.** A contender takes over when it has seen no
  change for the holder's whole TTL, by its own clock, counted from the answer in which it
  first saw the body. ``expires_at`` is written for Litestream, and not read.
* **The holder stops first.** It may publish for two thirds of the TTL from the moment at
  which it *sent* its last confirmed write. That is earlier than any contender can have seen
  it, so clocks may run apart by a third before both could believe that they may. Even then
  nothing is lost or forked: that does not rest on clocks (``replicate/fencing.py``).
* **A lost answer is looked for.** After a refusal, or no answer, the object is read. A nonce
  of an own attempt means that the attempt came through, as of when it was sent. The body of
  before means that it did not, or not yet: write again. Anything else is another's.
* **One's own earlier life** need not be waited for: same host, same metadata folder, which
  the operating system lets only one process have.

Litestream's leaser (``s3/leaser.go``) reads and respects this object. It deletes it on release;
then the next epoch is one above the highest that was seen.
"""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

__all__ = [
    "LEASE_NAME",
    "Action",
    "Attempt",
    "Identity",
    "Look",
    "Purpose",
    "Record",
    "Rest",
    "Seen",
    "Stage",
    "State",
    "Write",
    "decide",
    "on_answered",
    "on_no_answer",
    "on_read",
    "on_refused",
    "on_sent",
    "publish_until",
    "record_for",
    "release",
]

LEASE_NAME = "lock.json"

MOST_BYTES = 4096
"""No lease is larger; more is not read."""
SHORTEST_TTL, LONGEST_TTL = 0.5, 3600.0
_LITESTREAM_TTL = 30.0
_RENEW, _PUBLISH, _POLL = 1 / 3, 2 / 3, 1 / 6
"""Parts of the TTL: when to renew, how long to publish, how often to look at another's."""


# -- the object --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the object says. ``node`` 0 is Litestream, or nobody knows."""

    epoch: int
    owner: str
    node: int = 0
    ttl: float = _LITESTREAM_TTL
    nonce: str = ""
    released: bool = False
    expires_at: str = ""

    def to_bytes(self) -> bytes:
        """The object: Litestream's three fields and ours."""
        fields = {
            "generation": self.epoch,
            "expires_at": self.expires_at,
            "owner": self.owner,
            "node": f"{self.node:016x}",
            "ttl": self.ttl,
            "nonce": self.nonce,
            "released": self.released,
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Read an object that anybody may have written.

        One that says nothing of use is somebody's all the same: it is waited for.
        """
        fields = _fields(data)
        owner, node = fields.get("owner"), fields.get("node")
        return cls(
            epoch=_epoch(fields.get("generation")),
            owner=owner[:256] if isinstance(owner, str) else "(unreadable)",
            node=_node(node) if isinstance(node, str) else 0,
            ttl=_ttl(fields.get("ttl", _LITESTREAM_TTL)),
            nonce=str(fields.get("nonce", "")),
            released=fields.get("released") is True,
            expires_at=str(fields.get("expires_at", "")),
        )


def _fields(data: bytes) -> dict[str, Any]:
    if len(data) > MOST_BYTES:
        return {}
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _epoch(value: object) -> int:
    sound = isinstance(value, int) and 0 <= value < 1 << 62
    return int(value) if sound else 0  # type: ignore[call-overload]


def _node(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError:
        return 0
    return value if 0 <= value < 1 << 64 else 0


def _ttl(value: object) -> float:
    """Seconds that are a time to wait: nobody makes others wait for ever, or not at all."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return _LITESTREAM_TTL
    return min(max(float(value), SHORTEST_TTL), LONGEST_TTL)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a read showed. ``record`` and ``tag`` are None where there is no object."""

    record: Record | None
    tag: str | None


# -- the state of one who takes part -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Who takes part: a host, a process, a metadata folder; and the TTL that it asks for."""

    host: str
    pid: int
    node: int
    ttl: float

    @property
    def owner(self) -> str:
        """As Litestream names it."""
        return f"{self.host}:{self.pid}"

    def was(self, record: Record) -> bool:
        """Whether a record is of an earlier life of this one, on this host."""
        host = record.owner.rpartition(":")[0]
        return record.node == self.node != 0 and host == self.host


class Stage(enum.Enum):
    """Where it stands; the value is the word for it in a status."""

    WAITING = "waiting"
    HELD = "held"
    LOST = "lost"
    RELEASED = "released"


class Purpose(enum.Enum):
    """What a write is for."""

    ACQUIRE = "acquire"
    RENEW = "renew"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A write that was sent and not confirmed: it may still come through."""

    purpose: Purpose
    record: Record
    sent_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that one knows. Times are those of its own monotonic clock."""

    me: Identity
    stage: Stage = Stage.WAITING
    epoch: int = 0
    """The own one; 0 before the first acquisition."""
    highest: int = 0
    """The highest that was ever seen."""
    seen: Seen | None = None
    seen_at: float = 0.0
    """When ``seen`` was seen for the first time."""
    looked_at: float = -math.inf
    before: Record | None = None
    """Whom the present tenure followed; None for nobody."""
    confirmed_at: float = -math.inf
    """When the last confirmed write was sent."""
    must_look: bool = True
    attempts: tuple[Attempt, ...] = ()
    leaving: bool = False
    not_before: float = -math.inf
    """After a failure: when to go on."""

    @property
    def holder(self) -> Record | None:
        """Who holds it, as far as is known; None when it is free."""
        record = None if self.seen is None else self.seen.record
        return None if record is None or record.released else record


@dataclass(frozen=True, slots=True)
class Look:
    """Read the object."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write the object if its tag is ``expect``; None: if there is none."""

    purpose: Purpose
    epoch: int
    expect: str | None


@dataclass(frozen=True, slots=True)
class Rest:
    """Do nothing until then."""

    until: float


Action: TypeAlias = Look | Write | Rest


def decide(state: State, now: float) -> Action:
    """What to do next."""
    if state.stage in (Stage.LOST, Stage.RELEASED):
        return Rest(math.inf)
    if now < state.not_before:
        return Rest(state.not_before)
    if state.must_look or state.seen is None:
        return Look()
    if state.stage is Stage.HELD:
        return _decide_holder(state, state.seen, now)
    return _decide_contender(state, state.seen, now)


def _decide_holder(state: State, seen: Seen, now: float) -> Action:
    if state.leaving:
        return Write(Purpose.RELEASE, state.epoch, seen.tag)
    due = state.confirmed_at + state.me.ttl * _RENEW
    if now < due:
        return Rest(due)
    return Write(Purpose.RENEW, state.epoch, seen.tag)


def _decide_contender(state: State, seen: Seen, now: float) -> Action:
    free_at = _free_at(state, seen)
    if now >= free_at:
        return Write(Purpose.ACQUIRE, state.highest + 1, seen.tag)
    look_at = state.looked_at + min(state.me.ttl, _ttl_of(seen)) * _POLL
    if now >= look_at:
        return Look()
    return Rest(min(free_at, look_at))


def _ttl_of(seen: Seen) -> float:
    return math.inf if seen.record is None else seen.record.ttl


def _free_at(state: State, seen: Seen) -> float:
    record = seen.record
    if record is None or record.released or state.me.was(record):
        return -math.inf
    return state.seen_at + record.ttl


def publish_until(state: State) -> float:
    """Until when the holder may publish; minus infinity for everybody else."""
    if state.stage is not Stage.HELD or state.leaving:
        return -math.inf
    return state.confirmed_at + state.me.ttl * _PUBLISH


def record_for(state: State, write: Write, nonce: str, wall: datetime) -> Record:
    """The body of a write; ``wall`` is the time of day, for Litestream's eyes."""
    released = write.purpose is Purpose.RELEASE
    # A reader that goes by the time of day, in a skewed one, must not take it for expired.
    valid = timedelta(seconds=0.0 if released else state.me.ttl)
    return Record(
        epoch=write.epoch,
        owner=state.me.owner,
        node=state.me.node,
        ttl=state.me.ttl,
        nonce=nonce,
        released=released,
        expires_at=(wall.astimezone(UTC) + valid).isoformat().replace("+00:00", "Z"),
    )


# -- what happened -----------------------------------------------------------------------


def on_sent(state: State, write: Write, record: Record, now: float) -> State:
    """A write is about to be sent; to be called before it is."""
    attempt = Attempt(write.purpose, record, now)
    # Enough to know every one that may still be on its way behind the same tag.
    return replace(state, attempts=(*state.attempts[-31:], attempt))


def on_answered(state: State, record: Record, tag: str, now: float) -> State:
    """A write was confirmed by its answer."""
    return on_read(state, Seen(record, tag), now)


def on_refused(state: State) -> State:
    """A write was refused: the object is not what it was. Perhaps by an own attempt."""
    return replace(state, must_look=True)


def on_no_answer(state: State, now: float, pause: float) -> State:
    """A request failed, and what it did is unknown: look, after a pause."""
    return replace(state, must_look=True, not_before=now + pause)


def on_read(state: State, seen: Seen, now: float) -> State:
    """The object was read; ``now`` is the time of the answer."""
    before, record = state.seen, seen.record
    is_new = before is None or before.tag != seen.tag
    mine = next((a for a in state.attempts if _is_of(a, record)), None)
    state = replace(
        state,
        seen=seen,
        seen_at=now if is_new else state.seen_at,
        looked_at=now,
        must_look=False,
        highest=max(state.highest, record.epoch if record else 0),
    )
    if mine is not None:
        return _confirmed(state, mine, before)
    if not is_new or record is None:
        # Nothing happened; or it was deleted, which nobody may: write it again.
        return state
    # Attempts were made on what is gone: none of them can come through any more.
    state = replace(state, attempts=())
    return replace(state, stage=Stage.LOST) if state.stage is Stage.HELD else state


def _is_of(attempt: Attempt, record: Record | None) -> bool:
    return record is not None and record.nonce == attempt.record.nonce != ""


def _confirmed(state: State, attempt: Attempt, before: Seen | None) -> State:
    state = replace(
        state,
        attempts=(),
        confirmed_at=max(state.confirmed_at, attempt.sent_at),
    )
    match attempt.purpose:
        case Purpose.ACQUIRE:
            return replace(
                state,
                stage=Stage.HELD,
                epoch=attempt.record.epoch,
                before=None if before is None else before.record,
            )
        case Purpose.RELEASE:
            return replace(state, stage=Stage.RELEASED)
        case _:
            return state


def release(state: State) -> State:
    """Leave: give it back if it is held, want it no more if it is not."""
    if state.stage is Stage.WAITING:
        return replace(state, stage=Stage.RELEASED)
    return replace(state, leaving=True, not_before=-math.inf)
