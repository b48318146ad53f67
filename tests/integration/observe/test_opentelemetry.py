"""Spans, with OpenTelemetry's own SDK: they belong to whoever waits."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.lifetime import await_true, write

from sqlitereplica import NotRestorableError, Replicator, restore
from sqlitereplica.integrations.opentelemetry import OpenTelemetryObserver


def test_spans_of_a_wait_are_in_the_callers_trace(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    """In a thread, in a coroutine, and of a restore that fails; the rest stands alone."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    observer = OpenTelemetryObserver(tracer=tracer)

    async def request(replicator: Replicator) -> None:
        with tracer.start_as_current_span("async request"):
            write(db)
            await replicator.sync_async()

    with Replicator(tmp_path / "app.db", tmp_path / "r", observer=observer) as r:
        with tracer.start_as_current_span("request"):
            write(db)
            r.sync()
        asyncio.run(request(r))
    with tracer.start_as_current_span("start"):
        with pytest.raises(NotRestorableError):
            restore(tmp_path / "none", tmp_path / "restored.db", observer=observer)

    def named(name: str) -> list[ReadableSpan]:
        return [s for s in exporter.get_finished_spans() if s.name == name]

    await_true(lambda: named("sqlitereplica.put"))
    for outer in ("request", "async request"):
        (parent,) = named(outer)
        mine = [
            span
            for span in named("sqlitereplica.sync")
            if span.parent and span.parent.span_id == parent.context.span_id
        ]
        (span,) = mine
        assert span.attributes and span.attributes["db.system"] == "sqlite"
        assert span.start_time and span.end_time and parent.start_time
        assert parent.start_time <= span.end_time
        assert span.start_time <= span.end_time
    (failed,) = named("sqlitereplica.restore")
    assert failed.parent and not failed.status.is_ok
    assert failed.events[0].name == "exception"
    assert all(span.parent is None for span in named("sqlitereplica.put"))
