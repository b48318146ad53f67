"""Settings of gunicorn: what prometheus_client wants to be told."""

from __future__ import annotations

from typing import Any

from prometheus_client import multiprocess


def child_exit(server: Any, worker: Any) -> None:
    """A worker is gone: so are its gauges."""
    multiprocess.mark_process_dead(worker.pid)
