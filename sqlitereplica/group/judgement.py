"""What a group says of itself: counts, and whether they are good enough. Bounded work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlitereplica.group.decide import State
from sqlitereplica.group.keeper import Keeper
from sqlitereplica.group.member import SLOTTED, Member
from sqlitereplica.group.status import GroupHealth, GroupStatus, MemberStatus
from sqlitereplica.replicate.inside import problem_of

__all__ = ["assess", "member_status", "status_of", "stopped_status"]

_SHOWN = 20


def status_of(keeper: Keeper, folder: str, now: float) -> GroupStatus:
    """The counts; ``now`` is a monotonic time."""
    pool = keeper.pool
    with pool.cond:
        counts = Counter(member.state for member in pool.table)
        total = len(pool.table)
        failing = [m for m in pool.table if m.state is State.FAILED][:_SHOWN]
        errors = {m.rel: str(m.error) for m in failing}
        errors |= {rel: str(e) for rel, e in _problems(keeper)}
        wait = max((now - m.since for m in list(pool.queue)[:_SHOWN]), default=0.0)
        errors |= {rel: str(error) for rel, error in keeper.errors.items()}
        running = sum(counts[state] for state in SLOTTED)
        return GroupStatus(
            folder=folder,
            state="running" if pool.accepts else "stopped",
            databases=total,
            running=running,
            parked=counts[State.PARKED],
            waiting=counts[State.WAITING],
            empty=counts[State.EMPTY],
            failed=counts[State.FAILED],
            removed=keeper.removed,
            longest_wait=wait,
            last_look=keeper.looked_at,
            look_seconds=keeper.look_seconds,
            errors=dict(list(errors.items())[:_SHOWN]),
        )


def _problems(keeper: Keeper) -> Iterator[tuple[str, Exception]]:
    """What keeps those from being captured that run."""
    for member in keeper.pool.table.slotted:
        replicator = member.replicator
        problem = None if replicator is None else problem_of(replicator)
        if problem is not None:
            yield member.rel, problem


def stopped_status(folder: str) -> GroupStatus:
    """Of one that does not run."""
    return GroupStatus(
        folder=folder,
        state="stopped",
        databases=0,
        running=0,
        parked=0,
        waiting=0,
        empty=0,
        failed=0,
        removed=0,
        longest_wait=0.0,
        last_look=None,
        look_seconds=0.0,
        errors={},
    )


def member_status(keeper: Keeper, rel: str, path: str) -> MemberStatus:
    """Of one database; of one that is not there, too."""
    member = keeper.pool.table.get(rel)
    if member is None:
        error = keeper.errors.get(rel)
        state = "removed" if rel in keeper.gone else "unknown"
        return MemberStatus(
            database=path,
            state=state if error is None else "failed",
            error=error,
            status=None,
            next_tending=None,
        )
    replicator, due = member.replicator, member.due_at
    is_parked = member.state is State.PARKED and due is not None
    return MemberStatus(
        database=path,
        state=member.state.value,
        error=member.error if member.state is State.FAILED else None,
        status=None if replicator is None else replicator.status(),
        next_tending=datetime.fromtimestamp(due, UTC) if is_parked and due else None,
    )


def assess(keeper: Keeper, status: GroupStatus, max_lag: float) -> GroupHealth:
    """Judge it: what fails, who waits for too long, how those fare that run."""
    reasons = [] if status.state == "running" else ["it is stopped"]
    reasons += [f"{rel or status.folder}: {e}" for rel, e in status.errors.items()]
    if status.failed > _SHOWN:
        reasons.append(f"{status.failed} databases cannot be replicated")
    if status.longest_wait > max_lag:
        reasons.append(
            f"{status.waiting} databases wait for their turn, one of them for"
            f" {status.longest_wait:.0f} s"
        )
    with keeper.pool.cond:
        running = [m for m in keeper.pool.table.slotted if m.state is State.RUNNING]
    for member in running:
        reasons += _reasons(member, max_lag)
    return GroupHealth(ok=not reasons, reasons=tuple(reasons[:_SHOWN]), status=status)


def _reasons(member: Member, max_lag: float) -> list[str]:
    replicator = member.replicator
    if replicator is None:
        return []
    health = replicator.health(max_lag=max_lag)
    return [] if health.ok else [f"{member.rel}: {why}" for why in health.reasons]
