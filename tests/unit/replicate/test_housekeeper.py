"""Threads for jobs: bounded, fair, one of a kind, and gone afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from typing import cast

import pytest
from support.lifetime import await_true, library_threads

from sqlitereplica.replicate.history import History, Job
from sqlitereplica.replicate.housekeeper import Housekeeper

SHORT, HEAVY = Job("compact", 1), Job("snapshot")


class Busy:
    """A history in which some jobs are always due, and take until they are let go."""

    pause = 0.01

    def __init__(self, *jobs: Job) -> None:
        self.jobs = jobs
        self.running: Counter[Job] = Counter()
        self.begun: Counter[Job] = Counter()
        self.most: Counter[Job] = Counter()
        self.let_go = threading.Event()
        self.stopped = False
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def due(self) -> list[Job]:
        """All, always."""
        return [] if self.stopped else list(self.jobs)

    def run(self, job: Job) -> None:
        """Count, and wait."""
        with self._lock:
            self.running[job] += 1
            self.begun[job] += 1
            self.most[job] = max(self.most[job], self.running[job])
        self.let_go.wait()
        with self._lock:
            self.running[job] -= 1

    def fail(self, error: Exception) -> None:
        """Remember."""
        self.failure = error

    def stop(self) -> None:
        """No more."""
        self.stopped = True
        self.let_go.set()


def tend(keeper: Housekeeper, *busy: Busy) -> list[History]:
    """Add them."""
    histories = [cast(History, b) for b in busy]
    keeper.add(histories)
    return histories


@pytest.mark.timeout(60)
def test_long_job_delays_no_other() -> None:
    """Another level, another kind and another replica go on meanwhile."""
    keeper = Housekeeper()
    slow = Busy(HEAVY, SHORT, Job("compact", 2))
    quick = Busy(SHORT)
    quick.let_go.set()
    histories = tend(keeper, slow, quick)
    await_true(lambda: len(slow.begun) == 3 and quick.begun[SHORT] > 3)
    assert set(slow.begun.values()) == {1}
    for left in keeper.remove(histories):
        left.join()
    await_true(lambda: library_threads() == set())


@pytest.mark.timeout(60)
def test_job_of_one_kind_runs_once_at_a_time() -> None:
    """However often it is due."""
    keeper = Housekeeper()
    busy = Busy(SHORT)
    busy.let_go.set()
    histories = tend(keeper, busy)
    await_true(lambda: busy.begun[SHORT] > 20)
    for left in keeper.remove(histories):
        left.join()
    assert busy.most == {SHORT: 1}


@pytest.mark.timeout(60)
def test_many_replicas_take_turns_within_the_bounds() -> None:
    """Few heavy jobs at once, and yet each comes to its turn."""
    keeper = Housekeeper()
    many = [Busy(HEAVY) for _ in range(8)]
    histories = tend(keeper, *many)

    def running() -> int:
        return sum(b.running[HEAVY] for b in many)

    seen = set[int]()
    for _ in range(200):
        await_true(running)
        assert running() <= 2
        for at, busy in enumerate(many):
            if busy.running[HEAVY]:
                seen.add(at)
                busy.let_go.set()
                await_true(lambda b=busy: not b.running[HEAVY])  # type: ignore[misc]
                busy.let_go.clear()
        if len(seen) == len(many):
            break
    assert len(seen) == len(many)
    for left in keeper.remove(histories):
        left.join()


@pytest.mark.timeout(60)
def test_removed_history_begins_nothing_more() -> None:
    """What runs is told to end, and its threads are given back to wait for."""
    keeper = Housekeeper()
    busy = Busy(SHORT, HEAVY)
    histories = tend(keeper, busy)
    await_true(lambda: len(busy.begun) == 2)
    for left in keeper.remove(histories):
        left.join()
    assert set(busy.begun.values()) == {1}
    await_true(lambda: library_threads() == set())


@pytest.mark.timeout(60)
def test_history_with_a_bug_is_told_and_delays_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even one that would end the thread."""

    class Wrong(Busy):
        def due(self) -> list[Job]:
            if not self.stopped:
                raise SystemExit("from the test")
            return []

    keeper = Housekeeper()
    wrong, right = Wrong(), Busy(SHORT)
    right.let_go.set()
    histories = tend(keeper, wrong, right)
    await_true(lambda: right.begun[SHORT] > 3 and wrong.failure is not None)
    for left in keeper.remove(histories):
        left.join()
    assert "SystemExit" in str(wrong.failure)
