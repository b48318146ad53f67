"""The Replicator: capture, replicas and who waits for them, and the Follower."""

from sqlitereplica.replicate.follower import Follower, FollowerStatus
from sqlitereplica.replicate.forget import forget_metadata
from sqlitereplica.replicate.replicator import Replicator
from sqlitereplica.replicate.status import ReplicaStatus, Status

__all__ = [
    "Follower",
    "FollowerStatus",
    "ReplicaStatus",
    "Replicator",
    "Status",
    "forget_metadata",
]
