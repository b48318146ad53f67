"""Where one holder of the lease ends and the next begins, in the files themselves.

A lease by itself protects nothing: its holder may be stopped between a look at the clock and
the put that follows, for any time, and wake up when another holds it. What protects is that
level 0 is a row of names, each of which is taken once, by whoever is first. Pure: the
worker (``worker.py``) and the simulation of the tests ask here what to do.

**The rule.** Whoever takes over from another host does, in this order:

1. It acquires the lease.
2. It lists the replica, and looks whether the database is its newest state, n. If not, it
   does not go on: what differs may have been acknowledged to the users of the other.
3. It puts file n + 1, the *fence*, from its own hand: the pages that differ, or if none
   does, page 1 as it is. If that name is taken, it goes back to 2.
4. Only now its ``start`` returns, and it acknowledges.

**Why nothing is lost or forked**, whatever clocks do and however late requests arrive. Say the
fence of the new holder is file m. A put of the old one that succeeds has a name below m, for
m is taken. All of those were there before the fence was, and file m was made in knowledge of
m - 1, the last of them: so all that the old one ever acknowledged is in the state from which
the new one goes on. The next put of the old one, or the one that it had sent long ago, meets
a name that is taken by other bytes: it fails, and says so to whoever waits in ``sync()``.

So the time limits of the lease are for peace, not for safety: a contender leaves a living
holder alone, and a holder that is cut off stops early and says why.

What remains is a store that does not refuse a name that is taken. Nothing can be fenced there;
it holds no lease, and a Replicator says so at its start.

The lease lives in the first replica, and this rule is kept there. In the others the new
holder goes on from whatever they hold by a delta, since they may be behind.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Entrance", "Predecessor", "Tenure", "entrance", "forgives"]


class Predecessor(enum.Enum):
    """Who held the lease before."""

    NOBODY = "nobody"
    """There was no lease: what Litestream left, for one, is gone on from."""
    SELF = "self"
    """This host, in an earlier life. Whether that one got as far as its fence is open."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Tenure:
    """One time of holding the lease, as one replica sees it.

    ``leads`` is whether that replica is the one that has the lease.
    """

    epoch: int
    predecessor: Predecessor
    leads: bool = True


class Entrance(enum.Enum):
    """How to begin at a replica."""

    CONTINUE = "continue"
    """Put what differs, if anything does."""
    FENCE = "fence"
    """Put what differs; and if nothing does, a file that changes nothing."""
    COMPARE = "compare"
    """Fence if the database is the newest state there, refuse if it is not."""


def entrance(
    tenure: Tenure | None, *, settled: bool, txid: int, writer: int, node: int
) -> Entrance:
    """How to begin at a replica whose newest state is ``txid``, for the host ``node``.

    ``settled`` is whether a put of this tenure has succeeded there; ``writer`` the node
    that wrote the newest file, 0 if it is not known.
    """
    if tenure is None or settled:
        return Entrance.CONTINUE
    is_first = tenure.predecessor is Predecessor.NOBODY
    if tenure.leads and txid > 0 and writer != node and (writer or not is_first):
        return Entrance.COMPARE
    # Where there is no file yet the first put is the fence. Where the newest is ours, no
    # other has ever acknowledged anything since.
    is_other = tenure.predecessor is Predecessor.OTHER
    return Entrance.FENCE if is_other else Entrance.CONTINUE


def forgives(tenure: Tenure | None, *, settled: bool) -> bool:
    """Whether to look again when a name is taken, instead of giving up.

    A put of an earlier holder may arrive late, but not behind our first one.
    """
    return tenure is not None and not settled
