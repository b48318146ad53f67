"""The plan for files of Litestream 0.3 against what it has to be, on any listing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.restore.generations import (
    bounds,
    gap_at,
    plan_generation,
)
from sqlitereplica.store import GenerationFile

pytestmark = pytest.mark.property

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_TIME = 14


@st.composite
def files(draw: st.DrawFn) -> GenerationFile:
    """A snapshot or a segment; a store that counts seconds rounds up further."""
    time = draw(st.integers(1, LAST_TIME))
    return GenerationFile(
        generation=draw(st.sampled_from(["a" * 16, "b" * 16])),
        index=draw(st.integers(0, 3)),
        offset=draw(st.sampled_from([None, 0, 0, 100, 200])),
        size=1,
        timestamp=time,
        committed_by=time + draw(st.integers(0, 2)),
    )


def names(file: GenerationFile) -> tuple[str, int, int | None]:
    """What no two files of a listing have in common."""
    return file.generation, file.index, file.offset


listings = st.lists(files(), max_size=20, unique_by=names)
times = st.none() | st.integers(0, LAST_TIME + 4)


def is_usable(file: GenerationFile, listing: list[GenerationFile], before: int) -> bool:
    """Whether a snapshot, and the beginning of its WAL if there is any, is old enough."""
    wal = [
        f for f in listing if names(f)[:2] == names(file)[:2] and f.offset is not None
    ]
    begun = sorted(wal, key=lambda f: f.offset or 0)[:1]
    return all(f.committed_by < before for f in (file, *begun))


def walk(
    snapshot: GenerationFile, listing: list[GenerationFile], before: int
) -> tuple[list[GenerationFile], bool]:
    """The segments that follow a snapshot, one by one; and whether one is missing."""
    rest = {
        (f.index, f.offset): f
        for f in listing
        if f.generation == snapshot.generation and f.offset is not None
    }
    found: list[GenerationFile] = []
    for place in sorted(place for place in rest if place[0] >= snapshot.index):
        segment = rest[place]
        if segment.committed_by >= before:
            break
        last = found[-1].index if found else snapshot.index - 1
        if segment.index != last and (segment.index, segment.offset) != (last + 1, 0):
            return found, True
        found.append(segment)
    return found, False


def model(
    listing: list[GenerationFile], before: int | None
) -> str | tuple[GenerationFile, list[GenerationFile]]:
    """The outcome in the simplest words: a kind of error, or the files."""
    if not listing:
        return "empty"
    snapshots = [file for file in listing if file.offset is None]
    if not snapshots:
        return "gap"
    limit = 10**9 if before is None else before
    if before is not None:
        snapshots = [file for file in snapshots if is_usable(file, listing, before)]
    if not snapshots:
        return "time"
    ranked = sorted(snapshots, key=lambda f: (f.timestamp, f.index, f.generation))
    segments, missing = walk(ranked[-1], listing, limit)
    return "gap" if missing else (ranked[-1], segments)


def outcome(
    listing: list[GenerationFile], before: int | None
) -> str | tuple[GenerationFile, list[GenerationFile]]:
    """The same of the real plan."""
    try:
        plan = plan_generation(listing, before=before)
    except NotRestorableError as error:
        return error.kind
    return plan.snapshot, list(plan.segments)


def milliseconds(time: object) -> int:
    """A time that an error names, to be asked for."""
    assert isinstance(time, datetime)
    return (time - EPOCH) // timedelta(milliseconds=1)


@given(listing=listings, before=times)
def test_plan_is_that_of_the_model(
    listing: list[GenerationFile], before: int | None
) -> None:
    """The same snapshot, the same segments, or the same kind of error."""
    assert outcome(listing, before) == model(listing, before)


@given(listing=listings, before=times)
def test_plan_is_never_later_than_asked(
    listing: list[GenerationFile], before: int | None
) -> None:
    """Everything in it was committed before; what tells of later frames is apart."""
    try:
        plan = plan_generation(listing, before=before)
    except NotRestorableError:
        return
    if before is not None:
        assert plan.committed_by < before
    others = [f for f in listing if f.generation != plan.snapshot.generation]
    later = [f for f in others if f.offset is not None and f.timestamp > plan.timestamp]
    if before is not None:
        later = [f for f in later if f.committed_by < before]
    assert (plan.overlooked in later) if later else (plan.overlooked is None)
    used: set[GenerationFile] = {plan.snapshot, *plan.segments}
    own = {f for f in listing if names(f)[:2] == names(plan.snapshot)[:2]}
    assert set(plan.beyond) == own - used
    assert not plan.beyond or all(f.index == plan.snapshot.index for f in used)


@given(listing=listings, before=times, data=st.data())
def test_plan_does_not_depend_on_the_order_of_the_listing(
    listing: list[GenerationFile], before: int | None, data: st.DataObject
) -> None:
    """Listings of different stores come in different orders."""
    shuffled = data.draw(st.permutations(listing))
    assert outcome(listing, before) == outcome(shuffled, before)


@given(listing=listings, before=times)
def test_times_in_errors_can_be_asked_for(
    listing: list[GenerationFile], before: int | None
) -> None:
    """The earliest time gives a state, or at most the gap that it is behind."""
    if not isinstance(outcome(listing, before), str):
        return
    with pytest.raises(NotRestorableError) as caught:
        plan_generation(listing, before=before)
    error = caught.value
    if error.earliest is not None:
        assert outcome(listing, milliseconds(error.earliest)) != "time"
        assert outcome(listing, milliseconds(error.earliest) - 1) == "time"
    if error.latest is not None:
        assert outcome(listing, milliseconds(error.latest)) != "time"


@given(listing=listings)
def test_bounds_of_a_history_without_gaps_give_its_ends(
    listing: list[GenerationFile],
) -> None:
    """Where time goes by with the files, the bounds are the first and the last state."""
    history = [f for f in listing if f.generation == "a" * 16]
    history.sort(key=lambda f: (f.index, -1 if f.offset is None else f.offset))
    aged = [
        GenerationFile(f.generation, f.index, f.offset, 1, 10 * n, 10 * n)
        for n, f in enumerate(history, 1)
    ]
    try:
        latest = plan_generation(aged)
    except NotRestorableError:
        return
    _, last = bounds(aged)
    assert plan_generation(aged, before=milliseconds(last)) == latest


@given(listing=listings, data=st.data())
def test_gap_names_a_time_before_it(
    listing: list[GenerationFile], data: st.DataObject
) -> None:
    """What is restored for that time does not need the file behind the gap."""
    try:
        plan = plan_generation(listing)
    except NotRestorableError:
        return
    if not plan.segments:
        return
    at = data.draw(st.integers(0, len(plan.segments) - 1))
    found = plan.segments[at]
    error = gap_at(plan.snapshot, plan.segments[:at], found)
    if error.latest is not None:
        assert milliseconds(error.latest) <= found.committed_by


@given(listing=listings, before=times)
def test_snapshot_that_cannot_be_used_is_left_out(
    listing: list[GenerationFile], before: int | None
) -> None:
    """Then the plan is that of a listing without it, apart from its error."""
    try:
        plan = plan_generation(listing, before=before)
    except NotRestorableError:
        return
    rest = [file for file in listing if file != plan.snapshot]
    try:
        other = plan_generation(listing, before=before, without={plan.snapshot})
    except NotRestorableError:
        assert isinstance(outcome(rest, before), str)
    else:
        assert (other.snapshot, list(other.segments)) == outcome(rest, before)
