"""The Replicator: capture, replicas and who waits for them, and the Follower."""

from sqlitereplica.replicate.assess import HealthReport
from sqlitereplica.replicate.bookmark import Position
from sqlitereplica.replicate.follower import Follower, FollowerStatus
from sqlitereplica.replicate.forget import forget_metadata
from sqlitereplica.replicate.mirror import Mirror
from sqlitereplica.replicate.replicator import Replicator
from sqlitereplica.replicate.status import LeaseStatus, ReplicaStatus, Status
from sqlitereplica.replicate.waiting import Require

__all__ = [
    "Follower",
    "FollowerStatus",
    "HealthReport",
    "LeaseStatus",
    "Mirror",
    "Position",
    "ReplicaStatus",
    "Replicator",
    "Require",
    "Status",
    "forget_metadata",
]
