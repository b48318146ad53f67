"""What becomes of each database of a group: pure decisions.

::

    EMPTY ──bytes──▶ WAITING ──slot──▶ STARTING ──▶ RUNNING ──quiet──▶ PARKING ──▶ PARKED
                       ▲ ▲                │            │                  │           │
                       │ └────────────────┼────────────┴──in use──────────┘           │
                       │                  ▼ error                                     │
                       ├──time, change──FAILED                                        │
                       └──────────────────────────change, history──────────────────────┘

STARTING, RUNNING and PARKING take a slot each, and there are only so many. Who waits for one
waits in a queue, so each is started in its turn. While somebody waits (*contention*), a slot
is given back

* as soon as its database is in step and was left alone for a moment, and
* at the latest after a slice of time, whatever happens to it: it is flushed, and goes to the
  end of the queue. So databases that never rest, or whose store is away, starve nobody.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sqlitereplica.group.signature import Signature, holds

__all__ = ["Rules", "State", "Step", "Turn", "judge", "pause_after", "turn"]

_LEAST_DATABASE = 512
"""Bytes: the smallest page, so the smallest database that is not empty."""


class State(enum.Enum):
    """Where a database is; the value is the word for it in a status."""

    EMPTY = "empty"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    PARKING = "parking"
    PARKED = "parked"
    FAILED = "failed"

    # Of which there are ten thousand: the default hash is a call of Python code.
    __hash__ = object.__hash__


class Step(enum.Enum):
    """What a look at the files of one that has no slot leads to."""

    STAY = enum.auto()
    EMPTY = enum.auto()
    """There is no database in it yet."""
    SHORT = enum.auto()
    """It is too short to be one."""
    WAKE = enum.auto()
    TEND = enum.auto()
    """Nothing changed, but history has something to do."""
    REMOVED = enum.auto()


class Turn(enum.Enum):
    """What becomes of one that runs."""

    STAY = enum.auto()
    PARK = enum.auto()
    """If it is as quiet as it seems."""
    ROTATE = enum.auto()
    """Quiet or not."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long things last, in seconds."""

    park_after: float = 30.0
    """Left alone for so long, a database is parked."""
    least_quiet: float = 0.3
    """So while others wait for a slot."""
    slice: float = 10.0
    """One that is never quiet keeps its slot so long while others wait."""
    retry: tuple[float, float] = (5.0, 600.0)
    """The first and the longest pause after a failure; each is twice the one before."""


def judge(
    state: State,
    known: Signature | None,
    seen: Signature | None,
    *,
    now: float,
    due_at: float | None,
) -> Step:
    """Judge a look at the files of a database.

    Args:
        state: Where it is.
        known: The signature that holds if nothing changed since it was parked, or failed.
        seen: The present one; None if there is no file.
        now: Seconds since the epoch.
        due_at: When it is to be started though nothing changed; None for never. One that
            failed waits for that time, or else for a change.
    """
    if seen is None:
        return Step.REMOVED
    if state is State.PARKED:
        assert known is not None
        if holds(known, seen):
            return Step.STAY if due_at is None or now < due_at else Step.TEND
    elif state is State.FAILED:
        if known == seen if due_at is None else now < due_at:
            return Step.STAY
    elif state is not State.EMPTY:
        return Step.STAY
    if seen.size == 0:
        return Step.STAY if state is State.EMPTY else Step.EMPTY
    return Step.SHORT if seen.size < _LEAST_DATABASE else Step.WAKE


def turn(
    *,
    quiet: float,
    ran: float,
    in_step: bool,
    used: bool,
    contended: bool,
    rules: Rules,
) -> Turn:
    """Judge one that runs.

    Args:
        quiet: Seconds since its files changed last, or since it was started.
        ran: Seconds since it was started.
        in_step: Whether all its replicas hold all that was captured.
        used: Whether somebody has it in use: a ``sync``, a ``replicator`` block.
        contended: Whether others wait for its slot.
        rules: How long things last.
    """
    if used:
        return Turn.STAY
    enough = rules.park_after
    if contended:
        enough = min(enough, rules.least_quiet)
    if in_step and quiet >= enough:
        return Turn.PARK
    return Turn.ROTATE if contended and ran >= rules.slice else Turn.STAY


def pause_after(failures: int, rules: Rules) -> float:
    """Seconds until a database that failed so often in a row is tried again."""
    least, most = rules.retry
    return min(most, least * 2.0 ** min(failures - 1, 16))
