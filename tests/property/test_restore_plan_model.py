"""Plans against a plain model of Litestream's, and images against a page model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.listings import LAST_TIME, LAST_TXID, listings
from support.pagemodel import (
    History,
    checksum,
    encode,
    histories,
    restored,
    state_after,
)
from support.planmodel import model_outcome, outcome

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.plan import (
    continue_plan,
    decisive,
    plan_restore,
    reachable_txids,
)

pytestmark = pytest.mark.property

txids = st.none() | st.integers(1, LAST_TXID)
times = st.none() | st.integers(0, LAST_TIME + 1)


def same_choice(ours: object, models: object) -> bool:
    """Whether plans agree; snapshots that differ in time only are the same choice."""
    return without_snapshot_time(ours) == without_snapshot_time(models)


def without_snapshot_time(answer: object) -> object:
    """A plan without the time of its snapshot; anything else as it is."""
    if isinstance(answer, list) and answer and answer[0][0] == 9:
        return [answer[0][:3], *answer[1:]]
    return answer


@given(listings)
def test_plan_for_the_latest_state_is_the_models(listing: list[FileInfo]) -> None:
    """The same files, or the same refusal of a gap."""
    assert same_choice(outcome(listing), model_outcome(listing))


@given(listings, txids)
def test_plan_for_a_transaction_is_the_models(
    listing: list[FileInfo], txid: int | None
) -> None:
    """Any transaction: the same files, or the same refusal."""
    assert same_choice(outcome(listing, txid=txid), model_outcome(listing, txid=txid))


@given(listings, times)
def test_plan_for_a_time_is_the_models(
    listing: list[FileInfo], before: int | None
) -> None:
    """Any time: the same files, or the same refusal."""
    ours = outcome(listing, before=before)
    assert same_choice(ours, model_outcome(listing, before=before))


@given(listings)
def test_reachable_txids_are_those_the_model_can_plan(listing: list[FileInfo]) -> None:
    """The list is complete and has nothing else."""
    planned = [
        txid
        for txid in range(1, LAST_TXID + 1)
        if isinstance(model_outcome(listing, txid=txid), list)
    ]
    assert reachable_txids(listing) == planned


@given(listings, st.randoms(use_true_random=False))
def test_plan_does_not_depend_on_the_order_of_the_listing(
    listing: list[FileInfo], random: object
) -> None:
    """A listing may come in any order, with repetitions."""
    shuffled = listing + listing[: len(listing) // 2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert same_choice(outcome(shuffled), outcome(listing))


@given(listings, txids)
def test_txid_error_names_the_nearest_reachable(
    listing: list[FileInfo], txid: int | None
) -> None:
    """The neighbours, and the message, are the nearest of all that can be restored."""
    if txid is None or outcome(listing, txid=txid) != "txid":
        return
    with pytest.raises(NotRestorableError) as caught:
        plan_restore(listing, txid=txid)
    reached = reachable_txids(listing)
    below = [end for end in reached if end < txid][-1:]
    above = [end for end in reached if end > txid][:1]
    points = (caught.value.before, caught.value.after)
    assert [point.txid for point in points if point] == below + above
    for end in below + above:
        assert f"txid={end} of 1970" in str(caught.value)
    assert caught.value.earliest == (reached[0] if reached else None)
    assert caught.value.latest == (reached[-1] if reached else None)


@given(st.data(), histories())
def test_applied_plan_is_the_state_of_its_transaction(
    data: st.DataObject, history: History
) -> None:
    """Whatever overlaps, shrinks and grows: pages and checksums are the state's."""
    count = len(history)
    ranges = st.integers(1, count).flatmap(
        lambda first: st.tuples(st.just(first), st.integers(first, count))
    )
    drawn = data.draw(st.lists(ranges, max_size=8))
    every = [(txid, txid) for txid in range(1, count + 1)]
    encoded = {pair: encode(history, *pair) for pair in [*drawn, *every]}
    listing = [
        FileInfo(0 if a == b else 1, a, b, len(content), b)
        for (a, b), content in encoded.items()
    ]
    plan = decisive(plan_restore(listing, txid=data.draw(st.integers(1, count))))
    content, goal = restored((f, encoded[f.min_txid, f.max_txid]) for f in plan)
    state = state_after(history, goal.max_txid)
    assert content == b"".join(state)
    assert goal.post_checksum == checksum(state)


@given(listings, st.integers(0, LAST_TXID), st.integers(1, LAST_TXID))
def test_continuation_joins_and_ends_where_it_must(
    listing: list[FileInfo], current: int, end: int
) -> None:
    """A continuation exists exactly if increments connect the two states."""
    steps = continue_plan(listing, current, end)
    reached = {current}
    for _ in listing:
        for file in listing:
            joins = any(file.min_txid - 1 <= r < file.max_txid for r in reached)
            if file.level < 9 and file.min_txid > 1 and file.max_txid <= end and joins:
                reached.add(file.max_txid)
    assert (steps is not None) == (end in reached)
    for file in steps or ():
        assert file.min_txid <= current + 1 and file.max_txid > current
        current = file.max_txid
    assert steps is None or current == end
