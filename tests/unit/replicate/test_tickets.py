"""Waits of ``sync()``: shared, settled by the truth, never early."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from sqlitereplica.errors import (
    AnotherWriterError,
    DivergedError,
    LeaseLostError,
    ReplicatorClosedError,
    StoreError,
)
from sqlitereplica.replicate.health import Health
from sqlitereplica.replicate.tickets import ALL, Ticket, Tickets


@dataclass
class Worker:
    """What tickets look at."""

    acked: int = 0
    health: Health = field(default_factory=Health)

    @classmethod
    def failing(cls, error: Exception, failed_at: float) -> Worker:
        """One that failed at that time."""
        return cls(health=Health(error=error, failed_at=failed_at))


def captured(tickets: Tickets, seq: int, now: float = 0.0) -> Ticket:
    """A ticket that was taken and captured."""
    ticket = tickets.take(now, 10)
    assert tickets.close() is ticket
    tickets.captured(ticket, seq)
    return ticket


def test_callers_before_a_capture_share_a_ticket_later_ones_do_not() -> None:
    """A thousand waiting callers cost one upload."""
    tickets = Tickets()
    first = tickets.take(0, 1)
    assert all(tickets.take(0, 1) is first for _ in range(1000))
    tickets.close()
    assert tickets.take(0, 1) is not first


def test_done_when_every_replica_has_it_and_not_before() -> None:
    """One replica that lags holds it up."""
    tickets = Tickets()
    ticket = captured(tickets, 5)
    workers = [Worker(acked=5), Worker(acked=4)]
    tickets.check(workers, 1)
    assert not ticket.future.done()
    workers[1].acked = 5
    tickets.check(workers, 1)
    assert ticket.future.result(0) is None


def test_transient_failure_is_waited_out_a_permanent_one_is_raised() -> None:
    """Only what happened since the ticket was made counts."""
    tickets = Tickets()
    ticket = captured(tickets, 5, now=100.0)
    transient = Worker.failing(StoreError("away"), 101)
    old = Worker.failing(StoreError("no", transient=False), 99)
    tickets.check([transient, old], 102)
    assert not ticket.future.done()
    old.health.failed_at = 101
    tickets.check([transient, old], 102)
    assert ticket.future.exception(0) is old.health.error


@pytest.mark.parametrize(
    "error",
    [
        AnotherWriterError("key"),
        LeaseLostError("key"),
        DivergedError("a.db", replica="r", txid=1),
    ],
)
def test_end_of_a_replica_is_raised_whenever_it_was_met(error: Exception) -> None:
    """That worker never puts again, so nothing will ever be durable there."""
    tickets = Tickets()
    ticket = captured(tickets, 5, now=100.0)
    worker = Worker.failing(error, 1)
    tickets.check([worker], 101)
    assert ticket.future.exception(0) is worker.health.error


def test_tickets_that_nobody_waits_for_are_forgotten() -> None:
    """A store that is away for days does not fill memory with waits."""
    tickets = Tickets()
    for _ in range(100):
        captured(tickets, 5, now=0.0)
    tickets.check([Worker()], 11)
    assert tickets._captured == []


def test_capture_that_did_not_come_about_is_waited_for_again() -> None:
    """A ticket that was taken out goes back, also beside a newer one."""
    tickets = Tickets()
    first = tickets.take(0, 10)
    tickets.close()
    second = tickets.take(0, 10)
    tickets.reopen(first)
    assert tickets.close() is second
    tickets.captured(second, 1)
    tickets.check([Worker(acked=1)], 1)
    assert first.future.result(0) is None
    assert second.future.result(0) is None


def test_ticket_that_waits_beside_a_newer_one_keeps_its_deadline() -> None:
    """Whoever has no timeout is not forgotten with those that have one."""
    tickets = Tickets()
    patient = tickets.take(0, None)
    tickets.close()
    tickets.take(0, 10)
    tickets.reopen(patient)
    joined = tickets.close()
    assert joined is not None
    tickets.captured(joined, 1)
    tickets.check([Worker(acked=0)], 1000)
    tickets.check([Worker(acked=1)], 1001)
    assert patient.future.result(0) is None


def test_whoever_comes_after_the_end_is_told_at_once() -> None:
    """A call that overlaps with ``stop`` does not wait for a capture that never comes."""
    tickets = Tickets()
    before = tickets.take(0, None)
    tickets.end(ReplicatorClosedError("stopped"))
    after = tickets.take(0, None)
    for ticket in (before, after):
        assert isinstance(ticket.future.exception(0), ReplicatorClosedError)


# -- some of several replicas ----------------------------------------------------------


def test_each_caller_waits_for_as_many_replicas_as_it_needs() -> None:
    """One ticket serves who needs one, two and all of three."""
    tickets = Tickets()
    for need in (1, 2, ALL):
        ticket = tickets.take(0, 10, need)
    tickets.close()
    tickets.captured(ticket, 5)
    workers = [Worker(acked=4), Worker(acked=4), Worker(acked=4)]
    for done, worker in enumerate(workers):
        assert sum(f.done() for f in ticket.futures.values()) == done
        worker.acked = 5
        tickets.check(workers, 1)
    assert [f.result(0) for f in ticket.futures.values()] == [None] * 3


def test_replica_that_fails_for_good_fails_only_who_cannot_do_without_it() -> None:
    """Two of three are enough for one caller and too few for another."""
    tickets = Tickets()
    tickets.take(0, 10, 2)
    ticket = tickets.take(0, 10)
    tickets.close()
    tickets.captured(ticket, 5)
    broken = Worker.failing(StoreError("no", transient=False), 1)
    workers = [Worker(acked=5), Worker(acked=4), broken]
    tickets.check(workers, 2)
    assert ticket.future.exception(0) is broken.health.error
    assert not ticket.futures[2].done()
    workers[1].acked = 5
    tickets.check(workers, 3)
    assert ticket.futures[2].result(0) is None
    assert tickets._captured == []


def test_quorum_fails_when_too_many_replicas_have_failed() -> None:
    """Nobody waits for a number that can no longer be reached."""
    tickets = Tickets()
    ticket = tickets.take(0, None, 2)
    tickets.close()
    tickets.captured(ticket, 5)
    workers = [Worker.failing(StoreError("no", transient=False), 1) for _ in range(2)]
    tickets.check([Worker(acked=4), *workers], 2)
    assert ticket.futures[2].exception(0) is workers[0].health.error


def test_replica_that_has_it_counts_even_if_it_has_failed_since() -> None:
    """What was confirmed stays confirmed."""
    tickets = Tickets()
    ticket = captured(tickets, 5)
    worker = Worker.failing(StoreError("no", transient=False), 1)
    worker.acked = 5
    tickets.check([worker], 2)
    assert ticket.future.result(0) is None


def test_wait_for_a_captured_state_shares_what_is_under_way() -> None:
    """Who hands in a position joins those that wait for the same state."""
    tickets = Tickets()
    ticket = captured(tickets, 5)
    assert tickets.take_captured(5, 1, 10) is ticket
    assert tickets.take_captured(4, 1, 10, 1) is not ticket
    tickets.check([Worker(acked=4)], 2)
    assert [t.seq for t in tickets._captured] == [5]


def test_wait_that_was_reopened_keeps_every_number_that_was_asked_for() -> None:
    """A capture that did not come about loses nobody, whatever they need."""
    tickets = Tickets()
    first = tickets.take(0, 10, 1)
    tickets.close()
    second = tickets.take(0, 10)
    tickets.reopen(first)
    assert tickets.close() is second
    tickets.captured(second, 1)
    tickets.check([Worker(acked=1), Worker(acked=0)], 1)
    assert first.futures[1].result(0) is None
    assert not second.future.done()


def test_fewest_replicas_that_somebody_needs_is_known() -> None:
    """The engine need not wait for the slowest when nobody does."""
    tickets = Tickets()
    assert tickets.need == ALL
    tickets.take(0, 1)
    assert tickets.need == ALL
    tickets.take(0, 1, 2)
    assert tickets.need == 2
