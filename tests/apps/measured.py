"""A WSGI application with metrics of all its workers, as prometheus_client has it.

``MEASURED_DATABASE`` and ``MEASURED_REPLICA`` say where its files are.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from sqlitereplica import Replicator
from sqlitereplica.integrations.prometheus import PrometheusObserver

__all__ = ["application"]

DATABASE, REPLICA = os.environ["MEASURED_DATABASE"], os.environ["MEASURED_REPLICA"]

with closing(sqlite3.connect(DATABASE)) as connection:
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table if not exists note(body)")

replicator = Replicator(
    DATABASE, REPLICA, sync_interval=3600, observer=PrometheusObserver()
)


def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """``POST`` writes a note durably, ``/metrics`` is for Prometheus."""
    replicator.start()
    if environ["REQUEST_METHOD"] == "POST":
        with closing(sqlite3.connect(DATABASE, timeout=30)) as db, db:
            db.execute("insert into note values(randomblob(1000))")
        replicator.sync()
    start("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return [generate_latest(registry)]
    status, health = replicator.status(), replicator.health()
    answer = {"pid": status.pid, "ok": health.ok, "reasons": health.reasons}
    return [json.dumps(answer).encode()]
