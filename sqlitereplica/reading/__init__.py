"""Reading replicas in place: connections at any time."""

from __future__ import annotations

from sqlitereplica.reading.branch import Branch, branch
from sqlitereplica.reading.changes import Diff, RowChange, SchemaChange
from sqlitereplica.reading.connect import connect, replica_uri
from sqlitereplica.reading.diff import diff

__all__ = [
    "Branch",
    "Diff",
    "RowChange",
    "SchemaChange",
    "branch",
    "connect",
    "diff",
    "replica_uri",
]
