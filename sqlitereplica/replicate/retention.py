"""What may be deleted from a replica: pure decisions on a listing, a policy and the time.

Theory. First the *points* that stay are chosen, then the files that these need; what is
left over may go once nobody can be reading it any more.

Points. A point is a state that can be restored, with the time in the last file of its
plan. ``kept_points`` says which stay and why:

* the newest state, pins, and the newest snapshots;
* in the window every point that a level above 0 gives; for ``fine`` every single upload;
* of both spans the newest point before their start, so that asking for any time in them
  has an answer, and the same one as before;
* of the newest hours, days, weeks and months that have points one each: the last
  snapshot, else the last point that was merged, else the last of all. A choice only ever
  moves to a point that is there, so one that was made stays until a better one exists.

Files. A point needs the files of the plan that readers make for it, ours and Litestream's:
``Chains`` has them all. They are not always the fewest bytes, but they have a property
that a cheapest choice lacks: *as long as they are there, whatever else is there, readers
choose them*. For at each step the plan takes the greatest of the files that join, and it
stays the greatest if others go. So at every moment while files are deleted one by one, and
after a crash in between, a reader that lists the replica gets a plan for each kept point
that will not be touched. And what is kept is what the plans for kept points use, no
more: judging again what was left deletes nothing.

By time. A restore ``before`` T finds a point if some chain to it has only earlier files.
In the window that must hold for each T for which it does now: if a point's plan is later
than the point could be had, its earliest chain stays too. With times that rise that never
happens. If the clock was set back, a point counts as in the window with the latest time of
all up to it, in the order of TXIDs. A time later than now proves that a clock is wrong: it
says nothing about other points, but its own point stays.

Beyond the points these stay:

* the newest file of each level: there compaction goes on, Litestream takes over, and we
  read our position. Without it an idle replica would be compacted anew after each deletion.
  With it, if a point before it stays, what leads to where it ends: alone between points
  it would look like what is left of a loss;
* increments that lead from the start of the window to the newest state without a hole,
  also where a snapshot would do: for followers, and as inputs of compactions to come;
* in the window, files beyond a gap that a snapshot bridged: it may be healed yet;
* files of the snapshot level that are no full image: whatever they are, not ours;
* with a gap before the newest state, everything. Either the listing lies, or files were
  lost and must be healed before the rest is judged;
* whatever has the name of a file that stays: listings may name a file twice.

Grace. A file goes when it was not needed for ``grace`` seconds without a break. Restores
of kept points need no grace, by the property above. It serves restores of points that
stop being kept, and those whose plan was made before a compaction gave a better one.
Level-0 files are small and read at once, and an hour of them may be thousands: they get
five minutes at most.

Order. The files go newest first, and one whose time has come waits for those that it leads
to and whose time has not: what leads on from a file goes before it. What leads to the
newest file of a level waits as well, as long as a state before it does. Before the first
state that is left all goes, the oldest first: then what leads to such a newest file never
stands behind a state without it. So at no moment files are left behind a state that nothing
leads to, which could not be told from a loss.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.store.chains import Chains, Point, rank
from sqlitereplica.store.reach import to_datetime

__all__ = [
    "Decision",
    "KeptPoint",
    "Level0Files",
    "due",
    "grace_of",
    "kept_points",
    "level0_files",
    "unneeded_files",
]

_LEVEL_0_GRACE = 300.0  # seconds
_HOUR = 3_600_000  # milliseconds
_END_OF_TIME = 1 << 64


@dataclass(frozen=True, slots=True)
class KeptPoint:
    """A restore point that stays.

    Attributes:
        txid: The state.
        timestamp: Its time, in milliseconds since the epoch.
        by: A restore of the files up to this time finds it, or a later kept one.
        reasons: Why: ``"latest"``, ``"fine"``, ``"window"``, ``"start"`` (of one of these
            spans), ``"clock"`` (it shows that a clock was set back), ``"snapshot"``,
            ``"hourly"``, ``"daily"``, ``"weekly"``, ``"monthly"``, ``"pin"``.
    """

    txid: int
    timestamp: int
    by: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to delete now, in this order, and what is not needed since when.

    ``doomed`` is given back the next time. It holds the files to be deleted, too: one that
    could not be is due again at once, one that is gone is forgotten.
    """

    delete: tuple[FileInfo, ...]
    doomed: Mapping[FileInfo, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level0Files:
    """How many files level 0 has, by what may become of them."""

    not_compacted: int
    """They have what no level above has yet."""
    too_recent: int
    """They were merged, and stay for now: for the policy, a pin, or who may be reading."""
    eligible: int
    """They go with the next retention."""


def level0_files(
    files: Iterable[FileInfo], delete: Collection[FileInfo]
) -> Level0Files:
    """Count the files of level 0; ``delete`` is that of a ``Decision``."""
    listed = list(files)
    merged = max((f.max_txid for f in listed if f.level), default=0)
    level0 = {f for f in listed if not f.level}
    stay = level0.difference(delete)
    waiting = sum(1 for f in stay if f.max_txid > merged)
    return Level0Files(
        not_compacted=waiting,
        too_recent=len(stay) - waiting,
        eligible=len(level0) - len(stay),
    )


def kept_points(
    files: Iterable[FileInfo],
    policy: Retention,
    now: int,
    pins: Collection[int] = (),
) -> list[KeptPoint]:
    """Choose the restore points that stay, by ascending TXID.

    Args:
        files: All files of the replica, in any order, with the times of their headers.
        policy: What stays for how long.
        now: Milliseconds since the epoch.
        pins: TXIDs that stay. The nearest points stay for one that cannot be restored.
    """
    chains = Chains(files)
    keeping = _choose(chains, policy, now, pins)
    return [
        KeptPoint(chains.txids[i], chains.points[i].timestamp, by, keeping.reasons[i])
        for i, by in sorted(keeping.by.items())
    ]


def unneeded_files(
    files: Iterable[FileInfo],
    policy: Retention,
    now: int,
    pins: Collection[int] = (),
) -> list[FileInfo]:
    """Return the files without which every kept point is restored as before.

    They are in the order in which they should go. Arguments as of ``kept_points``.
    """
    listed = set(files)
    chains = Chains(listed)
    if not chains.is_whole:
        return []
    window = now - policy.window_ms
    points = _choose(chains, policy, now, pins).by
    kept = _needed(chains, points.items())
    newest = _newest_of_levels(chains.files)
    kept |= newest
    first = chains.txids[min(points)]
    kept |= _leading_to((f for f in newest if f.max_txid > first), chains)
    before = _newest_before(chains.points, window)
    kept |= set(chains.increments_from(before if before >= 0 else min(points)))
    kept |= _may_be_healed(chains, window, pins)
    names = {_name(file) for file in kept}
    spare = [f for f in listed if _is_understood(f) and _name(f) not in names]
    return sorted(spare, key=lambda f: (-f.max_txid, -f.min_txid, f.level, f.timestamp))


def due(
    files: Iterable[FileInfo],
    policy: Retention,
    now: int,
    *,
    pins: Collection[int] = (),
    doomed: Mapping[FileInfo, float],
    clock: float,
) -> Decision:
    """Decide what to delete now.

    Args:
        files: As of ``kept_points``.
        policy: So, too.
        now: So, too.
        pins: So, too.
        doomed: That of the decision before; empty at first, also after a restart.
        clock: Seconds of a clock that is never set, such as ``time.monotonic()``: if the
            time of day jumps, nobody's restore takes less long.
    """
    if not policy.delete:
        return Decision((), {})
    listed = set(files)
    unneeded = unneeded_files(listed, policy, now, pins)
    since = {file: doomed.get(file, clock) for file in unneeded}
    grace = policy.grace_seconds
    expired = [f for f in unneeded if clock - since[f] >= grace_of(f, grace)]
    if not expired:
        return Decision((), since)
    waiting = set(unneeded).difference(expired)
    first = Chains(listed.difference(expired)).txids[0]
    newest = {f for f in _newest_of_levels(listed) if f.max_txid > first}
    held = _leading_to(waiting | newest, Chains(listed)) if waiting else set()
    go = [f for f in expired if f not in held]
    behind = [f for f in go if f.max_txid >= first]
    return Decision((*behind, *reversed([f for f in go if f.max_txid < first])), since)


def _leading_to(files: Iterable[FileInfo], chains: Chains) -> set[FileInfo]:
    """Return the files of the plans that lead to where some others end."""
    found = (chains.find(file.max_txid) for file in files)
    return _needed(chains, ((i, _END_OF_TIME) for i in found if i is not None))


def grace_of(file: FileInfo, grace: float) -> float:
    """Seconds that a file stays when it is not needed any more."""
    return grace if file.level else min(grace, _LEVEL_0_GRACE)


def _name(file: FileInfo) -> tuple[int, int, int]:
    return file.level, file.min_txid, file.max_txid


def _is_understood(file: FileInfo) -> bool:
    return file.level < SNAPSHOT_LEVEL or file.min_txid == 1


# -- points -------------------------------------------------------------------------------


class _Keeping:
    """Collects which points stay, why, and by which time each has to be found."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self.by: dict[int, int] = {}
        self.reasons: dict[int, tuple[str, ...]] = {}

    def add(self, index: int, reason: str, by: int | None = None) -> None:
        """Keep a point; ``by`` is by default the time that it has or can have."""
        if by is None:
            point = self._points[index]
            by = max(point.timestamp, point.earliest)
        self.by[index] = min(self.by.get(index, by), by)
        known = self.reasons.get(index, ())
        if reason not in known:
            self.reasons[index] = (*known, reason)


def _choose(
    chains: Chains, policy: Retention, now: int, pins: Collection[int]
) -> _Keeping:
    """Choose the points that stay, by their indexes."""
    points = chains.points
    keeping = _Keeping(points)
    if not points:
        return keeping
    keeping.add(len(points) - 1, "latest")
    _keep_spans(keeping, points, policy, now)
    images = [index for index, point in enumerate(points) if point.is_image]
    for index in images[-max(1, policy.keep_last) :]:
        keeping.add(index, "snapshot")
    _keep_periods(keeping, points, policy, now)
    for pin in pins:
        for index in _around(chains, pin):
            keeping.add(index, "pin")
    return keeping


def _keep_spans(
    keeping: _Keeping, points: Sequence[Point], policy: Retention, now: int
) -> None:
    """Keep what the window and ``fine`` ask for."""
    window, fine = now - policy.window_ms, now - policy.fine_ms
    for start in (window, fine):
        before = _newest_before(points, start)
        if before >= 0:
            keeping.add(before, "start", start - 1)
    witness = -1  # the point with the latest time so far that is not in the future
    for index, point in enumerate(points):
        age = point.ready
        if age <= now:
            if witness < 0 or age >= points[witness].ready:
                witness = index
            age = points[witness].ready
        start, reason = (fine, "fine") if point.is_single else (window, "window")
        if age >= start:
            in_time = point.earliest >= start
            keeping.add(index, reason, point.earliest if in_time else None)
            if point.ready < start:  # it seems older than what was there before it
                keeping.add(witness, "clock")


def _newest_before(points: Sequence[Point], time: int) -> int:
    """Return the index of the point that a restore before a time finds, or -1."""
    before = (i for i in reversed(range(len(points))) if points[i].earliest < time)
    return next(before, -1)


def _keep_periods(
    keeping: _Keeping, points: Sequence[Point], policy: Retention, now: int
) -> None:
    """Keep one point of each of the newest hours, days, weeks and months."""
    wanted: tuple[tuple[str, int, Callable[[int], int]], ...] = (
        ("hourly", policy.hourly, lambda hour: hour),
        ("daily", policy.daily, lambda hour: hour // 24),
        ("weekly", policy.weekly, _week_of),
        ("monthly", policy.monthly, _month_of),
    )
    if not any(count for _, count, _ in wanted):
        return
    of_hours: dict[int, tuple[int, int]] = {}
    for index, point in enumerate(points):
        # What a wrong clock put into the future must not displace the past.
        hour = min(point.timestamp, now) // _HOUR
        worth = 2 if point.is_image else 0 if point.is_single else 1
        of_hours[hour] = max(of_hours.get(hour, (0, -1)), (worth, index))
    for reason, count, period_of in wanted:
        best: dict[int, tuple[int, int]] = {}
        for hour, choice in of_hours.items():
            period = period_of(hour)
            best[period] = max(best.get(period, (0, -1)), choice)
        for period in sorted(best, reverse=True)[:count]:
            keeping.add(best[period][1], reason)


def _week_of(hour: int) -> int:
    """Return the number of the week, from Monday on: the epoch began on a Thursday."""
    return (hour // 24 + 3) // 7


def _month_of(hour: int) -> int:
    moment = to_datetime(hour * _HOUR)
    return moment.year * 12 + moment.month


def _around(chains: Chains, pin: int) -> Iterable[int]:
    """Return the point that is pinned, else its neighbours."""
    found = chains.find(pin)
    if found is not None:
        return (found,)
    above = bisect_left(chains.txids, pin)
    return [i for i in (above - 1, above) if 0 <= i < len(chains.txids)]


# -- files --------------------------------------------------------------------------------


def _needed(chains: Chains, kept: Iterable[tuple[int, int]]) -> set[FileInfo]:
    """Return the plans of points, and their earliest chains where plans are too late."""
    points = chains.points
    needed: set[FileInfo] = set()
    planned = [False] * len(points)
    early = [False] * len(points)

    def plan(index: int) -> None:
        while index >= 0 and not planned[index]:
            planned[index] = True
            needed.add(points[index].file)
            index = points[index].base

    for index, by in kept:
        plan(index)
        if points[index].ready <= by:
            continue
        while index >= 0 and not early[index]:
            early[index] = True
            needed.add(points[index].early_file)
            plan(index)
            index = points[index].early_base
    return needed


def _newest_of_levels(files: Iterable[FileInfo]) -> set[FileInfo]:
    """Return the file of each level that ends last."""
    newest: dict[int, FileInfo] = {}
    for file in files:
        best = newest.get(file.level)
        if best is None or rank(file) > rank(best):
            newest[file.level] = file
    return set(newest.values())


def _may_be_healed(chains: Chains, window: int, pins: Collection[int]) -> set[FileInfo]:
    """Return files that nothing leads to now, but once a gap was healed.

    So also those between the neighbours of a pinned state that cannot be restored.
    """
    healed = {f for f in chains.unreachable() if f.timestamp >= window}
    for pin in pins:
        if chains.find(pin) is None:
            above = bisect_left(chains.txids, pin)
            below = chains.txids[above - 1] if above else 0
            healed.update(
                f for f in chains.files if f.max_txid > below and f.min_txid <= pin
            )
    return healed
