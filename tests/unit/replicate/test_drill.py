"""Drills: when they are due, how much of the time they take, and how they end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.recording import Recording
from support.replicas import arrange, memory_store, record
from support.stepping import FakeClock
from support.troubled import TroubledStore, overwrite

from sqlitereplica.errors import StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.replicate.drill import (
    Drill,
    DrillTask,
    DutyCycle,
    VerifySummary,
    due_in,
    has_room,
)
from sqlitereplica.replicate.workshop import StoppedError

DAY = 86_400.0
NOON = 1_800_000_000.0
FILES = [(0, n, n) for n in range(1, 10)] + [(9, 1, 5)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Nine transactions."""
    return record(tmp_path_factory.mktemp("recorded"), "source")


class Drilled:
    """A replica and its drill, in a time of their own."""

    def __init__(self, recorded: Recording, scratch: Path, **options: Any) -> None:
        self.clock = FakeClock()
        self.store: TroubledStore = memory_store()
        self.recorded = recorded
        arrange(recorded, self.store, FILES)
        self.slept: list[float] = []
        settings: dict[str, Any] = {
            "interval": DAY,
            "scratch": scratch,
            "clock": self.clock,
            "now": lambda: NOON + self.clock.seconds,
            "sleep": self.slept.append,
            "rng": lambda: 0.5,
            **options,
        }
        self.drill = Drill(lambda: self.store, **settings)

    def damage(self, txid: int) -> None:
        """Cut a file of level 0."""
        [file] = [f for f in self.store.list_level(0) if f.max_txid == txid]
        overwrite(self.store, file, self.recorded.files[txid, txid][:-1])


@pytest.fixture
def drilled(recorded: Recording, tmp_path: Path) -> Drilled:
    """A sound replica that is drilled daily."""
    return Drilled(recorded, tmp_path)


@pytest.mark.parametrize(
    ("last", "begun", "now", "expected"),
    [
        (None, 50.0, 20.0, 30.0),
        (None, 50.0, 90.0, 0.0),
        (80.0, 50.0, 90.0, 90.0),
        (80.0, 50.0, 180.0, 0.0),
        (80.0, 50.0, 500.0, 0.0),
    ],
)
def test_drill_is_due_an_interval_after_the_last(
    last: float | None, begun: float, now: float, expected: float
) -> None:
    """The first one has a time of its own; one that was missed is made at once."""
    assert due_in(100.0, last, begun, now) == expected


def test_restore_leaves_the_disk_room() -> None:
    """Never more than half of what is free."""
    assert has_room(50, 100) and has_room(0, 0)
    assert not has_room(51, 100)


def test_duty_cycle_sleeps_in_proportion_to_work() -> None:
    """A quarter of the time for work: three times as long asleep, but not for ever."""
    clock, slept = FakeClock(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    pace = DutyCycle(0.25, clock=clock, sleep=sleep)
    for worked in (0.1, 0.0005, 0.0005, 0.002, 60.0):
        clock.advance(worked)
        pace(1000)
    assert slept == pytest.approx([0.3, 0.009, 1.0])
    DutyCycle(1.0, clock=clock, sleep=sleep)(1)
    assert len(slept) == 3
    for share in (0, -1, 1.1):
        with pytest.raises(ValueError, match="share"):
            DutyCycle(share)


def test_first_drill_comes_within_the_hour_at_a_random_moment(
    recorded: Recording, tmp_path: Path
) -> None:
    """Not all replicas of a fleet are read at once after a deployment."""
    assert Drilled(recorded, tmp_path).drill.due_in == 1800
    assert Drilled(recorded, tmp_path, interval=60.0).drill.due_in == 30
    assert Drilled(recorded, tmp_path, rng=lambda: 0.0).drill.due_in == 0
    with pytest.raises(ValueError, match="verify_interval"):
        Drilled(recorded, tmp_path, interval=0)


def test_drill_of_an_earlier_life_counts(recorded: Recording, tmp_path: Path) -> None:
    """A process that restarts each hour drills once a day; a clock set back no later."""

    def after(hours: float) -> float:
        at = datetime.fromtimestamp(NOON + 1000.0 - hours * 3600, UTC)
        last = VerifySummary(
            at=at, ok=True, level="restore", duration_seconds=1, txid=9, problem=None
        )
        return Drilled(recorded, tmp_path, last=last).drill.due_in

    assert after(5) == 19 * 3600
    assert after(100) == 1800
    assert after(-1000) == DAY


def test_drill_restores_the_newest_state_and_is_due_a_day_later(
    drilled: Drilled,
) -> None:
    """What it found is a small value for a status; the whole report is there, too."""
    drill = drilled.drill
    drilled.clock.advance(1800)
    assert drill.due_in == 0
    summary = drill.run(at_least=9)
    assert summary is not None and summary is drill.last
    assert (summary.ok, summary.level, summary.txid) == (True, "restore", 9)
    assert summary.problem is None
    assert summary.at == datetime.fromtimestamp(NOON + drilled.clock.seconds, UTC)
    assert drill.report is not None and drill.report.scope == "latest"
    assert drill.due_in == DAY


def test_drill_tells_what_is_wrong(drilled: Drilled) -> None:
    """In a few lines, however much it is; the next comes in its turn."""
    drilled.damage(9)
    summary = drilled.drill.run()
    assert summary is not None and not summary.ok
    assert summary.problem is not None and len(summary.problem) < 600
    assert "transaction 9, the newest, cannot be restored" in summary.problem
    assert (summary.txid, drilled.drill.due_in) == (8, DAY)


def test_drill_knows_what_was_confirmed(drilled: Drilled) -> None:
    """A replica that lost its newest files is not sound for who wrote them."""
    drilled.store.delete([f for f in drilled.store.list_level(0) if f.max_txid == 9])
    assert drilled.drill.run().ok  # type: ignore[union-attr]
    summary = drilled.drill.run(at_least=9)
    assert summary is not None and not summary.ok


def test_store_that_does_not_answer_is_asked_again_soon(drilled: Drilled) -> None:
    """That is a result, too: nobody could restore from it now."""
    drilled.store.down = True
    summary = drilled.drill.run()
    assert summary is not None and not summary.ok and summary.txid == 0
    assert summary.problem is not None and "is down" in summary.problem
    assert drilled.drill.report is None
    assert drilled.drill.due_in == 900
    drilled.store.down = False
    drilled.clock.advance(900)
    assert drilled.drill.run().ok  # type: ignore[union-attr]
    assert drilled.drill.due_in == DAY


def test_filesystem_that_cannot_be_made_is_a_result(
    recorded: Recording, tmp_path: Path
) -> None:
    """Opening a store may fail as well."""

    def fail() -> TroubledStore:
        raise StoreError("no package", operation="open")

    drill = Drill(fail, interval=DAY, scratch=tmp_path)
    summary = drill.run()
    assert summary is not None and summary.problem == "no package"


def test_stopped_drill_is_no_result_and_stays_due(drilled: Drilled) -> None:
    """The application stops: what is known stays what it was."""
    drilled.clock.advance(1800)
    assert drilled.drill.run(stop=lambda: True) is None
    assert drilled.drill.last is None and drilled.drill.due_in == 0
    first = drilled.drill.run()
    report = drilled.drill.report
    assert drilled.drill.run(stop=lambda: True) is None
    assert drilled.drill.last is first and drilled.drill.report is report


@pytest.mark.parametrize(
    ("size", "free", "level"), [(400, 1000, "restore"), (600, 1000, "checksums")]
)
def test_drill_without_room_only_reads(
    recorded: Recording, tmp_path: Path, size: int, free: int, level: str
) -> None:
    """It never fills the disk of the application."""
    drilled = Drilled(
        recorded, tmp_path, database_size=lambda: size, free=lambda path: free
    )
    summary = drilled.drill.run()
    assert summary is not None and (summary.ok, summary.level) == (True, level)
    assert drilled.drill.report is not None
    assert (drilled.drill.report.restored is None) == (level == "checksums")


def test_drill_without_a_place_only_reads(recorded: Recording, tmp_path: Path) -> None:
    """A scratch folder that is gone is no reason not to look at the replica."""
    summary = Drilled(recorded, tmp_path / "missing").drill.run()
    assert summary is not None and (summary.ok, summary.level) == (True, "checksums")


def test_level_and_scope_can_be_chosen(recorded: Recording, tmp_path: Path) -> None:
    """All of the history, without restoring it, where downloads cost nothing."""
    drilled = Drilled(recorded, tmp_path, level="checksums", scope="history")
    drilled.damage(2)
    summary = drilled.drill.run()
    assert summary is not None and not summary.ok
    assert (summary.level, summary.txid) == ("checksums", 9)


def test_drill_sleeps_between_pieces(recorded: Recording, tmp_path: Path) -> None:
    """Each read takes a second here; four times as long it does nothing."""
    drilled = Drilled(recorded, tmp_path, share=0.2)
    drilled.store.before_get = lambda file, start: drilled.clock.advance(0.5)
    drilled.drill.run()
    assert drilled.slept
    assert max(drilled.slept) <= 1.0


class Shop:
    """What a task needs of a workshop; events are kept."""

    def __init__(self, txid: int, files: Sequence[FileInfo] = ()) -> None:
        self.worker = SimpleNamespace(txid=txid)
        self.catalog = SimpleNamespace(files=lambda: files)
        self.events: list[dict[str, Any]] = []
        self.stopping = False

    def stopped(self) -> bool:
        """Whether the Replicator stops."""
        return self.stopping

    def report(self, action: str, *, level: int, **data: object) -> None:
        """Keep an event."""
        self.events.append({"action": action, "level": level, **data})


def test_task_tells_how_a_drill_ended_and_has_healed_what_it_found(
    drilled: Drilled,
) -> None:
    """A sound replica is an event; a damaged file is noted, a lost newest state saved."""
    known = [replace(file, timestamp=1) for file in drilled.store.list_level(0)]
    shop, noted, asked = Shop(9, known), [], []
    task = DrillTask(
        shop,  # type: ignore[arg-type]
        drilled.drill,
        note=lambda file, reason: noted.append(file),
        ask_snapshot=lambda: asked.append(1),
    )
    assert (task.job.kind, task.job.heavy, task.look()) == ("verify", True, 1800)
    drilled.clock.advance(1800)
    assert task.look() == 0
    task.run()
    [event] = shop.events
    assert (event["action"], event["level"]) == ("verify", logging.INFO)
    assert (event["ok"], event["txid"], event["problem"]) == (True, 9, None)
    assert task.last is drilled.drill.last and task.look() == DAY
    drilled.damage(9)
    task.run()
    assert shop.events[1]["level"] == logging.ERROR
    assert "cannot be restored" in shop.events[1]["problem"]
    assert noted == [f for f in known if f.max_txid == 9]
    assert asked == [1]


def test_task_that_is_stopped_says_so(drilled: Drilled) -> None:
    """That is no failure, and no event."""
    shop = Shop(9)
    shop.stopping = True
    task = DrillTask(
        shop,  # type: ignore[arg-type]
        drilled.drill,
        note=lambda file, reason: None,
        ask_snapshot=lambda: None,
    )
    with pytest.raises(StoppedError):
        task.run()
    assert shop.events == [] and task.last is None
