"""All plans at once against one plan at a time, and earliest chains against all chains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.listings import LAST_TIME, LAST_TXID, listings

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.plan import plan_restore
from sqlitereplica.store.chains import Chains

pytestmark = pytest.mark.property


def named_once(listing: list[FileInfo]) -> list[FileInfo]:
    """Without files that have the name of another, of which either is a right choice."""
    return list({(f.level, f.min_txid, f.max_txid): f for f in listing}.values())


def has(listing: list[FileInfo], txid: int) -> bool:
    """Whether a restore can end with a transaction."""
    try:
        return bool(plan_restore(listing, txid=txid))
    except NotRestorableError:
        return False


@given(listings.map(named_once))
def test_every_plan_is_that_of_plan_restore(listing: list[FileInfo]) -> None:
    """The points are the states that can be restored, and their plans those of readers."""
    chains = Chains(listing)
    assert chains.txids == [t for t in range(1, LAST_TXID + 1) if has(listing, t)]
    for index, txid in enumerate(chains.txids):
        plan = plan_restore(listing, txid=txid)
        assert tuple(chains.plan(index)) == plan
        assert chains.points[index].ready == max(file.timestamp for file in plan)
        assert chains.find(txid) == index
    assert chains.find(LAST_TXID + 1) is None


@given(listings, st.integers(0, LAST_TIME + 2))
def test_restore_before_a_time_finds_the_last_point_that_is_earlier(
    listing: list[FileInfo], before: int
) -> None:
    """``earliest`` says of each point from which time on it can be had."""
    earlier = [p.txid for p in Chains(listing).points if p.earliest < before]
    try:
        found = [plan_restore(listing, before=before)[-1].max_txid]
    except NotRestorableError:
        found = []
    assert earlier[-1:] == found


@given(listings)
def test_earliest_chain_is_complete_when_it_says(listing: list[FileInfo]) -> None:
    """Its files lead to the point, and the latest time of them is ``earliest``."""
    points = Chains(listing).points
    for point in points:
        chain, step = [], point
        while True:
            chain.append(step.early_file)
            if step.early_base < 0:
                break
            step = points[step.early_base]
        assert plan_restore(chain, txid=point.txid)
        assert max(file.timestamp for file in chain) == point.earliest


@given(listings)
def test_unreachable_files_are_those_that_no_state_leads_to(
    listing: list[FileInfo],
) -> None:
    """A file is usable exactly if some state that can be had is one that it continues."""
    states = {0, *Chains(listing).txids}
    expected = {
        f
        for f in listing
        if not any(f.min_txid - 1 <= state < f.max_txid for state in states)
    }
    chains = Chains(listing)
    assert set(chains.unreachable()) == expected
    newest = max((file.max_txid for file in listing), default=0)
    assert chains.is_whole == (newest > 0 and newest in states)


@given(listings, st.randoms(use_true_random=False))
def test_increments_lead_on_from_wherever_others_do(
    listing: list[FileInfo], random: object
) -> None:
    """A follower at any state from the start on finds its next file among those chosen."""
    chains = Chains(listing)
    if not chains.txids:
        return
    index = random.randrange(len(chains.txids))  # type: ignore[attr-defined]
    chosen = list(chains.increments_from(index))
    current = chains.txids[index]
    for file in chosen:
        assert file.level < 9 and file.max_txid > current
        current = file.max_txid
    for state in chains.txids[index:]:
        assert leads_on(chosen, state) == leads_on(listing, state)


def leads_on(listing: list[FileInfo], state: int) -> bool:
    """Whether a follower at a state finds an increment to go on with."""
    return any(f.level < 9 and f.min_txid <= state + 1 <= f.max_txid for f in listing)
