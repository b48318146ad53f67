"""What retention keeps, on listings that can be read at a glance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.retention import (
    Decision,
    Level0Files,
    due,
    kept_points,
    level0_files,
    unneeded_files,
)

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
MONDAY = 1_704_067_200_000  # 2024-01-01, 00:00 UTC

NOTHING = Retention(window=0, fine=0)


def file(level: int, first: int, last: int, time: int) -> FileInfo:
    """A file of these transactions of which the last is of ``time`` after that Monday."""
    return FileInfo(level, first, last, 1000, MONDAY + time)


def minutes(level: int, first: int, last: int) -> FileInfo:
    """The same, where each transaction comes a minute after the one before."""
    return file(level, first, last, last * MINUTE)


def every_minute(level: int, first: int, last: int, step: int = 1) -> list[FileInfo]:
    """Files of ``step`` transactions each, one transaction a minute."""
    ends = range(first + step - 1, last + 1, step)
    return [minutes(level, end - step + 1, end) for end in ends]


def kept(
    files: list[FileInfo], policy: Retention, now: int, **more: Any
) -> dict[int, set[str]]:
    """Which TXIDs stay and why, ``now`` after that Monday."""
    points = kept_points(files, policy, MONDAY + now, **more)
    return {point.txid: set(point.reasons) for point in points}


def left(
    files: list[FileInfo], policy: Retention, now: int, **more: Any
) -> list[FileInfo]:
    """The files that stay, in the order given."""
    spare = unneeded_files(files, policy, MONDAY + now, **more)
    assert len(spare) == len(set(spare)) and set(spare) <= set(files)
    return [file for file in files if file not in spare]


def test_single_uploads_stay_for_their_time() -> None:
    """Then only those that a level above 0 ends with, and the newest before the span."""
    files = [*every_minute(0, 1, 12), *every_minute(1, 1, 12, 4)]
    expected = {
        4: {"window"},
        6: {"start"},
        7: {"fine"},
        8: {"window"},
        9: {"fine"},
        10: {"fine"},
        11: {"fine"},
        12: {"window", "latest"},
    }
    assert kept(files, Retention(), 12 * MINUTE) == expected
    stay = [*every_minute(1, 1, 12, 4), *every_minute(0, 5, 7)]
    stay += [*every_minute(0, 9, 12)]
    assert set(left(files, Retention(), 12 * MINUTE)) == set(stay)


def test_window_keeps_what_the_levels_give_and_the_point_before() -> None:
    """Asking for the start of the window finds the state of that time."""
    files = [minutes(9, 1, 10), *every_minute(1, 11, 50, 10), minutes(0, 50, 50)]
    policy = Retention(window="15m", fine=0)
    assert kept(files, policy, 50 * MINUTE) == {
        10: {"snapshot"},
        30: {"start"},
        40: {"window", "start"},
        50: {"window", "latest"},
    }
    assert left(files, policy, 50 * MINUTE) == files


def test_chain_before_the_window_goes_once_a_snapshot_replaces_it() -> None:
    """What only leads to states that are not kept any more is not needed."""
    old = [minutes(9, 1, 10), *every_minute(1, 11, 30, 10)]
    new = [minutes(9, 1, 30), *every_minute(1, 31, 50, 10), minutes(0, 50, 50)]
    assert left([*old, *new], Retention(window="15m"), 50 * MINUTE) == new


def test_file_that_a_higher_level_ends_with_replaces_the_lower() -> None:
    """Plans take the larger one: the last of five small files is not needed."""
    low, high = every_minute(1, 1, 10), minutes(2, 1, 10)
    last = [minutes(1, 11, 11), minutes(0, 11, 11)]
    files = [*low, high, *last]
    assert left(files, Retention(fine=0), 11 * MINUTE) == [*low[:-1], high, *last]


def test_newest_of_each_level_stays() -> None:
    """There Litestream goes on, and so do our compaction and our position."""
    files = [
        minutes(9, 1, 9),
        minutes(1, 7, 9),
        minutes(2, 4, 8),
        minutes(0, 8, 8),
        minutes(0, 9, 9),
    ]
    policy = Retention(window="1m", fine=0)
    assert left(files, policy, 99 * DAY) == [f for f in files if f != minutes(0, 8, 8)]


def test_what_leads_to_the_newest_of_a_level_stays_with_it() -> None:
    """Alone, between snapshots that stay, it would look like what is left of a loss."""
    weekly = minutes(9, 1, 13)
    hours = [minutes(3, 14, 25), minutes(3, 26, 37)]
    files = [weekly, *hours, minutes(9, 1, 40), minutes(0, 41, 41)]
    policy = Retention(window=0, fine=0, weekly=2)
    now = 9 * DAY  # the week of the first snapshot and the week after
    files = [replace(f, timestamp=f.timestamp + (f.max_txid > 37) * now) for f in files]
    assert left(files, policy, now + HOUR) == files


def test_newest_state_and_newest_snapshot_stay_whatever_their_age() -> None:
    """An idle database loses nothing."""
    files = [minutes(9, 1, 3), minutes(9, 1, 5), minutes(1, 6, 7), minutes(0, 7, 7)]
    assert left(files, NOTHING, 999 * DAY) == files[1:]
    why = {5: {"snapshot"}, 7: {"latest", "start"}}
    assert kept(files, NOTHING, 999 * DAY) == why


def test_keep_last_counts_snapshots() -> None:
    """At least so many, however old."""
    files = [file(9, 1, day, day * DAY) for day in range(1, 7)]
    assert left(files, replace(NOTHING, keep_last=3), 99 * DAY) == files[3:]


def test_periods_are_those_of_utc_that_have_points() -> None:
    """Weeks begin on Monday; empty periods do not count."""
    days = [1, 2, 6, 7, 8, 20, 31, 32, 33]  # 0 is Monday, the first of January
    files = [file(9, 1, day, day * DAY + HOUR) for day in days]
    now = 40 * DAY

    def chosen(**count: int) -> list[int]:
        why = kept(files, replace(NOTHING, **count), now)
        return [
            txid for txid, reasons in why.items() if reasons & {f"{c}" for c in count}
        ]

    assert chosen(daily=3) == [31, 32, 33]
    assert chosen(daily=99) == days
    assert chosen(weekly=4) == [6, 8, 20, 33]
    assert chosen(monthly=9) == [20, 33]
    assert chosen(hourly=2) == [32, 33]


def test_period_prefers_a_snapshot_then_a_merged_file() -> None:
    """What costs least to keep stands for the period."""
    single, merged = file(0, 9, 9, 23 * HOUR), file(1, 7, 8, 22 * HOUR)
    base = file(9, 1, 3, HOUR - DAY)
    image = file(9, 1, 6, HOUR)
    middle = file(1, 4, 6, HOUR)
    next_day = [file(1, 9, 10, DAY + HOUR), file(0, 10, 10, DAY + HOUR)]
    policy = replace(NOTHING, daily=9)
    files = [base, image, middle, merged, single, *next_day]
    assert "daily" in kept(files, policy, 9 * DAY)[6]
    assert "daily" in kept([f for f in files if f != image], policy, 9 * DAY)[8]
    without = [base, file(0, 4, 8, 22 * HOUR), single, file(0, 10, 10, DAY)]
    assert "daily" in kept(without, policy, 9 * DAY)[8]
    ones = [base, *(file(0, n, n, n * HOUR) for n in range(4, 10))]
    assert "daily" in kept(ones, policy, 9 * DAY)[9]


def test_representative_stays_with_all_that_leads_to_it() -> None:
    """Months later it still has its snapshot and every increment between."""
    month = [file(9, 1, 3, 0), file(3, 4, 6, HOUR), file(3, 7, 9, 2 * HOUR)]
    later = [file(3, 10, 12, 40 * DAY), file(9, 1, 12, 40 * DAY)]
    only_images = [month[0], *later]
    policy = replace(NOTHING, monthly=3)
    assert left([*month, *later], policy, 50 * DAY) == only_images
    assert left([*month, *later], replace(NOTHING, hourly=9), 50 * DAY) == [
        *month,
        *later,
    ]


def test_pinned_states_stay_with_what_they_need() -> None:
    """A pin outlives every rule, also that of the finest points."""
    files = [minutes(9, 1, 2), *every_minute(0, 3, 6), minutes(1, 3, 6)]
    files += [minutes(9, 1, 8), minutes(0, 8, 8)]
    assert kept(files, NOTHING, 99 * DAY, pins={4})[4] == {"pin"}
    gone = [minutes(0, 5, 5), minutes(0, 6, 6)]
    stay = left(files, NOTHING, 99 * DAY, pins={4})
    assert set(files) - set(stay) == set(gone)


def test_pin_that_cannot_be_restored_keeps_its_neighbours_and_what_is_between() -> None:
    """Perhaps a file is only missing in this listing."""
    files = [minutes(9, 1, 2), minutes(0, 3, 3), minutes(0, 5, 5), minutes(0, 6, 6)]
    files += [minutes(9, 1, 7), minutes(0, 8, 8)]
    assert left(files, NOTHING, 99 * DAY, pins={5}) == [
        f for f in files if f != minutes(0, 6, 6)
    ]
    assert left(files, NOTHING, 99 * DAY, pins={99}) == files[-2:]


def test_increments_lead_through_the_window_past_snapshots() -> None:
    """A follower needs them although a snapshot ends with the same state."""
    files = [minutes(9, 1, 4), minutes(1, 5, 8), minutes(9, 1, 8), minutes(1, 9, 12)]
    files += [minutes(0, 12, 12)]
    assert left(files, Retention(), 13 * MINUTE) == files


def test_level_0_that_was_not_merged_yet_stays_in_the_window() -> None:
    """If compaction lags, its inputs wait for it."""
    files = [minutes(9, 1, 4), *every_minute(0, 5, 30)]
    assert left(files, Retention(), 40 * MINUTE) == files
    merged = [*files, *every_minute(1, 5, 28, 8)]
    stay = [*files[:1], *every_minute(0, 29, 30), *every_minute(1, 5, 28, 8)]
    assert left(merged, Retention(), 40 * MINUTE) == stay


# -- when in doubt ---------------------------------------------------------------------------


def test_with_a_gap_before_the_newest_state_nothing_goes() -> None:
    """The listing may lie, and what is behind the gap may need what is before it."""
    files = [*every_minute(9, 1, 3, 3), *every_minute(0, 1, 4), minutes(0, 6, 6)]
    assert left(files, NOTHING, 99 * DAY) == files
    assert left(every_minute(0, 2, 4), NOTHING, 99 * DAY) == every_minute(0, 2, 4)
    assert left([], NOTHING, 99 * DAY) == []


def test_files_behind_a_bridged_gap_stay_for_the_window() -> None:
    """Whoever heals the gap finds them; later they are of no use."""
    islands = [minutes(1, 6, 7), minutes(1, 8, 9)]
    files = [minutes(9, 1, 4), *islands, minutes(9, 1, 9), minutes(1, 10, 12)]
    assert left(files, Retention(), 20 * MINUTE) == files
    assert left(files, NOTHING, 20 * MINUTE) == files[3:]


def test_snapshot_level_file_that_is_no_image_is_not_touched() -> None:
    """Nobody here wrote it, and no plan of ours uses it."""
    strange = minutes(9, 5, 20)
    files = [minutes(9, 1, 4), minutes(9, 1, 9), strange]
    assert left(files, NOTHING, 99 * DAY) == files[1:]


def test_file_listed_twice_is_not_deleted_under_its_other_size() -> None:
    """Deletion is by name: a file goes with all that is listed of it, or stays."""
    twice = replace(minutes(9, 1, 4), size=5, timestamp=MONDAY)
    files = [minutes(9, 1, 4), twice, minutes(0, 5, 5)]
    assert left(files, NOTHING, 99 * DAY) == files


def test_time_later_than_now_keeps_its_point_and_no_other() -> None:
    """A clock that once was ahead does not stop retention for all that follows."""
    ahead = file(1, 5, 5, 99 * DAY)
    files = [file(9, 1, 4, 0), ahead, file(9, 1, 6, HOUR), file(9, 1, 7, 2 * HOUR)]
    files += [file(0, 8, 8, 9 * DAY)]
    policy = Retention(window="1d")
    why = kept(files, policy, 9 * DAY)
    assert "window" in why[5] and 6 not in why
    why = kept(files, replace(policy, hourly=1), 9 * DAY)
    assert "hourly" in why[5]


def test_clock_set_back_makes_no_point_older_than_those_before_it() -> None:
    """What was captured in 1970 by its clock is as new as what came before."""
    files = [file(9, 1, 4, 20 * HOUR), file(0, 5, 5, -MONDAY), file(9, 1, 6, -MONDAY)]
    files += [file(1, 7, 7, 23 * HOUR)]
    assert {4, 6, 7} <= kept(files, Retention(), 40 * HOUR).keys()


def test_plan_that_is_late_keeps_the_chain_that_is_not() -> None:
    """Litestream stamps a snapshot when it is made: until then others gave the state."""
    old = [minutes(9, 1, 2), minutes(1, 3, 5)]
    late = file(9, 1, 5, 50 * MINUTE)
    new = [file(1, 6, 6, 60 * MINUTE), file(0, 6, 6, 60 * MINUTE)]
    files = [*old, late, *new]
    policy = Retention(window="1h")
    assert left(files, policy, 62 * MINUTE) == files
    points = kept_points(files, policy, MONDAY + 62 * MINUTE)
    assert [p.by for p in points if p.txid == 5] == [MONDAY + 5 * MINUTE]
    assert left(files, policy, 111 * MINUTE) == [late, *new]


# -- the pieces ------------------------------------------------------------------------------


def test_files_go_newest_first() -> None:
    """At no moment is there a file that nothing leads to."""
    files = [minutes(9, 1, 2), minutes(1, 3, 5), minutes(0, 5, 5), minutes(1, 6, 8)]
    files += [minutes(9, 1, 9), minutes(0, 9, 9), minutes(1, 9, 9)]
    spare = unneeded_files(files, NOTHING, MONDAY + 9 * DAY)
    assert spare == [
        minutes(1, 6, 8),
        minutes(0, 5, 5),
        minutes(1, 3, 5),
        minutes(9, 1, 2),
    ]


FILES = [minutes(9, 1, 2), minutes(0, 3, 3), minutes(1, 3, 3), minutes(9, 1, 4)]
FILES += [minutes(0, 5, 5), minutes(1, 5, 5)]
GONE = [minutes(1, 3, 3), minutes(0, 3, 3), minutes(9, 1, 2)]


def decide(doomed: Any, clock: float, files: Any = FILES, **changes: Any) -> Decision:
    """The decision at a time of the clock that is never set."""
    policy = replace(NOTHING, **changes)
    return due(files, policy, MONDAY + 9 * DAY, doomed=doomed, clock=clock)


def test_files_go_after_the_grace() -> None:
    """The first decision only remembers; level 0 waits five minutes, others an hour."""
    first = decide({}, 1000.0)
    assert first.delete == () and first.doomed == dict.fromkeys(first.doomed, 1000.0)
    assert set(first.doomed) == set(GONE)
    assert decide(first.doomed, 1299.9).delete == ()
    assert decide(first.doomed, 1300.0).delete == (minutes(0, 3, 3),)
    last = decide(first.doomed, 4600.0)
    assert set(last.delete) == set(GONE) and last.doomed == first.doomed


def test_file_needed_again_waits_anew() -> None:
    """Only what was not needed all the time goes; so also what a listing left out."""
    doomed = decide({}, 0.0).doomed
    without = [file for file in FILES if file != GONE[0]]
    doomed = decide(doomed, 5000.0, without).doomed
    again = decide(doomed, 5001.0)
    assert again.doomed[GONE[0]] == 5001.0
    assert again.delete == (GONE[1],)


def test_file_waits_for_those_that_it_leads_to() -> None:
    """Or there would be one that nothing leads to, which looks like a loss."""
    doomed = dict.fromkeys(GONE, 0.0) | {GONE[0]: 3000.0}
    assert decide(doomed, 6599.0).delete == (GONE[1],)
    assert decide(doomed, 6600.0).delete == (GONE[2], GONE[0], GONE[1])


def test_old_image_does_not_wait_for_the_newest_of_a_level() -> None:
    """In a replica that is at work something always waits for its grace."""
    old = [minutes(9, 1, 1), minutes(3, 2, 5)]
    new = [minutes(9, 1, 30), *every_minute(1, 31, 50, 10), minutes(0, 50, 50)]
    waiting = minutes(1, 25, 30)
    files = [*old, *new, waiting]
    doomed = dict.fromkeys(files, 0.0) | {waiting: 3000.0}
    policy = Retention(window="15m", fine=0, grace="1h")
    now = MONDAY + 50 * MINUTE
    found = due(files, policy, now, doomed=doomed, clock=3700.0)
    assert found.delete == (old[0],)


def test_what_leads_to_the_newest_of_a_level_waits_with_an_older_state() -> None:
    """Between that and the newest one it would look like what is left of a loss."""
    image, led = minutes(9, 1, 13), minutes(3, 14, 25)
    files = [image, led, minutes(3, 26, 37), minutes(9, 1, 40), minutes(0, 41, 41)]
    doomed = {led: 0.0, image: 3000.0}
    policy = Retention(window=0, fine=0, grace="1h")
    late = [
        due(files, policy, MONDAY + DAY, doomed=doomed, clock=c) for c in (3700, 7000)
    ]
    assert [found.delete for found in late] == [(), (image, led)]


def test_short_grace_holds_for_level_0_too() -> None:
    """No grace deletes at once."""
    assert set(decide({}, 0.0, grace=0).delete) == set(GONE)
    doomed = decide({}, 0.0, grace=10).doomed
    assert set(decide(doomed, 10.0, grace=10).delete) == set(GONE)


def test_nothing_is_deleted_where_deletion_is_off() -> None:
    """The bucket's lifecycle or an object lock has the say."""
    assert decide({}, 0.0, grace=0, delete=False) == Decision((), {})


def test_files_of_level_0_are_counted_by_what_becomes_of_them() -> None:
    """Merged or not, and of those that were merged what goes now."""
    level0 = every_minute(0, 1, 12)
    files = [*level0, *every_minute(1, 1, 8, 4)]
    counted = level0_files(files, delete=[*level0[:3], files[-1]])
    assert counted == Level0Files(not_compacted=4, too_recent=5, eligible=3)
    assert level0_files([], ()) == Level0Files(
        not_compacted=0, too_recent=0, eligible=0
    )


def test_snapshot_counts_as_merged() -> None:
    """Its database would else have a file that waits for compaction for ever."""
    counted = level0_files([minutes(0, 1, 1), minutes(9, 1, 1)], ())
    assert counted == Level0Files(not_compacted=0, too_recent=1, eligible=0)
