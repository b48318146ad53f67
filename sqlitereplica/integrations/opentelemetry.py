"""Spans for OpenTelemetry: what takes time, in the trace of whoever waits for it.

An observer, like that for Prometheus. A wait for durability and a restore are spans of the
caller's own trace; increments, requests to stores and drills are traces of their own. Spans
are made when all is over, with the time at which it began.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import trace

from sqlitereplica.events import DETAILS, Event, Observer, log_event

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["OpenTelemetryObserver"]

_TIMED = frozenset({"increment", "operation", "restore", "sync", "verify"})


class OpenTelemetryObserver:
    """Makes spans; every event is passed on. Thread-safe.

    Example:
        >>> traced = OpenTelemetryObserver()  # doctest: +SKIP
        >>> Replicator("app.db", "s3://bucket/app", observer=traced)  # doctest: +SKIP
    """

    detailed = True

    def __init__(
        self, *, tracer: Tracer | None = None, then: Observer = log_event
    ) -> None:
        """``tracer`` by default is that of the global provider; ``then`` comes after."""
        self._tracer = tracer or trace.get_tracer("sqlitereplica")
        self._then = then
        self._then_detailed = bool(getattr(then, "detailed", False))

    def __call__(self, event: Event, /) -> None:
        """Make a span of an event that took time, and pass the event on."""
        if event.action in _TIMED and "seconds" in event.data:
            self._record(event)
        if self._then_detailed or event.action not in DETAILS:
            self._then(event)

    def _record(self, event: Event) -> None:
        ended = time.time_ns()
        name = event.data.get("operation", event.action)
        span = self._tracer.start_span(
            f"sqlitereplica.{name}",
            start_time=ended - round(event.data["seconds"] * 1e9),
            attributes={"db.system": "sqlite", "db.name": event.database},
        )
        if event.replica:
            span.set_attribute("sqlitereplica.replica", event.replica)
        for key, value in _plain(event.data).items():
            span.set_attribute(f"sqlitereplica.{key}", value)
        if event.error is not None:
            # Its text has no secrets: errors of stores are translated without them.
            span.record_exception(event.error)
            span.set_status(trace.Status(trace.StatusCode.ERROR, str(event.error)))
        span.end(end_time=ended)


def _plain(data: Mapping[str, object]) -> dict[str, str | bool | int | float]:
    """What a span can hold of it."""
    return {k: v for k, v in data.items() if isinstance(v, str | bool | int | float)}
