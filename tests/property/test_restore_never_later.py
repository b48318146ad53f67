"""T34, I6: a restore to a time never gives a later state than asked.

Every transaction has a time, that of the clock when it was captured. *Later than asked* is a
state that has a transaction of the time asked for or after it. Where times never fall from
one transaction to the next, as in every replica of ours, that is no more than the time of
the last one. Where a clock was set back under another program, it is not: then it is
no more than that while no other program compacts, nor replaces files by a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.ltxfiles import make_header

from sqlitereplica.errors import NotRestorableError, PosMismatchError
from sqlitereplica.ltx import FileInfo, Header, merge_headers
from sqlitereplica.restore.assemble import Wanted

pytestmark = pytest.mark.property

LATEST = 9
Merge = Callable[[Sequence[Header]], Header]

rising = st.lists(st.integers(0, 3), min_size=1, max_size=9).map(
    lambda steps: [sum(steps[: n + 1]) // 2 for n in range(len(steps))]
)
"""Times that never fall, often equal."""

anything = st.lists(st.integers(0, LATEST), min_size=1, max_size=9)
"""Times of a clock that is set back and forth."""

operations = st.lists(
    st.tuples(
        st.sampled_from(["merge", "merge", "merge", "snapshot", "delete"]),
        st.integers(0, 20),
        st.integers(1, 5),
    ),
    max_size=12,
)


def litestream_merge(headers: Sequence[Header]) -> Header:
    """The time of the last input, whatever the others have (litestream.md 1.8)."""
    last = headers[-1]
    return make_header(
        min_txid=headers[0].min_txid,
        max_txid=last.max_txid,
        timestamp=last.timestamp,
    )


def replay(
    times: Sequence[int], steps: Sequence[tuple[str, int, int]], merge: Merge
) -> list[FileInfo]:
    """Level-0 files of these times, then merged, deleted and replaced by snapshots."""
    files = [FileInfo(0, n, n, 1, time) for n, time in enumerate(times, 1)]
    for what, where, width in steps:
        if not files:
            break
        file = files[where % len(files)]
        if what == "delete":
            files.remove(file)
        elif what == "merge":
            files += merged(files, file, width, merge)
        else:
            # The clock has gone on since that transaction, not past the next one.
            own, following = times[file.max_txid - 1], times[file.max_txid :]
            stamp = min([own + width % 2, *(max(own, t) for t in following[:1])])
            files.append(FileInfo(9, 1, file.max_txid, 1, stamp))
    return files


def merged(
    files: Sequence[FileInfo], first: FileInfo, width: int, merge: Merge
) -> list[FileInfo]:
    """The file of the next level made of some that begin with this one, if they join."""
    if first.level >= 8:
        return []
    level = sorted(
        {f for f in files if f.level == first.level}, key=lambda f: f.min_txid
    )
    at = level.index(first)
    headers = [
        make_header(min_txid=f.min_txid, max_txid=f.max_txid, timestamp=f.timestamp)
        for f in level[at : at + width]
    ]
    try:
        header = merge(headers)
        merge_headers(headers)
    except PosMismatchError:
        return []
    time = header.timestamp
    return [FileInfo(first.level + 1, header.min_txid, header.max_txid, 1, time)]


def end_of(files: Sequence[FileInfo], before: int) -> int:
    """The transaction that a restore to a time ends with; 0 if there is no such state."""
    try:
        return Wanted(before=before).plan(files)[-1].max_txid
    except NotRestorableError:
        return 0


def newest_allowed(times: Sequence[int], before: int) -> int:
    """The last state in which every transaction is before a time."""
    late = [n for n, time in enumerate(times) if time >= before]
    return late[0] if late else len(times)


@given(rising, operations, st.integers(0, LATEST + 6))
def test_replica_of_ours_never_gives_a_later_state(
    times: list[int], steps: list[tuple[str, int, int]], before: int
) -> None:
    """Whatever is merged, deleted and replaced: no transaction of that time or later."""
    files = replay(times, steps, merge_headers)
    assert end_of(files, before) <= newest_allowed(times, before)


@given(rising, operations, st.integers(0, LATEST + 6))
def test_compaction_alone_takes_no_state_from_a_time(
    times: list[int], steps: list[tuple[str, int, int]], before: int
) -> None:
    """While nothing is deleted it is exactly the last state that is allowed."""
    kept = [step for step in steps if step[0] != "delete"]
    files = replay(times, kept, merge_headers)
    assert end_of(files, before) == newest_allowed(times, before)


@given(anything, operations, st.integers(0, LATEST + 2))
@example([1, 8, 3], [("merge", 0, 3), ("delete", 0, 1), ("delete", 0, 1)], 5)
def test_clock_set_back_never_gives_a_later_state_after_our_compaction(
    times: list[int], steps: list[tuple[str, int, int]], before: int
) -> None:
    """A merged file is as late as the latest transaction in it."""
    kept = [step for step in steps if step[0] != "snapshot"]
    files = replay(times, kept, merge_headers)
    assert end_of(files, before) <= newest_allowed(times, before)


@given(anything, operations, st.integers(0, LATEST + 2))
def test_last_transaction_is_before_the_time_whoever_merged(
    times: list[int], steps: list[tuple[str, int, int]], before: int
) -> None:
    """All that holds where others compacted, or made snapshots, as a clock was set back."""
    end = end_of(replay(times, steps, litestream_merge), before)
    assert end == 0 or times[end - 1] < before


def test_clock_set_back_under_litestream_hides_a_later_transaction() -> None:
    """Why no more is promised there: its merged file has the time of its last input."""
    merge = [("merge", 0, 3), ("delete", 0, 1), ("delete", 0, 1), ("delete", 0, 1)]
    files = replay([1, 8, 3], merge, litestream_merge)
    assert end_of(files, 5) == 3 > newest_allowed([1, 8, 3], 5)
