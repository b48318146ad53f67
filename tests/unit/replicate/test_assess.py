"""Health: a judgement of a status by thresholds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sqlitereplica import Replicator
from sqlitereplica.replicate.assess import HealthReport, Limits, assess
from sqlitereplica.replicate.drill import VerifySummary
from sqlitereplica.replicate.status import ReplicaStatus, Status

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
LIMITS = Limits(max_lag=60, max_spool_bytes=None, max_verify_age=None, need=1)


def one(name: str = "a", **fields: Any) -> ReplicaStatus:
    """A replica with which all is well."""
    return replace(
        ReplicaStatus(
            name=name,
            state="streaming",
            txid=1,
            lag_seconds=0.0,
            last_success=NOW,
            error=None,
            spool_bytes=0,
        ),
        **fields,
    )


def judged(
    *replicas: ReplicaStatus, limits: Limits = LIMITS, **fields: Any
) -> HealthReport:
    """A judgement of a Replicator with these replicas."""
    status = Status(
        database="/a.db",
        state="running",
        txid=1,
        error=None,
        pending_pages=0,
        replicas=replicas,
    )
    return assess(replace(status, **fields), limits, NOW)


def test_all_well_is_ok_and_has_no_reasons() -> None:
    """It is true in a condition."""
    report = judged(one())
    assert report and report.ok and report.reasons == ()


@pytest.mark.parametrize("state", ["stopped", "failed", "attaching", "electing"])
def test_database_that_is_not_captured_is_unhealthy(state: str) -> None:
    """Whatever its replicas say."""
    report = judged(one(), state=state)
    assert not report and report.reasons == (f"replication is {state}",)


@pytest.mark.parametrize("state", ["waiting", "standby"])
def test_state_in_which_there_is_nothing_to_capture_is_healthy(state: str) -> None:
    """No database yet, or another host replicates."""
    assert judged(one(lag_seconds=1e6), state=state)


def test_error_of_capture_is_unhealthy() -> None:
    """Checkpoints that fail let the WAL grow."""
    assert judged(one(), error="disk full").reasons == ("the database: disk full",)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lag_seconds": 60.5, "error": "away"}, "a is 60.5 s behind: away"),
        ({"lag_seconds": 61.0}, "a is 61.0 s behind"),
        ({"state": "failed", "error": "fenced"}, "a has failed for good: fenced"),
        ({"error": "no", "last_success": None}, "a was never reached: no"),
    ],
)
def test_replica_beyond_a_limit_is_a_reason(
    fields: dict[str, Any], reason: str
) -> None:
    """With the only one the whole is unhealthy, with another it is not."""
    bad = one(**fields)
    assert judged(bad).reasons == (reason,) and not judged(bad)
    both = judged(bad, one("b"))
    assert both and both.reasons == (reason,)
    assert not judged(bad, one("b"), limits=replace(LIMITS, need=2))


def test_failure_that_is_young_is_no_reason_yet() -> None:
    """A load balancer is not to drop a host for one lost request."""
    assert judged(one(error="away", lag_seconds=2.0)).reasons == ()


def test_spool_and_drills_have_limits_of_their_own() -> None:
    """Only where they are asked for."""
    drill = VerifySummary(
        at=NOW - timedelta(days=2),
        ok=True,
        level="restore",
        duration_seconds=1.0,
        txid=1,
        problem=None,
    )
    bad = replace(drill, ok=False, problem="gone")
    limits = replace(LIMITS, max_spool_bytes=10, max_verify_age=86_400.0)
    assert judged(one(spool_bytes=11, last_verify=drill))
    found = judged(one(spool_bytes=11, last_verify=drill), limits=limits)
    assert found.reasons == ("a has 11 bytes waiting", "a was verified 172800 s ago")
    assert judged(one(), limits=limits).reasons == ("a was not verified yet",)
    assert "gone" in judged(one(last_verify=bad), limits=limits).reasons[0]


def test_report_is_json() -> None:
    """With the whole status in it."""
    found = json.loads(judged(one(lag_seconds=99.0)).to_json())
    assert found["ok"] is False and found["reasons"] == ["a is 99.0 s behind"]
    assert found["status"]["replicas"][0]["name"] == "a"


@pytest.mark.parametrize(
    "limit", [{"max_lag": 0}, {"max_spool_bytes": -1}, {"max_verify_age": -1.0}]
)
def test_limit_that_cannot_be_meant_is_refused(
    tmp_path: Path, limit: dict[str, Any]
) -> None:
    """Rather than to be always healthy, or never."""
    replicator = Replicator(tmp_path / "a.db", tmp_path / "r")
    with pytest.raises(ValueError):
        replicator.health(**limit)
    assert replicator.health().reasons == ("replication is stopped",)
