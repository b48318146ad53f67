"""Metrics: in one process, and in the workers of a real server."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.lifetime import await_true, write
from support.switchable import SwitchableFileSystem
from support.webserver import WebServer

from sqlitereplica import (
    DatabaseStateError,
    Replica,
    Replicator,
    ReplicatorGroup,
    SyncTimeoutError,
    restore,
)
from sqlitereplica.events import DETAILS, Event, Observers
from sqlitereplica.integrations.prometheus import PrometheusObserver
from sqlitereplica.sqlite import SourceConnection

APPS = Path(__file__).parents[2] / "apps"


@pytest.fixture
def registry() -> CollectorRegistry:
    """One of the test's own."""
    return CollectorRegistry()


def test_metrics_of_a_working_replicator(
    registry: CollectorRegistry, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Gauges say how it is when it stops, counters what was done; names are Litestream's."""
    events: list[Event] = []
    metrics = PrometheusObserver(registry=registry, then=events.append)
    store = SwitchableFileSystem()
    replica = Replica(store, path="/r", name="memory://r")
    path = str(tmp_path / "app.db")
    with Replicator(path, replica, sync_interval=3600, observer=metrics) as replicator:
        replicator.sync()
        for _ in range(3):
            write(db)
            replicator.sync()
    restore(replica, tmp_path / "restored.db", observer=metrics)

    def value(name: str, **labels: str) -> float:
        found = registry.get_sample_value(f"litestream_{name}", labels)
        assert found is not None, (name, labels)
        return found

    one = {"db": path, "replica": "memory://r"}
    assert value("db_size", db=path) == len(db.serialize())
    assert value("wal_size", db=path) > 4096
    assert value("txid", db=path) == value("replica_txid", **one) == 4
    assert value("sync_count", db=path) == 3
    assert value("sync_seconds", db=path) > 0
    assert value("total_wal_bytes", db=path) >= 3 * 4096
    assert value("disk_full", db=path) == 0
    assert (value("replica_lag_seconds", **one), value("replica_up", **one)) == (0, 1)
    assert value("replica_last_success_timestamp_seconds", **one) > 1_700_000_000
    confirmed = value("replica_last_success_timestamp_seconds", **one)
    assert value("db_last_replica_time", db=path) == confirmed
    for errors in ("sync", "compaction_verify"):
        assert value(f"{errors}_error_count", db=path) == 0  # there before the first
    for mode in ("PASSIVE", "TRUNCATE"):
        assert value("checkpoint_error_count", db=path, mode=mode) == 0
    assert value("replica_spool_bytes", **one) == 0
    put = {"replica_type": "memory", "operation": "PUT"}
    assert value("replica_operation_total", **put) >= 4  # a snapshot may be due
    assert value("replica_operation_bytes", **put) > 0
    assert value("replica_operation_duration_seconds_count", **put) >= 4
    assert value("durable_wait_seconds_count", db=path, outcome="ok") == 5
    assert value("restore_duration_seconds_count", outcome="restored") == 1
    assert "upload" in {e.action for e in events}
    assert "operation" not in {e.action for e in events}


def test_metrics_of_a_store_that_is_away(
    registry: CollectorRegistry, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Errors are counted by what they are, and a full disk is a gauge of its own."""
    metrics = PrometheusObserver(registry=registry, then=lambda event: None)
    store = SwitchableFileSystem()
    path = str(tmp_path / "app.db")
    replica = Replica(store, path="/r", name="memory://r")

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"litestream_{name}", labels) or 0.0

    with Replicator(path, replica, observer=metrics) as replicator:
        replicator.sync()
        store.fail(OSError(28, "no space"))
        write(db)
        with pytest.raises(SyncTimeoutError):
            replicator.sync(timeout=0.05)
        await_true(lambda: value("disk_full", db=path))
        put = {"replica_type": "memory", "operation": "PUT"}
        assert value("replica_operation_errors_total", **put, code="store") > 0
        timeouts = {"db": path, "outcome": "sync-timeout"}
        assert value("durable_wait_seconds_count", **timeouts) == 1
        store.heal()
        replicator.sync()
    assert value("disk_full", db=path) == 0


def test_checkpoints_are_counted_by_mode(
    registry: CollectorRegistry,
    db: sqlite3.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what they took, and of those how many failed."""
    metrics = PrometheusObserver(registry=registry, then=lambda event: None)
    path = str(tmp_path / "app.db")
    db.execute("pragma wal_autocheckpoint=0")

    def value(name: str, mode: str) -> float:
        labels = {"db": path, "mode": mode}
        name = f"litestream_checkpoint_{name}"
        return registry.get_sample_value(name, labels) or 0.0

    def fill() -> None:
        db.execute("insert into t(v) values(randomblob(20000000))")

    def full(connection: SourceConnection, mode: str) -> bool:
        raise DatabaseStateError("disk is full", path=connection.path, kind="sqlite")

    with Replicator(path, tmp_path / "r", observer=metrics) as replicator:
        replicator.sync()
        fill()
        await_true(lambda: value("count", "PASSIVE") and value("count", "TRUNCATE"))
        assert value("seconds", "PASSIVE") > 0 and value("seconds", "TRUNCATE") > 0
        assert value("error_count", "PASSIVE") == 0
        before = value("count", "PASSIVE")
        with monkeypatch.context() as patched:
            patched.setattr(SourceConnection, "checkpoint", full)
            fill()
            await_true(lambda: value("error_count", "PASSIVE") >= 2)
        assert value("count", "PASSIVE") >= before + 2


def test_files_of_level_0_are_counted_by_what_becomes_of_them(
    registry: CollectorRegistry, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Under the base name of the database, as Litestream has it, for all replicas."""
    metrics = PrometheusObserver(registry=registry, then=lambda event: None)
    replicas = [tmp_path / "one", tmp_path / "two"]
    level0 = [replica / "ltx" / "0" for replica in replicas]
    more = {"levels": ("1h",), "snapshot_interval": None, "observer": metrics}
    with Replicator(tmp_path / "app.db", replicas, **more) as replicator:
        for _ in range(3):
            write(db)
            replicator.sync()
        replicator.compact()
        write(db)
        replicator.sync()
        held = sum(len(list(folder.iterdir())) for folder in level0)
    # The last event of status is that of the end.
    counted = {"not_compacted": 2, "too_recent": held - 2, "eligible": 0}
    assert _level0(registry) == counted


def _level0(registry: CollectorRegistry) -> dict[str, float]:
    name = "litestream_l0_retention_files_total"
    return {
        fate: registry.get_sample_value(name, {"db": "app.db", "status": fate}) or 0.0
        for fate in ("eligible", "not_compacted", "too_recent")
    }


def test_a_group_is_counted_as_one(registry: CollectorRegistry, tmp_path: Path) -> None:
    """No label names a database; counters are of all, and the states are counted."""
    seen: list[Event] = []
    metrics = PrometheusObserver(registry=registry, then=seen.append)
    (tmp_path / "t").mkdir()
    for name in ("a.db", "b.db"):
        with closing(sqlite3.connect(tmp_path / "t" / name)) as one:
            one.execute("create table t(x)")
    observer = metrics.under("tenants")
    backups = str(tmp_path / "backups")
    with ReplicatorGroup(tmp_path / "t", backups, observer=observer) as group:
        group.sync(timeout=90)
        with closing(sqlite3.connect(tmp_path / "t/a.db")) as one:
            one.execute("insert into t values(1)")
            one.commit()
        group.sync(timeout=90)
        metrics.tell_group(group.status())
    labels = {
        value
        for family in registry.collect()
        for sample in family.samples
        for name, value in sample.labels.items()
        if name in ("db", "replica")
    }
    assert labels == {"tenants", str(tmp_path / "t")}
    states = {"db": str(tmp_path / "t"), "state": "failed"}
    assert registry.get_sample_value("litestream_group_databases", states) == 0
    assert registry.get_sample_value("litestream_sync_count", {"db": "tenants"}) == 1
    told = {event.database for event in seen}
    assert told == {str(tmp_path / "t" / name) for name in ("a.db", "b.db")}


def test_several_observers_take_what_each_wants(
    db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Details go to who asks for them; one that raises harms neither the others nor us."""

    class Detailed(list[Event]):
        detailed = True

        def __call__(self, event: Event) -> None:
            self.append(event)

    def broken(event: Event) -> None:
        raise RuntimeError

    plain: list[Event] = []
    detailed = Detailed()
    observer = Observers(broken, plain.append, detailed)
    with Replicator(tmp_path / "app.db", tmp_path / "r", observer=observer) as r:
        r.sync()
        write(db)
        r.sync()
    seen = {event.action for event in detailed}
    assert {"attach", "operation", "increment", "sync", "status", "upload"} <= seen
    told = {event.action for event in plain}
    assert {"attach", "delta", "upload"} <= told and not told & DETAILS


# -- many processes --------------------------------------------------------------------


class Site:
    """The application under gunicorn."""

    def __init__(self, server: WebServer) -> None:
        self.server = server

    def post(self) -> None:
        """One durable note."""
        with closing(
            HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        ) as connection:
            connection.request("POST", "/note")
            assert connection.getresponse().status == 200

    def metrics(self) -> dict[str, float]:
        """The values by name; there is one database and one replica."""
        with closing(
            HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        ) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "operation" not in sample.labels or (
                    sample.labels["operation"] == "PUT"
                ):
                    found[sample.name] = found.get(sample.name, 0) + sample.value
        return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_metrics_of_all_workers_are_one(tmp_path: Path) -> None:
    """Whichever worker is asked, also after the one that replicated was killed."""
    (tmp_path / "prometheus").mkdir()
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))
    env = {
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "prometheus"),
        "MEASURED_DATABASE": str(tmp_path / "app.db"),
        "MEASURED_REPLICA": str(tmp_path / "replica"),
    }
    settings = f"--config={APPS / 'measured_gunicorn.py'}"
    command = f"-m gunicorn --bind=127.0.0.1:0 --workers=2 {settings} measured"
    with WebServer(
        [sys.executable, *f"{command}:application".split()],
        log=tmp_path / "server.log",
        folder=tmp_path,
        env=env,
    ) as server:
        site = Site(server)
        for _ in range(10):
            site.post()
        await_true(lambda: site.metrics().get("litestream_txid", 0) >= 2)
        before = site.metrics()
        assert before["litestream_durable_wait_seconds_count"] == 10
        puts = before["litestream_replica_operation_total"]
        assert puts >= before["litestream_sync_count"] >= 1
        assert before["litestream_running"] == 1

        elected = server.get("/status")["pid"]
        os.kill(elected, signal.SIGKILL)
        await_true(lambda: not Path(f"/proc/{elected}").exists())
        await_true(lambda: server.get("/status")["pid"] not in (0, elected))
        for _ in range(4):
            site.post()

        def is_taken_over() -> bool:
            now = site.metrics()
            waits = now["litestream_durable_wait_seconds_count"]
            txid = now.get("litestream_txid", 0)
            more = now["litestream_replica_operation_total"] > puts
            return waits == 14 and txid > before["litestream_txid"] and more

        await_true(is_taken_over)
        assert site.metrics()["litestream_running"] == 1
        assert server.get("/status")["ok"]
