"""Metrics for Prometheus, under Litestream's names where there is one.

An observer of a Replicator (and of ``restore``). It only ever sets and adds, and keeps no
collector of its own, so that it is right in prometheus_client's multiprocess mode as well:
counters of all processes are summed, also of those that ended; a gauge is what the process
that replicates said last. ``PROMETHEUS_MULTIPROC_DIR`` must be set before prometheus_client
is imported, as its documentation says.

Litestream names some counters without ``_total``, and prometheus_client would add it. Those
are gauges here that are only added to: ``rate()`` does not mind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from sqlitereplica.capture import CHECKPOINT_MODES
from sqlitereplica.errors import InvalidFileError
from sqlitereplica.events import DETAILS, Event, Observer, log_event

if TYPE_CHECKING:
    from sqlitereplica.group import GroupStatus
    from sqlitereplica.replicate import ReplicaStatus

__all__ = ["Exporter", "PrometheusObserver"]

_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
_LONG = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LEVEL0 = ("eligible", "not_compacted", "too_recent")


class PrometheusObserver:
    """Counts and measures; every event is passed on. Thread-safe.

    Make one for the whole process, and give it to every Replicator.

    Example:
        >>> metrics = PrometheusObserver()  # doctest: +SKIP
        >>> Replicator("app.db", "s3://bucket/app", observer=metrics)  # doctest: +SKIP
    """

    detailed = True

    def __init__(
        self, *, registry: CollectorRegistry = REGISTRY, then: Observer = log_event
    ) -> None:
        """Register the metrics.

        Args:
            registry: Where; by default prometheus_client's own.
            then: The observer that is given every event afterwards.

        Raises:
            ValueError: the registry has them already.
        """
        self._then = then
        self._then_detailed = bool(getattr(then, "detailed", False))
        self._make_database_metrics(registry)
        self._make_replica_metrics(registry)
        self._make_group_metrics(registry)

    def _make_database_metrics(self, registry: CollectorRegistry) -> None:
        def gauge(
            name: str, text: str, *more: str, mode: Any = "livemostrecent"
        ) -> Gauge:
            labels = ["db", *more]
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)

        def sum_of(name: str, text: str, *more: str) -> Gauge:
            return gauge(name, text, *more, mode="sum")

        self._db_size = gauge("litestream_db_size", "Bytes of the database")
        self._wal_size = gauge("litestream_wal_size", "Bytes of the WAL captured")
        self._txid = gauge("litestream_txid", "Newest transaction in any replica")
        self._full = gauge("litestream_disk_full", "1 while a disk is full")
        self._running = gauge("litestream_running", "1 while it is captured")
        self._last_time = gauge(
            "litestream_db_last_replica_time", "When a replica confirmed anything last"
        )
        self._wal_bytes = sum_of("litestream_total_wal_bytes", "Bytes captured")
        self._syncs = sum_of("litestream_sync_count", "Increments made")
        self._sync_errors = sum_of(
            "litestream_sync_error_count", "Captures that failed"
        )
        self._sync_seconds = sum_of("litestream_sync_seconds", "Seconds spent on them")
        self._checkpoints = {
            "count": sum_of("litestream_checkpoint_count", "Checkpoints tried", "mode"),
            "errors": sum_of(
                "litestream_checkpoint_error_count", "Checkpoints that failed", "mode"
            ),
            "seconds": sum_of(
                "litestream_checkpoint_seconds", "Seconds spent on them", "mode"
            ),
        }
        self._level0 = gauge(
            "litestream_l0_retention_files_total",
            "Files of level 0 by what may become of them, in all replicas",
            "status",
        )
        self._verify_errors = sum_of(
            "litestream_compaction_verify_error_count", "Damaged files met"
        )
        self._errors = self._sync_errors, self._verify_errors
        self._waits = Histogram(
            "litestream_durable_wait_seconds",
            "Seconds that callers waited for durability",
            ["db", "outcome"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._restores = Histogram(
            "litestream_restore_duration_seconds",
            "Seconds that restores took",
            ["outcome"],
            buckets=_LONG,
            registry=registry,
        )

    def _make_group_metrics(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(
                f"litestream_group_{name}",
                text,
                ["db", *labels],
                registry=registry,
                multiprocess_mode="livemostrecent",
            )

        self._group = gauge("databases", "Databases of a folder", "state")
        self._group_wait = gauge("wait_seconds", "How long one has waited for its turn")
        self._group_look = gauge("look_seconds", "What a look at all files took")

    def _make_replica_metrics(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(
                f"litestream_replica_{name}",
                text,
                ["db", "replica"],
                registry=registry,
                multiprocess_mode="livemostrecent",
            )

        self._lag = gauge("lag_seconds", "Age of the oldest change that it lacks")
        self._replica_txid = gauge("txid", "Newest transaction that it holds")
        self._success = gauge(
            "last_success_timestamp_seconds", "When it confirmed anything last"
        )
        self._spool = gauge("spool_bytes", "Bytes that wait for it")
        self._up = gauge("up", "1 while nothing fails")
        self._verify_ok = gauge("verify_ok", "1 if the last drill ended well")
        self._verify_time = gauge(
            "verify_timestamp_seconds", "When the last drill ended"
        )
        kinds = ["replica_type", "operation"]
        self._operations = Counter(
            "litestream_replica_operation", "Requests", kinds, registry=registry
        )
        self._operation_bytes = Gauge(
            "litestream_replica_operation_bytes",
            "Bytes sent and received",
            kinds,
            registry=registry,
            multiprocess_mode="sum",
        )
        self._operation_seconds = Histogram(
            "litestream_replica_operation_duration_seconds",
            "Seconds that requests took",
            kinds,
            buckets=_BUCKETS,
            registry=registry,
        )
        self._operation_errors = Counter(
            "litestream_replica_operation_errors",
            "Requests that failed",
            [*kinds, "code"],
            registry=registry,
        )

    def __call__(self, event: Event, /) -> None:
        """Count an event and pass it on."""
        self._count(event)
        if self._then_detailed or event.action not in DETAILS:
            self._then(event)

    def under(self, name: str) -> Observer:
        """An observer for many databases, which are counted together as ``db=name``.

        For a ``ReplicatorGroup``: labels for each of ten thousand would be too many. There
        are no gauges of single databases; see ``tell_group``.
        """
        return _Together(self, name)

    def tell_group(self, status: GroupStatus) -> None:
        """Show the counts of a group; to be called before a scrape is answered."""
        counts = {
            "running": status.running,
            "parked": status.parked,
            "waiting": status.waiting,
            "empty": status.empty,
            "failed": status.failed,
        }
        for state, count in counts.items():
            self._group.labels(status.folder, state).set(count)
        self._group_wait.labels(status.folder).set(status.longest_wait)
        self._group_look.labels(status.folder).set(status.look_seconds)

    def _count(self, event: Event) -> None:
        take = getattr(self, "_on_" + event.action.replace("-", "_"), None)
        if take is not None:
            take(event)
        if event.error is not None and any(
            getattr(cause, "errno", None) in _FULL for cause in _causes(event.error)
        ):
            self._full.labels(event.database).set(1)

    # -- one for each action ---------------------------------------------------------

    def _on_status(self, event: Event) -> None:
        db, status = event.database, event.data["status"]
        self._db_size.labels(db).set(event.data["database_bytes"])
        self._wal_size.labels(db).set(event.data["wal_bytes"])
        self._txid.labels(db).set(status.txid)
        self._running.labels(db).set(status.state == "running")
        # Shown as 0: increase() does not see a series begin with 1.
        for errors in self._errors:
            errors.labels(db)
        for mode in CHECKPOINT_MODES:
            self._add_checkpoints(db, mode, {})
        for fate in _LEVEL0 if event.data["level0"] else ():
            files = sum(getattr(found, fate) for found in event.data["level0"])
            self._level0.labels(os.path.basename(db), fate).set(files)
        if times := [r.last_success for r in status.replicas if r.last_success]:
            self._last_time.labels(db).set(max(times).timestamp())
        if status.error is None and not any(r.error for r in status.replicas):
            self._full.labels(db).set(0)
        for replica in status.replicas:
            self._on_replica(db, replica)

    def _on_replica(self, db: str, replica: ReplicaStatus) -> None:
        labels = db, replica.name
        self._lag.labels(*labels).set(replica.lag_seconds)
        self._replica_txid.labels(*labels).set(replica.txid)
        self._spool.labels(*labels).set(replica.spool_bytes)
        self._up.labels(*labels).set(replica.error is None)
        if replica.last_success is not None:
            self._success.labels(*labels).set(replica.last_success.timestamp())
        if replica.last_verify is not None:
            self._verify_ok.labels(*labels).set(replica.last_verify.ok)
            self._verify_time.labels(*labels).set(replica.last_verify.at.timestamp())

    def _on_increment(self, event: Event) -> None:
        self._syncs.labels(event.database).inc()
        self._sync_seconds.labels(event.database).inc(event.data["seconds"])
        self._wal_bytes.labels(event.database).inc(event.data["bytes"])

    def _on_capture_error(self, event: Event) -> None:
        self._sync_errors.labels(event.database).inc()

    def _on_checkpoint(self, event: Event) -> None:
        self._add_checkpoints(event.database, event.data["mode"], event.data)

    def _add_checkpoints(self, db: str, mode: str, tally: Mapping[str, Any]) -> None:
        for what, gauge in self._checkpoints.items():
            gauge.labels(db, mode.upper()).inc(tally.get(what, 0))

    def _on_history_error(self, event: Event) -> None:
        if isinstance(event.error, InvalidFileError):
            self._verify_errors.labels(event.database).inc()

    def _on_sync(self, event: Event) -> None:
        outcome = _code(event.error) or "ok"
        self._waits.labels(event.database, outcome).observe(event.data["seconds"])

    def _on_restore(self, event: Event) -> None:
        outcome = _code(event.error) or str(event.data.get("reason", "ok"))
        self._restores.labels(outcome).observe(event.data["seconds"])

    def _on_operation(self, event: Event) -> None:
        scheme, separator, _ = event.replica.partition("://")
        labels = scheme if separator else "file", event.data["operation"].upper()
        self._operations.labels(*labels).inc()
        self._operation_bytes.labels(*labels).inc(event.data["bytes"])
        self._operation_seconds.labels(*labels).observe(event.data["seconds"])
        if event.error is not None:
            self._operation_errors.labels(*labels, _code(event.error)).inc()


class _Together:
    """Counts the events of many databases as those of one."""

    detailed = True
    gauges = False

    def __init__(self, observer: PrometheusObserver, name: str) -> None:
        self._observer, self._name = observer, name

    def __call__(self, event: Event, /) -> None:
        """Count it under the name, and pass it on as it is."""
        if event.action != "status":
            self._observer._count(replace(event, database=self._name))
        if self._observer._then_detailed or event.action not in DETAILS:
            self._observer._then(event)


def _code(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(getattr(error, "kind", type(error).__name__))


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(8):
        if found is None:
            return
        yield found
        found = found.__cause__


class Exporter:
    """The metrics of a process in a registry of their own, and the page that shows them."""

    content_type: str = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.observer = PrometheusObserver(registry=self._registry)

    def page(self) -> bytes:
        """What a scrape is answered."""
        return bytes(generate_latest(self._registry))
