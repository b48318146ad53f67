"""What a group passes on to each of its Replicators."""

from __future__ import annotations

from typing import TypedDict

from sqlitereplica.durations import Duration
from sqlitereplica.policy import Retention
from sqlitereplica.replicate import Require

__all__ = ["ReplicatorSettings"]


class ReplicatorSettings(TypedDict, total=False):
    """Arguments of ``Replicator`` that make sense for databases which are parked."""

    sync_interval: float
    require: Require
    set_wal: bool
    buffer_size: int
    spool_size: int
    levels: tuple[Duration, ...]
    snapshot_interval: Duration | None
    retention: Retention | Duration | None
