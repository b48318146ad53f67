"""Jobs on many replicas at once, on any ``concurrent.futures.Executor``."""

from sqlitereplica.errors import JobLostError
from sqlitereplica.fleet.compacting import CompactReport, compact_replica
from sqlitereplica.fleet.jobs import compact_all, restore_all, verify_all
from sqlitereplica.fleet.outcome import Outcome
from sqlitereplica.store import find_replicas

__all__ = [
    "CompactReport",
    "JobLostError",
    "Outcome",
    "compact_all",
    "compact_replica",
    "find_replicas",
    "restore_all",
    "verify_all",
]
