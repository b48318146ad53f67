"""``Follower.promote`` with a lease: from a copy to the one database that goes on.

The order is that of ``fencing.py``:

1. Take the lease of the replica; another's is waited for.
2. Follow to the newest state, put the fence behind it, follow that (``fence.py``).
3. Leave the page checksums for the Replicator (``promoted.py``), give the file away.
4. Leave the lease as it is: held, and not renewed. A Replicator with ``lease=`` on the same
   metadata folder takes it over at once, as an earlier life's of its own, whatever process it
   is in. Everybody else waits for its TTL.

Killed after 1 or 2, the next one does the same again; the lease is its own, and a second fence
does no harm. Killed in 3, the file is still followed, or it is found to have been given away
(``givenaway.py``). If anything fails before the end of 3 the lease is given back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlitereplica.errors import ReplicatorClosedError
from sqlitereplica.policy import Lease
from sqlitereplica.replicate.fence import Fence
from sqlitereplica.replicate.followthread import FollowThread, too_late
from sqlitereplica.replicate.leasing import Leasing

__all__ = ["promote"]

_LOOK = 0.1
_PATIENCE = 10.0


def promote(
    running: FollowThread,
    make_leasing: Callable[[Lease], Leasing],
    make_fence: Callable[[Leasing], Fence],
    lease: Lease | None,
    timeout: float | None,
) -> None:
    """Make the file a database of its own, with the lease of the replica unless None.

    Raises as ``Follower.promote``.
    """
    if lease is None:
        _take_in(running, None, timeout, timeout)
        return
    end = None if timeout is None else time.monotonic() + timeout
    leasing = make_leasing(lease)
    leasing.begin()
    done = False
    try:
        _await(leasing, running, _least(timeout, lease.wait_seconds))
        left = None if end is None else max(0.0, end - time.monotonic())
        _take_in(running, make_fence(leasing), left, timeout)
        done = True
    finally:
        leasing.end(_PATIENCE, keep=done)


def _await(leasing: Leasing, running: FollowThread, timeout: float | None) -> None:
    """Return when the lease is held, or the store can hold none."""
    end = None if timeout is None else time.monotonic() + timeout
    while not leasing.held.wait(_LOOK):
        if not running.thread.is_alive():
            raise ReplicatorClosedError("the Follower was stopped")
        if end is not None and time.monotonic() >= end:
            raise leasing.held_by_another()


def _take_in(
    running: FollowThread,
    fence: Fence | None,
    left: float | None,
    timeout: float | None,
) -> None:
    if not running.promote(left, fence):
        raise too_late(running, None, timeout)


def _least(one: float | None, other: float | None) -> float | None:
    return min((t for t in (one, other) if t is not None), default=None)
