"""Status values: what a health endpoint needs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlitereplica import ReplicaStatus, Status

REPLICA = ReplicaStatus(
    name="s3://bucket/app",
    state="streaming",
    txid=7,
    lag_seconds=0.0,
    last_success=datetime(2026, 11, 24, tzinfo=UTC),
    error=None,
    spool_bytes=0,
)


def status(state: str = "running", error: str | None = None) -> Status:
    """A status with one replica that keeps up."""
    return Status(
        database="/app.db",
        state=state,
        txid=7,
        error=error,
        pending_pages=0,
        replicas=(REPLICA,),
    )


def test_json_has_every_field() -> None:
    """For a health endpoint or a log."""
    found = json.loads(status().to_json())
    assert found["replicas"][0]["txid"] == 7
    assert found["replicas"][0]["last_success"] == "2026-11-24T00:00:00Z"
    assert set(found) == {
        *("database", "state", "txid", "error", "pending_pages", "replicas", "pid"),
        "lease",
    }


def test_ok_means_that_nothing_fails_and_everybody_keeps_up() -> None:
    """One flag for an alert."""
    assert status().ok
    assert not status(state="attaching").ok
    assert not status(error="disk is full").ok
