"""Waits of ``sync()``: shared, settled by the truth, never early."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlitereplica.errors import AnotherWriterError, ReplicatorClosedError, StoreError
from sqlitereplica.replicate.health import Health
from sqlitereplica.replicate.tickets import Ticket, Tickets


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


def test_another_writer_is_raised_whenever_it_was_met() -> None:
    """That worker never puts again, so nothing will ever be durable there."""
    tickets = Tickets()
    ticket = captured(tickets, 5, now=100.0)
    worker = Worker.failing(AnotherWriterError("key"), 1)
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
