"""Positions: ordered, written as text, and never taken for a state that does not hold them."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica.replicate.bookmark import Looks, Position

WORDS = st.integers(0, (1 << 64) - 1)
POSITIONS = st.builds(Position, WORDS, WORDS, WORDS)


class Model:
    """Commits are numbered; a look sees all of them, a flush puts what was seen in a state."""

    def __init__(self) -> None:
        self.looks = Looks(7, now_ms=lambda: 1000)
        self.commits = self.seen = self.seq = 0
        self.under_way = False
        self.states: dict[int, int] = {0: 0}
        self.taken: list[tuple[Position, int]] = []

    def commit(self) -> None:
        """The application commits."""
        self.commits += 1

    def take(self) -> None:
        """Somebody takes a position."""
        self.taken.append((self.looks.position(), self.commits))

    def look(self) -> None:
        """A look begins: it sees what is committed now, and others go on committing."""
        self.looks.begin()
        self.seen, self.under_way = self.commits, True

    def end(self) -> None:
        """The look that is under way ends with a flush."""
        if self.under_way:
            self.seq += 1
            self.states[self.seq] = self.seen
            self.looks.captured(self.seq)
        self.under_way = False

    def busy(self) -> None:
        """A look that comes to nothing."""
        self.looks.begin()
        self.under_way = False

    def flush(self) -> None:
        """A look and a flush, with nothing in between."""
        self.look()
        self.end()

    def quiet(self) -> None:
        """A look that finds nothing new in a flushed database."""
        self.look()
        self.under_way = False
        if self.states[self.seq] == self.seen:
            self.looks.captured(self.seq)

    def restart(self) -> None:
        """Capture loses the database."""
        self.looks.restart()
        self.under_way = False


STEPS = ["commit", "take", "look", "end", "busy", "flush", "quiet", "restart"]


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_state_of_a_position_holds_every_commit_before_it(steps: list[str]) -> None:
    """Whatever came when: a state is named only if it covers the position."""
    model = Model()
    for step in steps:
        getattr(model, step)()
        for position, commits in model.taken:
            seq = model.looks.state_of(position)
            assert seq is None or model.states[seq] >= commits


def test_state_is_known_once_it_was_captured() -> None:
    """A wait does not capture anew what is captured already."""
    model = Model()
    model.commit()
    model.take()
    assert model.looks.state_of(model.taken[0][0]) is None
    model.flush()
    for _ in range(300):
        model.commit()
        model.quiet()
    assert model.looks.state_of(model.taken[0][0]) == 1


def test_oldest_states_are_forgotten_and_newer_ones_stand_for_them() -> None:
    """Memory stays bounded; the answer for an old position is a state that came later."""
    model = Model()
    model.take()
    for _ in range(5000):
        model.commit()
        model.flush()
    assert len(model.looks._states) < 1000
    found = model.looks.state_of(model.taken[0][0])
    assert found is not None and found > 1


def test_position_of_an_earlier_life_is_unknown_and_smaller() -> None:
    """Also when the clock stands still: each life has a number of its own."""
    looks = Looks(7, now_ms=lambda: 1000)
    before = looks.position()
    looks.restart()
    looks.begin()
    looks.captured(1)
    assert looks.state_of(before) is None
    assert before < looks.position()


@given(POSITIONS)
def test_text_of_a_position_reads_back(position: Position) -> None:
    """``parse`` is the inverse of ``str``, which fits into a header."""
    text = str(position)
    assert Position.parse(text) == position
    assert text.isascii() and len(text) < 64 and " " not in text


@pytest.mark.parametrize(
    "text",
    ["", "1-2", "1-2-3-4", "1-2-x", "-1-2-3", "1-2-3\n", "1-2-" + "f" * 17, "٣-1-1"],
)
def test_text_that_is_no_position_is_refused(text: str) -> None:
    """It may come from anywhere: a cookie, for one."""
    with pytest.raises(ValueError, match="Position"):
        Position.parse(text)


def test_position_is_frozen_ordered_and_hashable() -> None:
    """A value like any other."""
    one, two = Position(1, 5, 9), Position(2, 1, 9)
    assert one < two and max(one, two) is two and len({one, two, one}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.look = 6  # type: ignore[misc]
