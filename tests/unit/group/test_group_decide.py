"""What becomes of each database of a group: the decisions, as values."""

from __future__ import annotations

import pytest

from sqlitereplica.group.decide import (
    Rules,
    State,
    Step,
    Turn,
    judge,
    pause_after,
    turn,
)
from sqlitereplica.group.signature import Signature

OLD = Signature(1, 7, 4096, 100, 100)
WAL = Signature(1, 7, 4096, 100, 100, 9, 4152, 200, 200)
NEW = Signature(1, 7, 4096, 300, 300)
EMPTY, SHORT = Signature(1, 7, 0, 1, 1), Signature(1, 7, 511, 1, 1)
RULES = Rules()


@pytest.mark.parametrize(
    ("state", "known", "seen", "due_at", "step"),
    [
        (State.PARKED, OLD, OLD, None, Step.STAY),
        (State.PARKED, OLD, OLD, 1000.5, Step.STAY),
        (State.PARKED, OLD, OLD, 1000.0, Step.TEND),
        (State.PARKED, OLD, WAL, None, Step.WAKE),
        (State.PARKED, OLD, NEW, None, Step.WAKE),
        (State.PARKED, WAL, OLD, None, Step.STAY),
        (State.PARKED, WAL, NEW, None, Step.WAKE),
        (State.PARKED, OLD, EMPTY, None, Step.EMPTY),
        (State.PARKED, OLD, SHORT, None, Step.SHORT),
        (State.PARKED, OLD, None, None, Step.REMOVED),
        (State.EMPTY, None, EMPTY, None, Step.STAY),
        (State.EMPTY, None, SHORT, None, Step.SHORT),
        (State.EMPTY, None, OLD, None, Step.WAKE),
        (State.EMPTY, None, None, None, Step.REMOVED),
        (State.FAILED, OLD, OLD, None, Step.STAY),
        (State.FAILED, OLD, NEW, None, Step.WAKE),
        (State.FAILED, None, NEW, 1000.5, Step.STAY),
        (State.FAILED, None, NEW, 1000.0, Step.WAKE),
        (State.FAILED, OLD, EMPTY, None, Step.EMPTY),
        (State.FAILED, None, None, 2000.0, Step.REMOVED),
        (State.WAITING, None, NEW, None, Step.STAY),
        (State.STARTING, None, NEW, None, Step.STAY),
        (State.RUNNING, OLD, NEW, None, Step.STAY),
        (State.PARKING, OLD, NEW, None, Step.STAY),
        (State.RUNNING, OLD, None, None, Step.REMOVED),
    ],
)
def test_looks_are_judged(
    state: State,
    known: Signature | None,
    seen: Signature | None,
    due_at: float | None,
    step: Step,
) -> None:
    """Parked ones wake for changes and for their history; others wait for what they lack."""
    assert judge(state, known, seen, now=1000.0, due_at=due_at) is step


@pytest.mark.parametrize(
    ("quiet", "ran", "in_step", "used", "contended", "found"),
    [
        (29.9, 99.0, True, False, False, Turn.STAY),
        (30.0, 99.0, True, False, False, Turn.PARK),
        (99.0, 99.0, False, False, False, Turn.STAY),
        (99.0, 99.0, True, True, False, Turn.STAY),
        (0.3, 0.3, True, False, True, Turn.PARK),
        (0.2, 0.3, True, False, True, Turn.STAY),
        (0.0, 10.0, True, False, True, Turn.ROTATE),
        (9.0, 10.0, False, False, True, Turn.ROTATE),
        (9.0, 9.9, False, False, True, Turn.STAY),
        (99.0, 99.0, True, True, True, Turn.STAY),
    ],
)
def test_slots_are_given_back(
    quiet: float, ran: float, in_step: bool, used: bool, contended: bool, found: Turn
) -> None:
    """After a rest; while others wait, after a moment or a slice of time."""
    assert found is turn(
        quiet=quiet,
        ran=ran,
        in_step=in_step,
        used=used,
        contended=contended,
        rules=RULES,
    )


def test_a_short_rest_is_not_made_longer_by_contention() -> None:
    """Whoever asks to park sooner than that gets it."""
    rules = Rules(park_after=0.1)
    found = turn(
        quiet=0.1, ran=0.1, in_step=True, used=False, contended=True, rules=rules
    )
    assert found is Turn.PARK


def test_pauses_grow_to_a_bound() -> None:
    """Twice as long each time, ten minutes at most, however often it fails."""
    assert [pause_after(n, RULES) for n in (1, 2, 3)] == [5.0, 10.0, 20.0]
    assert pause_after(5000, RULES) == 600.0
