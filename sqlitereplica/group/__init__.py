"""All databases of a folder in one process, however many there are."""

from sqlitereplica.group.group import ReplicatorGroup
from sqlitereplica.group.status import GroupHealth, GroupStatus, MemberStatus

__all__ = ["GroupHealth", "GroupStatus", "MemberStatus", "ReplicatorGroup"]
