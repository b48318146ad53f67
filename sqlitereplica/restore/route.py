"""How a followed file gets from its state to the newest one: pure, on listings.

Theory. A look costs one listing, of level 0: while the follower keeps up, the files there
lead on, and the newest of them is never deleted. (If it is lost all the same, a listing of
all levels now and then finds out.) Files of level 0 live for minutes, so one that was away
finds a gap, or files that begin behind its state. Then all levels are listed. Increments of
any level lead on if they join (``plan.extend``: each begins no later than one past what is
covered), wherever their boundaries are: one that overlaps the state of the file brings pages
that it has already. Where no increments lead to the newest state, or a snapshot is cheaper,
the state is made from there. What cannot be reached is an error, never a pause without a
word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlitereplica.errors import NotRestorableError, PosMismatchError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.plan import decisive, extend, plan_restore

__all__ = ["IN_STEP", "Route", "route", "shortcut"]


@dataclass(frozen=True, slots=True)
class Route:
    """Files to apply, in order; ``whole``: they make the state anew."""

    files: tuple[FileInfo, ...] = ()
    whole: bool = False


IN_STEP = Route()


def shortcut(level0: Sequence[FileInfo], txid: int) -> Route | None:
    """The way from a state by files of level 0; None if all levels must be looked at."""
    newest = max((file.max_txid for file in level0), default=0)
    if newest == txid:
        return IN_STEP
    steps = extend(level0, txid)
    if newest > txid and steps and steps[-1].max_txid == newest:
        return Route(tuple(steps))
    return None


def route(files: Sequence[FileInfo], txid: int) -> Route:
    """The way from a state to the newest one that there is, by files of any level.

    Raises:
        NotRestorableError: ``kind`` ``"empty"``: the replica is gone; ``"gap"``: files
            that lead to its newest state are missing.
        PosMismatchError: ``kind`` ``"behind"``: it ends before the state of the file.
    """
    if not files:
        raise NotRestorableError(
            "the replica is empty: it was there before and is gone", kind="empty"
        )
    newest = max(file.max_txid for file in files)
    if newest < txid:
        raise PosMismatchError(
            f"the replica ends with transaction {newest}, the file holds {txid}: it was"
            " set back, or replaced by another. Follow it to another path, or pass"
            " overwrite=True",
            expected_txid=txid,
            found_txid=newest,
            kind="behind",
        )
    steps = tuple(extend(files, txid))
    reached = steps[-1].max_txid if steps else txid
    try:
        plan = tuple(decisive(plan_restore(files)))
    except NotRestorableError:
        if steps:
            return Route(steps)
        if reached == newest:
            return IN_STEP
        raise
    end = plan[-1].max_txid
    if reached > end or (reached == end and _size(steps) <= _size(plan)):
        return Route(steps)
    return Route(plan, whole=True)


def _size(files: Sequence[FileInfo]) -> int:
    return sum(file.size for file in files)
