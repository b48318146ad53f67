"""Of what compactions are made, and when snapshots are due."""

from __future__ import annotations

import pytest

from sqlitereplica.ltx import FileInfo
from sqlitereplica.replicate.schedule import (
    DEFAULT_LEVELS,
    Gap,
    Run,
    compaction_inputs,
    parse_levels,
    snapshot_due,
    snapshot_source,
)

SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000
MIB = 1 << 20


def file(
    level: int, first: int, last: int, *, time: int | None = None, size: int = 1000
) -> FileInfo:
    """A file of these transactions; its time is a second per transaction."""
    return FileInfo(level, first, last, size, last * SECOND if time is None else time)


def level_0(first: int, last: int) -> list[FileInfo]:
    """One file for each transaction."""
    return [file(0, txid, txid) for txid in range(first, last + 1)]


# -- levels ---------------------------------------------------------------------------------


def test_levels_are_durations() -> None:
    """The default is Litestream's."""
    assert parse_levels(["30s", "5m", "1h"]) == DEFAULT_LEVELS
    assert parse_levels([]) == ()
    assert len(parse_levels(range(1, 9))) == 8


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["30s", "30s"], "rising"),
        (["5m", "30s"], "rising"),
        (["0s", "30s"], "a millisecond at least"),
        (range(1, 10), "9 levels: there can be 8"),
        (["30s", "soon"], r"levels\[1\]='soon' is not a duration"),
    ],
)
def test_levels_that_make_no_sense_are_refused(levels: list[str], message: str) -> None:
    """The error says what is expected."""
    with pytest.raises(ValueError, match=message):
        parse_levels(levels)


# -- inputs ---------------------------------------------------------------------------------


def test_run_continues_where_the_level_ends() -> None:
    """All files of the level below from there on, in order."""
    files = [*level_0(1, 9), file(1, 1, 4)]
    assert compaction_inputs(files[::-1], 1) == Run(tuple(level_0(5, 9)))


def test_run_of_a_new_replica_begins_with_its_first_image() -> None:
    """The first file of a level holds the whole database."""
    assert compaction_inputs(level_0(1, 3), 1) == Run(tuple(level_0(1, 3)))


@pytest.mark.parametrize(
    "files",
    [
        [],
        [*level_0(1, 4), file(1, 1, 4)],
        [file(0, 4, 4), file(1, 3, 4), file(9, 1, 4)],
        [file(0, 4, 4), file(1, 1, 9)],
        [file(9, 1, 4)],
        [file(0, 4, 4), file(1, 1, 2), file(9, 1, 4)],
    ],
    ids=[
        "empty",
        "merged",
        "retained",
        "level beyond",
        "only a snapshot",
        "snapshot beyond what was deleted",
    ],
)
def test_idle_replica_gives_no_run(files: list[FileInfo]) -> None:
    """If the level ends where the one below does, there is nothing to do."""
    assert compaction_inputs(files, 1) == Run()


def test_run_ends_before_a_gap() -> None:
    """What comes behind is not merged with what comes before."""
    files = [*level_0(1, 3), *level_0(5, 6)]
    assert compaction_inputs(files, 1) == Run(tuple(level_0(1, 3)))


def test_gap_that_nothing_bridges_is_reported_and_not_crossed() -> None:
    """Nothing is merged until the gap is healed."""
    files = [*level_0(5, 6), file(1, 1, 3)]
    assert compaction_inputs(files, 1) == Run(gap=Gap(4, 4))
    assert compaction_inputs(level_0(5, 6), 1) == Run(gap=Gap(1, 4))


def test_run_begins_anew_behind_a_gap_that_a_snapshot_bridges() -> None:
    """Its first file is the first one that the snapshot leads to."""
    files = [*level_0(6, 9), file(1, 1, 3), file(9, 1, 7)]
    assert compaction_inputs(files, 1) == Run(tuple(level_0(8, 9)), gap=Gap(4, 7))
    straddling = [file(0, 6, 9), *files[4:]]
    assert compaction_inputs(straddling, 1) == Run((file(0, 6, 9),), gap=Gap(4, 5))


def test_empty_level_begins_where_a_snapshot_leads_on() -> None:
    """A level that was never made is no gap."""
    files = [*level_0(6, 9), file(9, 1, 7)]
    assert compaction_inputs(files, 1) == Run(tuple(level_0(8, 9)))


def test_file_that_straddles_the_end_of_the_level_is_an_input() -> None:
    """Ends of levels need not meet (#1460)."""
    files = [file(1, 1, 4), file(1, 5, 8), file(1, 9, 12), file(2, 1, 6)]
    assert compaction_inputs(files, 2) == Run((file(1, 5, 8), file(1, 9, 12)))


def test_overlaps_and_duplicates_are_passed_over() -> None:
    """Each input brings something new."""
    files = [file(1, 1, 4), file(1, 2, 4), file(1, 3, 9), file(1, 5, 7), file(1, 9, 10)]
    wanted = Run((file(1, 1, 4), file(1, 3, 9), file(1, 9, 10)))
    assert compaction_inputs([*files, *files], 2) == wanted


def test_backlog_is_worked_off_in_pieces() -> None:
    """Runs are bounded by number and bytes, and say that there is more."""
    files = level_0(1, 10)
    assert compaction_inputs(files, 1, max_files=4) == Run(
        tuple(level_0(1, 4)), more=True
    )
    assert compaction_inputs(files, 1, max_bytes=3500) == Run(
        tuple(level_0(1, 3)), more=True
    )
    assert compaction_inputs(files, 1, max_files=10, max_bytes=10_000) == Run(
        tuple(files)
    )


def test_file_larger_than_the_bound_is_a_run_of_its_own() -> None:
    """A bound never stops compaction."""
    large = file(0, 1, 1, size=5000)
    run = compaction_inputs([large, *level_0(2, 3)], 1, max_bytes=3000)
    assert run == Run((large,), more=True)


# -- snapshots ------------------------------------------------------------------------------


def test_snapshot_is_due_when_changes_are_older_than_the_multiple() -> None:
    """The first multiple of the interval after a change that no image has."""
    image = file(9, 1, 5, time=DAY - HOUR)
    change = file(0, 6, 6, time=DAY + HOUR)
    assert snapshot_due([image, change], 2 * DAY - 1) is None
    assert snapshot_due([image, change], 2 * DAY) == "interval"
    assert snapshot_due([image, change], 2 * DAY, interval=None) is None


def test_snapshot_of_an_old_state_counts_from_when_changes_came() -> None:
    """A change after a long idle time waits for the next multiple, too."""
    image = file(9, 1, 5, time=DAY)
    change = file(0, 6, 6, time=9 * DAY + HOUR)
    assert snapshot_due([image, change], 9 * DAY + 2 * HOUR) is None
    assert snapshot_due([image, change], 10 * DAY) == "interval"


@pytest.mark.parametrize(
    "files",
    [
        [],
        [file(9, 1, 5)],
        [file(9, 1, 5), *level_0(1, 5), file(1, 1, 5)],
        [file(0, 1, 1, size=99 * MIB)],
    ],
)
def test_idle_replica_gets_no_snapshot(files: list[FileInfo]) -> None:
    """If an image has the newest state, no time and no size makes another."""
    assert snapshot_due(files, 99 * DAY) is None


def test_snapshot_is_due_when_a_restore_reads_too_much() -> None:
    """More than twice the bytes of the image."""
    image = file(9, 1, 5, size=10 * MIB)
    enough = [image, file(2, 6, 9, size=10 * MIB)]
    assert snapshot_due(enough, 100 * SECOND) is None
    assert snapshot_due([*enough, file(1, 10, 10, size=1)], 100 * SECOND) is not None
    assert snapshot_due(enough, 100 * SECOND, amplification=1.9) == "amplification"
    assert snapshot_due(enough, 100 * SECOND, floor=20 * MIB, amplification=1.1) is None


def test_small_image_counts_as_the_floor() -> None:
    """A database of a few pages is not snapshotted for each change of them."""
    image = file(9, 1, 5)
    assert snapshot_due([image, file(1, 6, 9, size=MIB)], 99 * SECOND) is None
    large = file(1, 6, 9, size=2 * MIB)
    assert snapshot_due([image, large], 99 * SECOND) == "amplification"


def test_files_that_are_about_to_be_merged_do_not_count() -> None:
    """Level-0 files of the last minute are left out, others are not."""
    image, busy = file(9, 1, 5), file(0, 6, 6, time=100 * SECOND, size=9 * MIB)
    assert snapshot_due([image, busy], 159 * SECOND) is None
    assert snapshot_due([image, busy], 160 * SECOND) == "amplification"
    merged = file(1, 6, 6, time=100 * SECOND, size=9 * MIB)
    assert snapshot_due([image, merged], 101 * SECOND) == "amplification"


def test_only_what_a_restore_reads_counts() -> None:
    """Files of lower levels that others cover cost a restore nothing."""
    covered = [file(1, n, n, size=MIB) for n in range(6, 20)]
    files = [file(9, 1, 5, size=MIB), *covered, file(2, 6, 19, size=MIB)]
    assert snapshot_due(files, 99 * SECOND) is None


def test_gap_before_the_newest_state_asks_for_a_snapshot() -> None:
    """A snapshot is what bridges it at last."""
    assert snapshot_due([file(9, 1, 5), *level_0(7, 9)], 99 * SECOND) == "gap"
    assert snapshot_due(level_0(7, 9), 99 * SECOND) == "gap"


@pytest.mark.parametrize(
    "wrong", [{"interval": 0}, {"amplification": 1.0}, {"amplification": float("nan")}]
)
def test_snapshots_without_end_are_refused(wrong: dict[str, int]) -> None:
    """Values that would ask for one all the time are errors."""
    with pytest.raises(ValueError):
        snapshot_due([], 0, **wrong)


@pytest.mark.parametrize(
    ("plan", "local", "database", "is_local", "source"),
    [
        (100, 0, 100, True, "merge"),
        (200, 0, 100, True, "merge"),
        (201, 0, 100, True, "read"),
        (100, 0, 100, False, "read"),
        (100, 90, 100, False, "merge"),
        (20, 0, 100, False, "merge"),
        (0, 0, 100, True, "read"),
        (100, 500, 100, False, "merge"),
    ],
)
def test_snapshot_is_made_of_what_costs_less(
    plan: int, local: int, database: int, is_local: bool, source: str
) -> None:
    """Fetching is dear, reading the database holds its WAL, no plan leaves no choice."""
    assert source == snapshot_source(
        plan_bytes=plan,
        local_bytes=local,
        database_bytes=database,
        is_local=is_local,
    )
