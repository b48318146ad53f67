"""The thread that steps all databases of a process: whom, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.workers import until

from sqlitereplica.replicate.driver import Driver, together


class Stub:
    """What the driver sees of an engine."""

    def __init__(self, delay: float = 60.0) -> None:
        self.delay = delay
        self.steps = 0
        self.during: Callable[[], object] = lambda: None
        self.closed = threading.Event()

    def step(self) -> float:
        """Count, and have time."""
        self.steps += 1
        self.during()
        return self.delay

    def fail(self, error: Exception) -> None:
        """There are no errors here."""
        raise AssertionError from error

    def close(self) -> None:
        """Remember."""
        self.closed.set()


Add = Callable[..., Any]


@pytest.fixture
def driver() -> Driver:
    """One of our own."""
    return Driver()


@pytest.fixture
def add(driver: Driver) -> Iterator[Add]:
    """Adds engines that are removed at the end; returns when they have been stepped."""
    added: list[Any] = []

    def add_one(**options: float) -> Any:
        stub: Any = Stub(**options)
        added.append(stub)
        driver.add(stub)
        until(lambda: stub.steps)
        return stub

    yield add_one
    for stub in added:
        driver.remove(stub).result(10)
        assert stub.closed.is_set()


def test_only_the_engine_that_is_woken_is_stepped(driver: Driver, add: Add) -> None:
    """A thousand databases that rest cost a ``sync()`` of one nothing."""
    one, *others = [add() for _ in range(5)]
    before = [stub.steps for stub in others]
    for number in range(2, 50):
        driver.wake(one)
        until(lambda number=number: one.steps >= number)
    assert [stub.steps for stub in others] == before


def test_wake_during_a_step_brings_another(driver: Driver, add: Add) -> None:
    """What was asked for after the step began may not have been seen by it."""
    one = add()
    one.during = lambda: driver.wake(one) if one.steps < 20 else None
    driver.wake(one)
    until(lambda: one.steps >= 20)


@pytest.mark.parametrize("delay", [0.2, 0.25, 1.0, 5.0])
def test_engines_that_rest_are_stepped_together(delay: float) -> None:
    """The process wakes up five times a second for all of them, not for each."""
    times = {together(at / 100, delay) for at in range(1000, 1100)}
    assert len(times) <= 6
    assert all(at / 100 - 0.2 <= together(at / 100, delay) for at in range(1000, 1100))
    assert all(together(at / 100, delay) <= at / 100 for at in range(1000, 1100))


def test_who_has_no_time_is_stepped_at_once() -> None:
    """Nobody is stepped later than asked for, nor long before."""
    assert together(10.001, 0.001) == 10.001
    assert 10.1 - 1 / 64 < together(10.1, 0.1) <= 10.1
