"""Events: who is given which, and what a log record has of them."""

from __future__ import annotations

import logging

import pytest

from sqlitereplica.errors import StoreError
from sqlitereplica.events import DETAILS, Event, Observers, Reporter, guarded, log_event


def test_record_has_the_fields_of_its_event(caplog: pytest.LogCaptureFixture) -> None:
    """For formatters that write JSON: no text has to be taken apart."""
    event = Event(
        action="upload",
        database="/a.db",
        level=logging.WARNING,
        replica="s3://b",
        error=StoreError("away", kind="missing"),
        data={"txid": 7},
    )
    log_event(event)
    (record,) = caplog.records
    fields = {k: v for k, v in vars(record).items() if k.startswith("event_")}
    assert fields == {
        "event_txid": 7,
        "event_error": "StoreError",
        "event_kind": "missing",
    }
    found = vars(record)
    assert found["action"] == "upload" and found["replica"] == "s3://b"
    assert record.getMessage() == "upload /a.db -> s3://b txid=7 StoreError: away"


@pytest.mark.parametrize("action", sorted(DETAILS))
def test_details_are_for_observers_that_want_them(action: str) -> None:
    """A function has no such attribute; several want what any of them wants."""

    class Detailed(list[Event]):
        detailed = True

        def __call__(self, event: Event) -> None:
            self.append(event)

    event = Event(action=action, database="/a.db")
    plain: list[Event] = []
    detailed = Detailed()
    both = guarded(Observers(plain.append, detailed))
    assert both.detailed and not guarded(plain.append).detailed
    both(event)
    assert (plain, detailed) == ([], [event])


def test_observer_that_raises_is_logged_and_forgiven(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Replication goes on, and so does the next observer."""

    def broken(event: Event) -> None:
        raise RuntimeError("broken")

    seen: list[Event] = []
    event = Event(action="attach", database="/a.db")
    Observers(broken, seen.append)(event)
    assert seen == [event]
    assert [vars(r)["action"] for r in caplog.records] == ["observer-error"]


def test_reporter_tells_of_its_database_and_replica() -> None:
    """What it was made for, and for one replica with ``of``."""
    events: list[Event] = []
    report = Reporter(events.append, "app.db")
    report("capture-error", logging.ERROR, ValueError("no"), why="x")
    report.of("main")("upload", txid=7)
    first, second = events
    assert (first.database, first.replica, first.level) == ("app.db", "", logging.ERROR)
    assert (str(first.error), first.data) == ("no", {"why": "x"})
    assert (second.database, second.replica) == ("app.db", "main")
    assert (second.level, second.error, second.data) == (10, None, {"txid": 7})
