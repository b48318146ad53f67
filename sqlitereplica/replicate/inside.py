"""What a group has to know of its Replicators, beyond what they tell everybody.

Of one that is not elected (another process replicates) there is nothing to know here.
"""

from __future__ import annotations

from sqlitereplica.replicate.replicator import Replicator

__all__ = ["is_in_step", "keep_out_of_forks", "next_tending", "problem_of"]


def problem_of(replicator: Replicator) -> Exception | None:
    """What keeps capture from working."""
    running = replicator._running
    return None if running is None else running.engine.error


def is_in_step(replicator: Replicator) -> bool:
    """Whether every replica holds all that was captured, and more will not come of itself."""
    running = replicator._running
    if running is None:
        return True
    status = running.status()
    if status.state == "waiting":  # there is no database
        return True
    return (
        (status.state, status.error, status.pending_pages) == ("running", None, 0)
        and all(r.state == "streaming" and r.error is None for r in status.replicas)
        and not any(r.spool_bytes for r in status.replicas)
    )


def next_tending(replicator: Replicator) -> float | None:
    """When its history has something to do if nothing is committed: seconds since the epoch."""
    running = replicator._running
    found = None if running is None else running.next_tending()
    return None if found is None else found / 1000


def keep_out_of_forks(replicator: Replicator) -> None:
    """In the child of a fork it is stopped, rather than one more."""
    replicator._rejoins = False
