"""The Replicator: capture driven, increments uploaded, positions kept."""

from sqlitereplica.replicate.replicator import Replicator
from sqlitereplica.replicate.status import ReplicaStatus, Status

__all__ = ["ReplicaStatus", "Replicator", "Status"]
