"""The lease meets a store that fails: answers that get lost, requests that do, conditions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.leased import TTL
from support.stepping import FakeClock

from sqlitereplica.errors import AnotherWriterError, LeaseLostError, StoreError
from sqlitereplica.events import Event
from sqlitereplica.replicate.leasing import LeaseGate, Leasing
from sqlitereplica.store import LeaseObject, LTXStore
from sqlitereplica.store.lease import Record, Seen

AWAY = StoreError("away", operation="put")


class FaultyObject:
    """A real object in a folder, between which and the host things get lost."""

    def __init__(self, real: LeaseObject) -> None:
        self._real = real
        self.timeout = 0.0
        self.lose_requests = self.lose_answers = False
        self.reason: str | None = None
        self.writes = 0

    def probe(self) -> str | None:
        """As told."""
        self._lose()
        return self.reason or self._real.probe()

    def read(self) -> Seen:
        """Read, unless it gets lost."""
        self._lose()
        return self._real.read()

    def write(self, record: Record, expect: str | None) -> str:
        """Write; the answer may get lost."""
        self._lose()
        self.writes += 1
        tag = self._real.write(record, expect)
        if self.lose_answers:
            raise AWAY
        return tag

    def _lose(self) -> None:
        if self.lose_requests:
            raise AWAY


Make = Callable[[str], Leasing]


@pytest.fixture
def clock() -> FakeClock:
    """The time of all hosts."""
    return FakeClock()


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyObject:
    """The object of host one."""
    real = LTXStore.open(tmp_path / "replica").lease_object()
    assert real is not None
    return FaultyObject(real)


@pytest.fixture
def events() -> list[Event]:
    """What host one is told."""
    return []


@pytest.fixture
def one(faulty: FaultyObject, clock: FakeClock, events: list[Event]) -> Leasing:
    """Host one."""
    return Leasing(
        lambda: faulty,
        replica="replica",
        database="app.db",
        node=1,
        ttl=TTL,
        observer=events.append,
        clock=clock,
        rng=lambda: 0.5,
        host="one",
    )


def run(leasing: Leasing, clock: FakeClock, seconds: float = 0.0) -> None:
    """Step for some time."""
    end = clock() + seconds
    while True:
        delay = leasing.step()
        if clock() + delay > end:
            return
        clock.advance(delay)


def actions(events: list[Event]) -> list[str]:
    """The words of the events."""
    return [event.action for event in events]


def test_write_whose_answer_is_lost_is_recognised_and_not_made_again(
    one: Leasing, faulty: FaultyObject, clock: FakeClock, events: list[Event]
) -> None:
    """The object is read, and has the own nonce: one epoch, one write."""
    faulty.lose_answers = True
    run(one, clock, 1.0)
    assert not one.is_open()
    faulty.lose_answers = False
    run(one, clock, TTL / 4)
    assert one.is_open()
    assert (one.status().state, one.status().epoch, faulty.writes) == ("held", 1, 1)
    assert actions(events) == ["lease-error", "lease-acquired"]


def test_store_that_is_away_is_said_once_and_tried_until_it_is_back(
    one: Leasing, faulty: FaultyObject, clock: FakeClock, events: list[Event]
) -> None:
    """The status has the error meanwhile; the same epoch goes on afterwards."""
    run(one, clock)
    faulty.lose_requests = True
    run(one, clock, TTL)
    status = one.status()
    assert (status.state, status.error) == ("unconfirmed", "away")
    with pytest.raises(StoreError) as caught:
        one.check()
    assert caught.value.kind == "lease-unconfirmed" and caught.value.transient
    faulty.lose_requests = False
    run(one, clock, TTL / 4)
    assert (one.status().state, one.status().epoch) == ("held", 1)
    assert one.status().error is None
    assert actions(events) == ["lease-acquired", "lease-error"]


def test_store_that_is_away_at_first_is_probed_when_it_is_back(
    one: Leasing, faulty: FaultyObject, clock: FakeClock
) -> None:
    """Being away is no reason to go on without a lease."""
    faulty.lose_requests = True
    run(one, clock, TTL)
    assert (one.unsupported, one.is_open(), one.held.is_set()) == (None, False, False)
    faulty.lose_requests = False
    run(one, clock, TTL / 4)
    assert one.is_open() and one.held.is_set()


def test_store_that_fails_the_probe_is_named_with_the_reason(
    one: Leasing, faulty: FaultyObject, clock: FakeClock, events: list[Event]
) -> None:
    """A warning; the gate is open, for refusal to overwrite is all there is."""
    faulty.reason = "it ignores If-Match"
    run(one, clock, TTL)
    assert actions(events) == ["lease-unsupported"]
    assert events[0].level == 30 and events[0].data == {"why": "it ignores If-Match"}
    one.check()
    assert LeaseGate(one, leads=True).tenure is None
    error = AnotherWriterError("key")
    assert one.explain(error) is error


def test_bytes_of_another_make_the_holder_look_who_it_is(
    one: Leasing, faulty: FaultyObject, clock: FakeClock, events: list[Event]
) -> None:
    """The put says that there is another, the object says who."""
    run(one, clock)
    seen = faulty.read()
    thief = Record(epoch=2, owner="two:9", node=2, nonce="x")
    faulty.write(thief, seen.tag)
    assert one.is_open()
    explained = one.explain(AnotherWriterError("key"))
    assert isinstance(explained, LeaseLostError)
    run(one, clock)
    with pytest.raises(LeaseLostError) as caught:
        one.check()
    assert (caught.value.holder, caught.value.epoch) == ("two:9", 2)
    assert actions(events) == ["lease-acquired", "lease-lost"]
    assert one.status().state == "lost"


def test_release_that_gets_lost_is_not_waited_for(
    one: Leasing, faulty: FaultyObject, clock: FakeClock
) -> None:
    """It runs out by itself; the end of a process does not hang on the store."""
    one.begin()
    assert one.held.wait(60)
    faulty.lose_requests = True
    one.end(60)
    assert not one._thread.is_alive()
    assert not one.is_open()
    record = faulty._real.read().record
    assert record is not None and not record.released
