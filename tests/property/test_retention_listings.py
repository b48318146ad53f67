"""Retention on any listing: overlaps, gaps, islands, duplicates, times that fall.

The oracle is brute force: plans one at a time, by our planner and by Litestream's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.listings import LAST_TIME, LAST_TXID, files
from support.planmodel import model_outcome, outcome

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.retention import kept_points, unneeded_files
from sqlitereplica.restore.plan import plan_restore, reachable_txids
from sqlitereplica.store.reach import find_gaps

pytestmark = pytest.mark.property

HOUR = 3_600_000
FIRST_HOUR = 1_706_540_400_000  # 2024-01-29, 15:00 UTC: a Monday at the end of a month


@dataclass(frozen=True)
class Case:
    """A listing, a policy and a time."""

    files: list[FileInfo]
    policy: Retention
    now: int
    pins: frozenset[int]

    @property
    def unneeded(self) -> list[FileInfo]:
        """What may go."""
        return self.unneeded_of(self.files)

    def unneeded_of(self, listing: Sequence[FileInfo]) -> list[FileInfo]:
        """What may go of another listing."""
        return unneeded_files(listing, self.policy, self.now, self.pins)

    @property
    def left(self) -> list[FileInfo]:
        """What stays when everything that may go went, twice."""
        once = without(self.files, self.unneeded)
        return without(once, self.unneeded_of(once))

    @property
    def window(self) -> int:
        """When the window begins."""
        return self.now - self.policy.window_ms

    @property
    def is_whole(self) -> bool:
        """Whether no gap is open before the newest state."""
        newest = max((f.max_txid for f in self.files if understood(f)), default=0)
        return newest in reachable_txids(self.files)


@st.composite
def histories(draw: st.DrawFn) -> list[FileInfo]:
    """Files as they come about: uploads, merged by threes and sixes, and snapshots."""
    last = draw(st.integers(1, LAST_TXID))
    ranges = [(0, n, n) for n in range(1, last + 1)]
    for level, step in ((1, draw(st.integers(2, 3))), (2, 6)):
        ranges += [(level, n, n + step - 1) for n in range(1, last - step + 2, step)]
    ranges += [(9, 1, n) for n in draw(st.sets(st.integers(1, last), max_size=3))]
    lost = draw(st.sets(st.sampled_from(ranges), max_size=len(ranges) // 2))
    times = [draw(st.integers(0, LAST_TIME)) for _ in range(last + 1)]
    return [FileInfo(*r, 1, times[r[2]]) for r in ranges if r not in lost]


counts = st.sampled_from([0, 0, 1, 2, 3])


@st.composite
def cases(draw: st.DrawFn, *, odd: bool = True) -> Case:
    """Anything that a listing may hold; without ``odd`` times rise with TXIDs."""
    unit = draw(st.sampled_from([HOUR // 4, HOUR, 5 * HOUR, 30 * HOUR]))
    listing = draw(st.lists(files(), max_size=10)) + draw(histories())
    times = sorted(draw(st.lists(st.integers(0, 12), min_size=13, max_size=13)))
    made = []
    for file in listing:
        time = file.timestamp if odd else times[file.max_txid]
        made.append(replace(file, timestamp=FIRST_HOUR + time * unit))
    if odd and draw(st.booleans()):
        strange = draw(st.integers(2, LAST_TXID))
        made.append(FileInfo(9, strange, LAST_TXID, 1, FIRST_HOUR))
    if odd and made and draw(st.booleans()):
        made.append(replace(made[0], size=2, timestamp=made[-1].timestamp))
    policy = Retention(
        window=draw(st.integers(0, 12)) * unit / 1000,
        fine=draw(st.integers(0, 3)) * unit / 1000,
        keep_last=draw(counts),
        hourly=draw(counts),
        daily=draw(counts),
        weekly=draw(counts),
        monthly=draw(counts),
    )
    now = FIRST_HOUR + draw(st.integers(0, 16)) * unit + draw(st.integers(0, 1))
    pins = draw(st.frozensets(st.integers(1, LAST_TXID), max_size=2))
    return Case(made, policy, now, pins)


def without(listing: Iterable[FileInfo], gone: Iterable[FileInfo]) -> list[FileInfo]:
    """The files whose names are not among those gone."""
    names = {name_of(file) for file in gone}
    return [file for file in listing if name_of(file) not in names]


def name_of(file: FileInfo) -> tuple[int, int, int]:
    """What an object is deleted by."""
    return file.level, file.min_txid, file.max_txid


def understood(file: FileInfo) -> bool:
    """Whether a file is one that plans may use."""
    return file.level < 9 or file.min_txid == 1


def found_before(listing: Sequence[FileInfo], time: int) -> int:
    """The state that a restore to before a time finds; 0 for none."""
    try:
        return plan_restore(listing, before=time)[-1].max_txid
    except NotRestorableError:
        return 0


def plans(
    listing: Sequence[FileInfo], txid: int
) -> list[tuple[object, ...] | list[tuple[int, ...]] | str]:
    """What we and Litestream read for a transaction; names only."""
    usual = [file for file in listing if understood(file)]
    answers = [outcome(usual, txid=txid), model_outcome(usual, txid=txid)]
    return [a if isinstance(a, str) else [step[:3] for step in a] for a in answers]


def is_earlier(listing: Sequence[FileInfo], txid: int, time: int) -> bool:
    """Whether some chain of files from before a time leads to a state."""
    return found_before([f for f in listing if f.max_txid <= txid], time) == txid


def is_merged(listing: Sequence[FileInfo], txid: int) -> bool:
    """Whether more than the file of a single upload ends there."""
    ending = [file for file in listing if file.max_txid == txid and understood(file)]
    return any(file.level or file.min_txid < txid for file in ending)


@given(cases(), st.randoms(use_true_random=False))
def test_kept_points_are_read_from_the_same_files_at_every_moment(
    case: Case, random: object
) -> None:
    """Whatever part of the deletion is done, no reader misses or changes a step."""
    unneeded = case.unneeded
    done = random.randint(0, len(unneeded))  # type: ignore[attr-defined]
    shuffled = unneeded.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for gone in (unneeded[:done], shuffled[:done], unneeded):
        rest = without(case.files, gone)
        for point in kept_points(case.files, case.policy, case.now, case.pins):
            assert plans(rest, point.txid) == plans(case.files, point.txid)
            found = found_before(rest, point.by + 1)
            assert point.txid <= found <= found_before(case.files, point.by + 1)
        assert outcome(rest) == outcome(case.files) or case.files != rest
        if gone:
            latest = max(f.max_txid for f in case.files if understood(f))
            assert plan_restore(rest)[-1].max_txid == latest


@given(cases())
def test_no_time_is_answered_with_a_later_state_than_before(case: Case) -> None:
    """Deletion can only take states away."""
    left = case.left
    for time in {f.timestamp + delta for f in case.files for delta in (0, 1)}:
        assert found_before(left, time) <= found_before(case.files, time)


@given(cases())
def test_any_time_in_the_window_finds_what_it_should(case: Case) -> None:
    """The start exactly what it found; later times the last merged or fresh state."""
    left = case.left
    fine = case.now - case.policy.fine_ms
    for start in (case.window, fine):
        assert found_before(left, start) == found_before(case.files, start)
    promised = [
        txid
        for txid in reachable_txids(case.files)
        if is_merged(case.files, txid) or not is_earlier(case.files, txid, fine)
    ]
    times = {f.timestamp + 1 for f in case.files} | {case.now, case.now + 1}
    for time in (time for time in times if time >= case.window):
        due = [txid for txid in promised if is_earlier(case.files, txid, time)]
        assert max(due, default=0) <= found_before(left, time)


@given(cases())
def test_every_state_of_the_window_stays_by_its_number(case: Case) -> None:
    """Merged states of the window and every state of ``fine``."""
    left = reachable_txids(case.left)
    fine = case.now - case.policy.fine_ms
    for txid in reachable_txids(case.files):
        merged = is_merged(case.files, txid)
        start = case.window if merged else fine
        if not is_earlier(case.files, txid, start):
            assert txid in left


@given(cases())
def test_counted_rules_and_pins_keep_what_they_promise(case: Case) -> None:
    """So many snapshots, the pins, the newest of each level, the newest state."""
    left = case.left
    images = sorted({f.max_txid for f in case.files if f.level == 9 and understood(f)})
    for txid in images[-max(1, case.policy.keep_last) :]:
        assert any(f.level == 9 and f.max_txid == txid for f in left)
    before = reachable_txids(case.files)
    assert set(before) & case.pins <= set(reachable_txids(left))
    assert set(before[-1:]) <= set(reachable_txids(left))
    for level in range(9):
        ends = [f.max_txid for f in case.files if f.level == level]
        assert max(ends, default=0) in [0, *(f.max_txid for f in left)]
    assert {f for f in case.files if not understood(f)} <= set(left)


@given(cases())
def test_each_of_the_newest_periods_keeps_a_point(case: Case) -> None:
    """A snapshot if it had one; periods are told by the calendar."""
    calendars = {
        "hourly": "%Y%m%d%H",
        "daily": "%Y%m%d",
        "weekly": "%G%V",
        "monthly": "%Y%m",
    }
    case = replace(case, files=list({name_of(f): f for f in case.files}.values()))
    before, after = periods_of(case.files, case.now), periods_of(case.left, case.now)
    for rule, calendar in calendars.items():
        had: dict[str, list[FileInfo]] = {}
        has: dict[str, list[FileInfo]] = {}
        for periods, points in ((had, before), (has, after)):
            for moment, last in points:
                periods.setdefault(moment.strftime(calendar), []).append(last)
        for period in sorted(had)[::-1][: getattr(case.policy, rule)]:
            assert period in has
            if any(last.level == 9 for last in had[period]):
                assert any(last.level == 9 for last in has[period])


def periods_of(
    listing: Sequence[FileInfo], now: int
) -> list[tuple[datetime, FileInfo]]:
    """The last file of each state's plan, and its time; none is later than now."""
    lasts = [plan_restore(listing, txid=t)[-1] for t in reachable_txids(listing)]
    return [
        (datetime.fromtimestamp(min(f.timestamp, now) / 1000, UTC), f) for f in lasts
    ]


@given(cases())
def test_with_a_gap_before_the_newest_state_nothing_goes(case: Case) -> None:
    """What cannot be judged is not."""
    if not case.is_whole:
        assert case.unneeded == []


@given(cases())
def test_followers_go_on_from_every_state_of_the_window(case: Case) -> None:
    """Where an increment led on from a state, one still does."""
    left = case.left
    start = found_before(case.files, case.window)
    for txid in reachable_txids(case.files):
        if txid >= start and leads_to(case.files, txid):
            assert leads_to(left, txid)


def leads_to(listing: Sequence[FileInfo], txid: int) -> int:
    """How far an increment leads a follower on; 0 if none does."""
    joins = (f for f in listing if f.level < 9 and f.min_txid <= txid + 1 <= f.max_txid)
    return max((file.max_txid for file in joins), default=0)


@given(cases())
def test_order_of_the_listing_does_not_matter(case: Case) -> None:
    """Nor do repetitions."""
    again = case.files[::-1] + case.files[:5]
    assert {name_of(f) for f in case.unneeded_of(again)} == {
        name_of(f) for f in case.unneeded
    }


@given(cases(odd=False))
def test_judging_again_deletes_nothing(case: Case) -> None:
    """What stays is what is needed, and that does not depend on what went."""
    assert case.unneeded_of(without(case.files, case.unneeded)) == []


@given(cases(odd=False))
def test_nothing_stays_that_nothing_leads_to(case: Case) -> None:
    """What is left could otherwise not be told from a loss."""
    if find_gaps(case.files, reachable_txids(case.files)):
        return
    assert find_gaps(case.left, reachable_txids(case.left)) == []


@given(cases(odd=False))
def test_every_file_that_stays_is_of_use(case: Case) -> None:
    """Without it some reader reads other files, or a level ends elsewhere."""
    if not case.is_whole or case.pins - set(reachable_txids(case.files)):
        return
    reachable = reachable_txids(case.left)
    states = [0, *reachable]
    left = [
        f for f in case.left if any(f.min_txid - 1 <= t < f.max_txid for t in states)
    ]
    points = kept_points(case.files, case.policy, case.now, case.pins)
    start = found_before(case.files, case.window)

    def served(listing: Sequence[FileInfo]) -> list[object]:
        ends = [
            max((f.max_txid for f in listing if f.level == level), default=0)
            for level in range(9)
        ]
        follows = [leads_to(listing, txid) for txid in reachable if txid >= start]
        wanted = {point.txid for point in points}
        wanted |= {end for end in ends if end in reachable and end > min(wanted)}
        return [ends, follows, *(plans(listing, txid) for txid in sorted(wanted))]

    everything = served(left)
    for file in left:
        assert served(without(left, [file])) != everything
