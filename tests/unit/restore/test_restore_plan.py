"""Plans on listings that can be read at a glance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sqlitereplica.errors import NearestPoint, NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.plan import (
    continue_plan,
    decisive,
    plan_restore,
    reachable_txids,
    to_datetime,
)


def file(level: int, first: int, last: int, timestamp: int | None = None) -> FileInfo:
    """A file of these transactions; its time is a second per transaction."""
    time = last * 1000 if timestamp is None else timestamp
    return FileInfo(level, first, last, 1000, time)


def level_0(first: int, last: int) -> list[FileInfo]:
    """One file for each transaction."""
    return [file(0, txid, txid) for txid in range(first, last + 1)]


def point(txid: int) -> NearestPoint:
    """A point of this transaction, with its time."""
    return NearestPoint(txid, to_datetime(txid * 1000))


def refusal(files: list[FileInfo], **target: int) -> NotRestorableError:
    """The error that a plan ends with."""
    with pytest.raises(NotRestorableError) as caught:
        plan_restore(files, **target)
    return caught.value


def test_latest_uses_newest_snapshot_then_widest_files() -> None:
    """A plan begins with the newest snapshot and needs as few files as possible."""
    files = [
        *level_0(8, 12),
        file(1, 4, 7),
        file(1, 8, 10),
        file(2, 4, 10),
        file(9, 1, 1),
        file(9, 1, 5),
    ]
    assert plan_restore(files) == (
        file(9, 1, 5),
        file(2, 4, 10),
        file(0, 11, 11),
        file(0, 12, 12),
    )


def test_order_of_the_listing_does_not_matter() -> None:
    """A listing need not be sorted, and may name a file twice."""
    files = [*level_0(1, 5), file(1, 2, 4), file(9, 1, 3)]
    assert plan_restore(files[::-1] + files) == plan_restore(files)


def test_without_snapshot_a_file_from_txid_1_is_the_base() -> None:
    """A new replica has no snapshot level: its first file holds the whole database."""
    assert plan_restore(level_0(1, 3)) == tuple(level_0(1, 3))


def test_tie_takes_smaller_min_txid_then_higher_level_then_older() -> None:
    """Of files with the same end the choice is Litestream's."""
    base = file(9, 1, 2)
    assert plan_restore([base, file(3, 3, 6), file(0, 2, 6)])[1] == file(0, 2, 6)
    assert plan_restore([base, file(0, 3, 6), file(3, 3, 6)])[1] == file(3, 3, 6)
    older = file(1, 3, 6, timestamp=5)
    assert plan_restore([base, file(1, 3, 6), older])[1] == older


def test_snapshot_level_file_that_is_no_image_is_ignored() -> None:
    """A file of the snapshot level that begins later than TXID 1 is no base."""
    assert plan_restore([*level_0(1, 3), file(9, 2, 9)]) == tuple(level_0(1, 3))


def test_txid_is_inclusive() -> None:
    """The plan for a transaction ends with it and uses no later file."""
    files = [*level_0(1, 9), file(1, 1, 5), file(9, 1, 7)]
    assert plan_restore(files, txid=6) == (file(1, 1, 5), file(0, 6, 6))


def test_unreachable_txid_names_the_nearest_ones() -> None:
    """A transaction inside a compacted file cannot be had: its neighbours are named."""
    files = [file(9, 1, 3), file(1, 4, 8), file(0, 9, 9)]
    error = refusal(files, txid=5)
    assert error.kind == "txid" and (error.earliest, error.latest) == (3, 9)
    assert (error.before, error.after) == (point(3), point(8))
    assert "before: txid=3 of 1970-01-01T00:00:03.000+00:00." in str(error)
    assert "after: txid=8 of 1970-01-01T00:00:08.000+00:00." in str(error)


def test_txid_before_the_first_and_after_the_last_is_unreachable() -> None:
    """Only the neighbour that exists is named."""
    files = [file(9, 1, 3), file(0, 4, 4)]
    early, late = refusal(files, txid=1), refusal(files, txid=9)
    assert (early.before, early.after) == (None, point(3))
    assert "before" not in str(early)
    assert "the newest is 4." in str(late)
    assert (late.before, late.after) == (point(4), None)


def test_before_is_strict() -> None:
    """A file of exactly the time asked for is not used."""
    files = level_0(1, 5)
    assert plan_restore(files, before=3000) == tuple(level_0(1, 2))
    assert plan_restore(files, before=3001) == tuple(level_0(1, 3))


def test_too_early_time_names_bounds_that_can_be_asked_for() -> None:
    """The bounds in the error, given back, restore the first and the last state."""
    files = [file(9, 1, 4), *level_0(5, 6)]
    error = refusal(files, before=4000)
    assert error.kind == "time" and (error.before, error.after) == (None, point(4))
    for bound, end in ((error.earliest, 4), (error.latest, 6)):
        assert isinstance(bound, datetime) and bound.tzinfo is UTC
        before = (bound - to_datetime(0)) // timedelta(milliseconds=1)
        assert plan_restore(files, before=before)[-1].max_txid == end


def test_gap_ends_a_plan_for_a_time_but_not_for_the_latest() -> None:
    """Only who asks for the latest state is told of missing files (litestream.md 5.1)."""
    files = [*level_0(1, 3), *level_0(6, 8)]
    assert plan_restore(files, before=9000) == tuple(level_0(1, 3))
    error = refusal(files)
    assert error.kind == "gap" and "4 to 5" in str(error) and error.latest == 3
    assert (error.before, error.after) == (point(3), None)


def test_one_missing_transaction_is_a_gap() -> None:
    """The smallest gap, too; files that join exactly are none."""
    assert refusal([*level_0(1, 3), *level_0(5, 5)]).kind == "gap"
    assert len(plan_restore([*level_0(1, 3), *level_0(4, 5)])) == 5


def test_gap_that_a_snapshot_bridges_is_none() -> None:
    """Missing increments do not matter before the newest snapshot."""
    files = [*level_0(1, 3), *level_0(6, 8), file(9, 1, 6)]
    assert plan_restore(files) == (file(9, 1, 6), *level_0(7, 8))


def test_files_without_a_base_are_a_gap() -> None:
    """Increments alone make no database, whatever is asked for."""
    assert refusal(level_0(2, 4)).kind == "gap"
    assert refusal(level_0(2, 4), txid=3).kind == "txid"
    assert refusal(level_0(2, 4), before=3500).kind == "time"
    assert refusal([file(9, 2, 4)]).kind == "gap"


@pytest.mark.parametrize("target", [{}, {"txid": 1}, {"before": 1}])
def test_no_files_is_empty(target: dict[str, int]) -> None:
    """Without files there is no backup, whatever is asked for."""
    assert refusal([], **target).kind == "empty"


def test_txid_and_time_together_are_refused() -> None:
    """A state is named in one way."""
    with pytest.raises(ValueError, match="not by both"):
        plan_restore(level_0(1, 3), txid=1, before=1)


def test_clock_that_went_back_never_gives_a_later_state() -> None:
    """A transaction with too late a time, and all after it, are left out."""
    files = [file(0, 1, 1, 100), file(0, 2, 2, 900), file(0, 3, 3, 500)]
    assert plan_restore(files, before=600) == (files[0],)


def test_decisive_drops_what_a_later_image_replaces() -> None:
    """Of two full images in a plan only the last one is worth fetching."""
    plan = (file(9, 1, 1), file(2, 1, 5), file(0, 6, 6))
    assert plan_restore(plan) == plan
    assert decisive(plan) == plan[1:]


def test_continuation_leads_exactly_to_the_end() -> None:
    """What a restore has is continued by other files, or not at all."""
    files = [file(1, 3, 6), file(1, 7, 9), file(0, 9, 9), file(1, 1, 9)]
    assert continue_plan(files, 4, 9) == (file(1, 3, 6), file(1, 7, 9))
    assert continue_plan(files, 9, 9) == ()
    assert continue_plan(files, 4, 8) is None
    assert continue_plan(files, 1, 9) is None


def test_reachable_txids_are_the_ends_of_chains() -> None:
    """Every transaction is listed that some plan ends with, and no other."""
    files = [file(9, 1, 4), file(1, 3, 6), *level_0(6, 7), *level_0(10, 11)]
    assert reachable_txids(files) == [4, 6, 7]


def test_time_beyond_datetime_is_its_limit() -> None:
    """A hostile listing cannot break an error message."""
    assert to_datetime(10**18).year == 9999
    assert to_datetime(-(10**18)).year == 1
    assert refusal([file(9, 1, 1, 2**62)], before=5).kind == "time"
