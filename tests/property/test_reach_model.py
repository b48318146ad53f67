"""What a listing can restore, against one plan for each state: slow, and plain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.listings import LAST_TIME, LAST_TXID, files, listings

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.plan import decisive, plan_restore
from sqlitereplica.restore.points import RestorePoints, points_of
from sqlitereplica.store.reach import find_gaps, reach, reachable_txids

pytestmark = pytest.mark.property

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def points_in(listing: list[FileInfo]) -> RestorePoints:
    """The restore points of a listing."""
    return points_of("replica", listing, reach(listing), [], database_size=None)


def end_before(listing: list[FileInfo], before: int) -> int | str:
    """The transaction that a restore to a time ends with, or why there is none."""
    try:
        return Wanted(before=before).plan(listing)[-1].max_txid
    except NotRestorableError as error:
        return error.kind


@given(st.lists(files(), max_size=40, unique_by=lambda f: (f.level, f.name)))
def test_each_state_costs_what_its_plan_costs(listing: list[FileInfo]) -> None:
    """Bytes, files and the last file of all states are those of their own plans."""
    for state in reach(listing):
        plan = decisive(plan_restore(listing, txid=state.txid))
        assert state.last == plan[-1]
        assert state.files == len(plan)
        assert state.size == sum(file.size for file in plan)


@given(listings)
def test_states_are_all_that_a_plan_can_end_with(listing: list[FileInfo]) -> None:
    """None is left out and none is made up."""
    planned = []
    for txid in range(1, LAST_TXID + 1):
        try:
            planned.append(plan_restore(listing, txid=txid)[-1].max_txid)
        except NotRestorableError:
            continue
    assert [state.txid for state in reach(listing)] == planned


@given(listings)
def test_time_of_a_state_is_when_plans_begin_to_reach_it(
    listing: list[FileInfo],
) -> None:
    """At any time the last state before it is what a plan for that time ends with."""
    reached = reach(listing)
    for before in range(LAST_TIME + 2):
        try:
            planned = [plan_restore(listing, before=before)[-1].max_txid]
        except NotRestorableError:
            planned = []
        assert [s.txid for s in reached if s.time < before][-1:] == planned
    times = [state.time for state in reached]
    assert times == sorted(times)


@given(listings, st.integers(0, LAST_TIME + 2))
def test_point_at_a_time_is_what_restore_gives(
    listing: list[FileInfo], before: int
) -> None:
    """The same transaction, or the same refusal, also where a gap is at the end."""
    points = points_in(listing)
    answer: int | str
    try:
        answer = points.at(EPOCH + timedelta(milliseconds=before)).txid
    except NotRestorableError as error:
        answer = error.kind
    assert answer == end_before(listing, before)


@given(listings, st.integers(1, LAST_TXID))
def test_points_are_found_by_transaction(listing: list[FileInfo], txid: int) -> None:
    """Exactly, or the nearest; and an error names the same neighbours as restore."""
    points = points_in(listing)
    txids = [point.txid for point in points]
    if txid in txids:
        assert points.find(txid).txid == txid == points.nearest(txid=txid).txid
        return
    with pytest.raises(NotRestorableError) as caught:
        points.find(txid)
    if listing:
        with pytest.raises(NotRestorableError) as planned:
            plan_restore(listing, txid=txid)
        assert str(caught.value) == str(planned.value)
    if txids:
        distance = abs(points.nearest(txid=txid).txid - txid)
        assert distance == min(abs(each - txid) for each in txids)


@given(listings)
def test_points_say_which_transactions_they_add(listing: list[FileInfo]) -> None:
    """Ranges follow each other, from the first transaction to the newest state."""
    covered = 0
    for point in points_in(listing):
        assert point.min_txid == covered + 1 <= point.txid
        covered = point.txid


def is_led_over(txid: int, listing: list[FileInfo], txids: list[int]) -> bool:
    """Whether an increment that joins a state before a transaction ends behind it."""
    before = max((state for state in txids if state < txid), default=0)
    return any(
        f.level < 9 and f.min_txid <= before + 1 and f.max_txid > txid for f in listing
    )


@given(listings)
def test_gaps_are_between_states_and_around_every_file_without_use(
    listing: list[FileInfo],
) -> None:
    """A file after the first state leads to a state, is led over or is in a gap."""
    txids = reachable_txids(listing)
    first = txids[0] if txids else 0
    idle = {f.max_txid for f in listing} - set(txids)
    idle = {end for end in idle if end > first and not is_led_over(end, listing, txids)}
    gaps = find_gaps(listing, txids)
    for gap in gaps:
        assert gap.min_txid - 1 in (0, *txids)
        assert gap.max_txid == max(idle) or gap.max_txid + 1 in txids
        assert any(gap.min_txid <= end <= gap.max_txid for end in idle)
        assert not any(gap.min_txid <= end <= gap.max_txid for end in txids)
    for end in idle:
        assert sum(gap.min_txid <= end <= gap.max_txid for gap in gaps) == 1


@given(listings, st.randoms(use_true_random=False))
def test_points_do_not_depend_on_the_order_of_the_listing(
    listing: list[FileInfo], random: object
) -> None:
    """A listing may come in any order."""
    unique = list({(f.level, f.name): f for f in listing}.values())
    shuffled = list(unique)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert points_in(shuffled) == points_in(unique)


def test_many_files_take_no_plan_each() -> None:
    """Fifty thousand states: with a plan for each this would take hours."""
    count = 50_000
    listing = [FileInfo(0, n, n, n, n) for n in range(1, count + 1)]
    listing += [FileInfo(1, n, n + 9, n, n + 9) for n in range(1, count, 10)]
    listing += [FileInfo(9, 1, n, n, n) for n in range(1000, count, 1000)]
    reached = reach(listing)
    assert len(reached) == count
    for state in reached[:: count // 20]:
        plan = decisive(plan_restore(listing, txid=state.txid))
        assert (state.size, state.files) == (sum(f.size for f in plan), len(plan))
