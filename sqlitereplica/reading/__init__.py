"""Reading replicas in place: connections at any time."""

from __future__ import annotations

from sqlitereplica.reading.branch import Branch, branch
from sqlitereplica.reading.connect import connect, replica_uri

__all__ = ["Branch", "branch", "connect", "replica_uri"]
