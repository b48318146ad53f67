"""When the tasks of a replica are asked, and what becomes of their failures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.stepping import FakeClock

from sqlitereplica import StoreError
from sqlitereplica.events import Event
from sqlitereplica.ltx import FileInfo
from sqlitereplica.replicate.anyworker import Phase
from sqlitereplica.replicate.catalog import Catalog
from sqlitereplica.replicate.gate import OPEN
from sqlitereplica.replicate.history import History, Job
from sqlitereplica.replicate.merging import BrokenFileError
from sqlitereplica.replicate.workshop import StoppedError, Workshop
from sqlitereplica.sqlite import SourceBusyError


class Told:
    """A task that does what it is told to."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.wait: float | Exception = 0.0
        self.error: BaseException | None = None
        self.looks = self.runs = 0

    def look(self) -> float:
        """As told."""
        self.looks += 1
        if isinstance(self.wait, Exception):
            raise self.wait
        return self.wait

    def run(self) -> None:
        """As told."""
        self.runs += 1
        if self.error is not None:
            raise self.error


class World:
    """A history of told tasks under a fake clock."""

    def __init__(self, folder: Path) -> None:
        self.worker = SimpleNamespace(
            name="replica",
            catalog=Catalog(),
            gate=OPEN,
            phase=Phase.STREAM,
            store=SimpleNamespace(is_readable=True),
        )
        self.clock, self.events = FakeClock(), list[Event]()
        self.broken = list[BrokenFileError]()
        self.tasks = [Told(Job("compact", 1)), Told(Job("snapshot"))]
        shop = Workshop(
            cast(Any, self.worker),
            database="a.db",
            folder=folder,
            recent=None,
            observer=self.events.append,
            clock=self.clock,
            sleep=self.clock.advance,
        )
        self.history = History(
            shop,
            self.tasks,
            on_broken=self.broken.append,
            clock=self.clock,
            now=lambda: self.clock.wall_ms / 1000,
            rng=lambda: 1.0,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One to play with."""
    return World(tmp_path)


def test_task_is_asked_again_when_it_said(world: World) -> None:
    """Not before: an idle replica costs next to nothing."""
    world.tasks[0].wait, world.tasks[1].wait = 10.0, 60.0
    assert world.history.due() == []
    for _ in range(9):
        world.clock.advance(1)
        assert world.history.due() == []
    assert world.tasks[0].looks == 1
    assert world.history.pause == pytest.approx(1.0)
    world.clock.advance(1.5)
    world.tasks[0].wait = 0.0
    assert world.history.due() == [Job("compact", 1)]
    assert world.tasks[1].looks == 1
    world.history.look_soon()
    world.history.due()
    assert world.tasks[1].looks == 2


def test_nothing_is_due_while_the_replica_does_not_stream(world: World) -> None:
    """Its catalog may be old then."""
    world.worker.phase = Phase.CONNECT
    assert world.history.due() == []
    world.worker.phase = Phase.STREAM
    assert len(world.history.due()) == 2
    world.history.stop()
    assert world.history.due() == []


def test_failure_is_said_and_tried_again_after_longer_pauses(world: World) -> None:
    """It shows until the task succeeds, and stops no other task."""
    job = Job("compact", 1)
    error = world.tasks[0].error = StoreError("away", operation="put")
    pauses = []
    for _ in range(5):
        world.history.run(job)
        assert world.history.error is error
        assert Job("snapshot") in world.history.due()
        waited = 0.0
        while job not in world.history.due():
            world.clock.advance(0.25)
            waited += 0.25
        pauses.append(waited)
    assert pauses == sorted(pauses) and pauses[-1] >= 8 * pauses[0]
    world.tasks[0].error = None
    world.history.run(job)
    assert world.history.error is None
    assert [e.action for e in world.events] == ["history-error"] * 5 + ["history-ok"]
    assert world.history.last_success("compact") == world.clock.wall_ms / 1000


def test_failure_is_over_though_nothing_is_left_to_do(world: World) -> None:
    """What failed was done in truth, or somebody else did it: it must not show for ever."""
    job = Job("compact", 1)
    world.tasks[0].error = StoreError("did the put arrive?", operation="put")
    world.history.run(job)
    world.tasks[0].error, world.tasks[0].wait = None, 60.0
    assert job not in world.history.due()  # not before its pause
    world.clock.advance(1)
    assert job in world.history.due()
    world.history.run(job)
    assert world.history.error is None
    world.clock.advance(1)
    assert job not in world.history.due()


@pytest.mark.parametrize(
    "error",
    [SourceBusyError("busy", path="a.db"), StoppedError()],
    ids=["busy", "stop"],
)
def test_what_is_no_failure_is_not_said_to_be_one(
    world: World, error: Exception
) -> None:
    """A database that is busy, a Replicator that stops: nothing is wrong."""
    world.tasks[1].error = error
    world.history.run(Job("snapshot"))
    assert world.history.error is None and world.events == []


def test_broken_file_is_handed_on(world: World) -> None:
    """And every task is asked at once, that of the repair too."""
    world.tasks[1].wait = 1000.0
    world.history.due()
    info = FileInfo(1, 2, 5, 100, 0)
    broken = BrokenFileError(info, StoreError("gone", operation="get", kind="missing"))
    world.tasks[0].error = broken
    world.history.run(Job("compact", 1))
    assert world.broken == [broken] and broken.kind == "missing"
    looks = world.tasks[1].looks
    world.history.due()
    assert world.tasks[1].looks == looks + 1


def test_bug_in_a_decision_is_seen(world: World) -> None:
    """It is an error of that task, and the others go on."""
    world.tasks[0].wait = RuntimeError("a bug")
    assert world.history.due() == [Job("snapshot")]
    assert str(world.history.error) == "a bug"
    world.history.fail(RuntimeError("worse"))
    assert str(world.history.error) == "worse"
    world.tasks[0].wait = 5.0
    world.clock.advance(60)
    world.history.due()
    assert str(world.history.error) == "a bug"  # until the task has run
