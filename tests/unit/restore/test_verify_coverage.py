"""What listings promise: ranges, gaps and what is needed, on listings to read at a glance."""

from __future__ import annotations

import pytest

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.coverage import Coverage, cover, key_of
from sqlitereplica.restore.plan import plan_restore
from sqlitereplica.store.reach import to_datetime


def file(level: int, first: int, last: int) -> FileInfo:
    """A file of these transactions; its time is a second per transaction."""
    return FileInfo(level, first, last, 1000, last * 1000)


def level_0(first: int, last: int) -> list[FileInfo]:
    """One file for each transaction."""
    return [file(0, txid, txid) for txid in range(first, last + 1)]


def ranges(coverage: Coverage) -> list[tuple[int, int]]:
    """First and last TXID of each range."""
    return [(span.min_txid, span.max_txid) for span in coverage.ranges]


def gaps(coverage: Coverage) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """First and last TXID of each gap, and what of it is lost."""
    found = []
    for low, high in coverage.gaps:
        lost = [(a, b) for a, b in coverage.lost if low <= a <= b <= high]
        found.append((low, high, lost))
    assert len(coverage.lost) == sum(len(lost) for *_, lost in found)
    return found


def notes(coverage: Coverage) -> dict[str, str]:
    """Notes by kind."""
    return {note.kind: note.text for note in coverage.notes}


def test_unbroken_chain_is_one_range_with_its_times() -> None:
    """Levels overlap as compaction makes them; nothing is to be said about it."""
    files = [*level_0(8, 12), file(1, 4, 7), file(1, 8, 10), file(9, 1, 3)]
    coverage = cover(files)
    [span] = coverage.ranges
    assert (span.min_txid, span.max_txid, span.states) == (3, 12, 7)
    assert (span.min_time, span.max_time) == (to_datetime(3000), to_datetime(12_000))
    assert coverage.states == [3, 7, 8, 9, 10, 11, 12]
    assert (coverage.gaps, coverage.notes, coverage.latest_error) == ((), (), None)


def test_snapshots_of_single_days_are_ranges_and_no_gaps() -> None:
    """Where nothing is left between snapshots, it was dropped on purpose."""
    files = [file(9, 1, 10), file(9, 1, 50), file(9, 1, 90), *level_0(91, 95)]
    coverage = cover(files)
    assert ranges(coverage) == [(10, 10), (50, 50), (90, 95)]
    assert (coverage.gaps, coverage.latest_error) == ((), None)


def test_rest_of_a_level_that_was_merged_is_no_gap() -> None:
    """Litestream deletes level-0 files one by one, past the borders of merged ones."""
    files = [file(9, 1, 20), file(1, 21, 28), file(1, 29, 35), *level_0(31, 38)]
    coverage = cover(files)
    assert ranges(coverage) == [(20, 38)]
    assert coverage.states == [20, 28, 35, 36, 37, 38]
    assert (coverage.gaps, coverage.notes) == ((), ())


def test_rest_before_the_first_state_is_no_gap() -> None:
    """Files that led on from a snapshot which is gone belong to a dropped history."""
    files = [file(1, 30, 39), file(1, 40, 49), file(9, 1, 55), *level_0(56, 57)]
    coverage = cover(files)
    assert ranges(coverage) == [(55, 57)]
    assert coverage.gaps == ()


def test_snapshot_within_a_merged_file_does_not_break_the_range() -> None:
    """That file leads over it, and no transaction is missing."""
    coverage = cover([file(0, 1, 1), file(1, 2, 5), file(9, 1, 4)])
    assert ranges(coverage) == [(1, 5)]


def test_lost_file_bridged_by_a_snapshot_is_a_gap() -> None:
    """Files that lead nowhere show that those before them are missing."""
    files = [*level_0(1, 4), *level_0(6, 7), *level_0(9, 9), file(9, 1, 9)]
    coverage = cover([*files, file(0, 10, 10)])
    assert ranges(coverage) == [(1, 4), (9, 10)]
    assert gaps(coverage) == [(5, 8, [(5, 5), (8, 8)])]
    assert coverage.latest_error is None
    assert notes(coverage) == {"hole": "level 0 lacks transaction 5, transaction 8"}


def test_lost_file_before_the_newest_state_is_the_error_of_restore() -> None:
    """The newest state cannot be had; the text is the one that restore gives."""
    files = [*level_0(1, 4), *level_0(6, 9)]
    coverage = cover(files)
    assert gaps(coverage) == [(5, 9, [(5, 5)])]
    with pytest.raises(NotRestorableError) as caught:
        plan_restore(files)
    assert coverage.latest_error == str(caught.value)


def test_history_without_a_base_is_a_gap_from_its_beginning() -> None:
    """Increments alone restore nothing."""
    coverage = cover(level_0(5, 9))
    assert (coverage.ranges, coverage.states) == ((), [])
    assert gaps(coverage) == [(1, 9, [(1, 4)])]
    assert coverage.latest_error is not None


def test_empty_listing_has_nothing_but_the_error() -> None:
    """No backup is a problem, and no gap."""
    coverage = cover([])
    assert (coverage.ranges, coverage.gaps, coverage.notes) == ((), (), ())
    assert coverage.latest_error == "there is no backup: no LTX files"


def test_lost_file_that_a_merged_one_replaces_is_a_hole_only() -> None:
    """History is coarser there, as after retention; it is worth a note."""
    coverage = cover([*level_0(1, 3), *level_0(5, 8), file(1, 1, 6)])
    assert ranges(coverage) == [(1, 8)]
    assert coverage.gaps == ()
    assert notes(coverage) == {"hole": "level 0 lacks transaction 4"}


def test_overlaps_and_repetitions_are_notes() -> None:
    """They harm no restore, even if they are many."""
    twice = FileInfo(0, 3, 3, 1, 0)
    many = [file(2, n, n + 3) for n in range(4, 20, 2)]
    coverage = cover([*level_0(1, 23), twice, file(1, 1, 5), file(1, 4, 9), *many])
    found = notes(coverage)
    assert found["duplicate"] == "the listing repeats transaction 3"
    assert "level 2 holds more than once" in found["overlap"]
    assert found["overlap"].endswith("and 4 more")
    assert len(coverage.notes) == 3
    assert coverage.gaps == ()


def test_snapshot_that_is_no_whole_database_gives_nothing() -> None:
    """What is at level 9 must begin with transaction 1; it is no witness of a gap."""
    coverage = cover([*level_0(1, 3), file(9, 2, 8)])
    assert ranges(coverage) == [(1, 3)]
    assert (coverage.gaps, coverage.latest_error) == ((), None)


def test_damaged_file_is_needed_if_its_state_is_in_no_other() -> None:
    """What others give anyway is not needed, nor what leads to nothing."""
    files = [*level_0(1, 6), file(1, 1, 4), file(2, 1, 4), file(0, 9, 9)]
    damaged = {key_of(f) for f in (files[1], file(1, 1, 4), file(0, 9, 9))}
    coverage = cover(files, damaged)
    assert coverage.states == [1, 4, 5, 6]
    assert coverage.is_needed(files[1])
    assert not coverage.is_needed(file(1, 1, 4))
    assert not coverage.is_needed(file(0, 9, 9))


def test_damaged_newest_file_makes_the_newest_state_unrestorable() -> None:
    """An older state is not passed off as the newest; the file alone is lost."""
    files = level_0(1, 5)
    coverage = cover(files, {key_of(files[-1])})
    assert coverage.latest_error is not None
    assert "transaction 5, the newest, cannot be restored" in coverage.latest_error
    assert coverage.latest_error.endswith("The newest that can be restored is 4.")
    assert gaps(coverage) == [(5, 5, [(5, 5)])]


def test_damaged_snapshot_loses_what_led_on_from_it_and_nothing_before() -> None:
    """What was dropped before it on purpose is not said to be lost."""
    files = [file(9, 1, 10), file(9, 1, 50), *level_0(51, 53), file(9, 1, 90)]
    coverage = cover(files, {(9, 1, 50)})
    assert ranges(coverage) == [(10, 10), (90, 90)]
    assert gaps(coverage) == [(50, 53, [(50, 50)])]


def test_lost_and_damaged_files_in_a_row_are_one_gap() -> None:
    """Whoever heals it has to know all that is missing, not only the next piece."""
    files = [file(0, 1, 1), *level_0(3, 6), file(9, 1, 4)]
    coverage = cover(files, {(0, 1, 1)})
    assert gaps(coverage) == [(1, 3, [(1, 2)])]


def test_incomplete_state_is_no_state_though_its_chain_goes_on() -> None:
    """A page that is missing after one transaction may be in the next."""
    coverage = cover(level_0(1, 5), incomplete={3})
    assert coverage.states == [1, 2, 4, 5]
    assert ranges(coverage) == [(1, 5)]
    assert coverage.latest_error is None
    coverage = cover(level_0(1, 5), incomplete={5})
    assert ranges(coverage) == [(1, 4)]
    assert gaps(coverage) == [(5, 5, [])]
    assert coverage.latest_error is not None


def test_huge_listing_is_judged_however_many_files_are_damaged() -> None:
    """The judgement does not grow with the square of a listing."""
    end = 30_000
    files = [*level_0(1, end), *(file(1, n, n + 9) for n in range(1, end, 10))]
    snapshots = [file(9, 1, n) for n in range(10, end + 1, 10)]
    assert ranges(cover(files, {key_of(f) for f in files if f.max_txid % 2})) == [
        (10, end)
    ]
    broken = cover([*files, *snapshots], {key_of(f) for f in files if f.max_txid % 10})
    assert ranges(broken) == [(10, end)]
    lost = [f for f in level_0(1, end) if f.max_txid % 10 not in (0, 5)]
    assert len(cover([*lost, *snapshots]).gaps) == end // 10
