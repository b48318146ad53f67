"""``verify`` against replicas of which it is known what was done to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recording import Recording
from support.replicas import arrange, flipped, memory_store, record
from support.troubled import overwrite

from sqlitereplica import VerifyReport, restore, verify
from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore import findings
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.property

LAST = 9
Key = tuple[int, int, int]


@st.composite
def keys(draw: st.DrawFn) -> Key:
    """(level, first, last) of any file."""
    level = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 9]))
    first = 1 if level == 9 else draw(st.integers(1, LAST))
    last = draw(st.integers(first, first if level == 0 else LAST))
    return level, first, last


ordinary = st.just([(0, txid, txid) for txid in range(1, LAST + 1)])
arrangements = st.builds(
    lambda some, others: sorted({*some, *others}),
    ordinary | st.just([]),
    st.lists(keys(), max_size=9),
).filter(bool)
damages = st.sampled_from(["flip", "cut", "empty", "gone", "gone", "longer"])


@pytest.fixture(scope="module", params=[True, False], ids=["signed", "unsigned"])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Recording:
    """A database's history, with and without our checksum extension."""
    folder = tmp_path_factory.mktemp("recorded")
    return record(folder, "source", signed=request.param)


def reached(files: Collection[Key]) -> set[int]:
    """The states that files make, by trying all of them until nothing is new."""
    found = {0}
    while True:
        new = {
            last
            for level, first, last in files
            if (level < 9 or first == 1)
            and any(first - 1 <= state < last for state in found)
        }
        if new <= found:
            return found - {0}
        found |= new


def hurt(store: LTXStore, file: FileInfo, damage: str, at: int) -> None:
    """Do something to a file that is not to go unnoticed."""
    data = store.get(file)
    at %= len(data)
    match damage:
        case "flip":
            overwrite(store, file, flipped(data, at, at % 8))
        case "cut":
            overwrite(store, file, data[:at])
        case "longer":
            overwrite(store, file, data + b"\0" * (at % 9 + 1))
        case "empty":
            overwrite(store, file, b"")
        case "gone":
            store.delete([file])


def key(file: FileInfo) -> Key:
    """What names a file."""
    return file.level, file.min_txid, file.max_txid


def states_in(report: VerifyReport, states: Collection[int]) -> set[int]:
    """Those of some states that the report says can be restored."""
    return {
        txid
        for txid in states
        if any(span.min_txid <= txid <= span.max_txid for span in report.ranges)
    }


@given(st.data())
def test_report_is_what_was_done_to_the_replica(
    recorded: Recording, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """T27, T29: each damaged file is named, no other; states, gaps and needs are right."""
    store = memory_store()
    files = arrange(recorded, store, data.draw(arrangements))
    assert verify(store).bad_files == ()
    marks = data.draw(st.lists(st.sampled_from(files), max_size=3, unique=True))
    bad = set()
    for file in marks:
        damage = data.draw(damages)
        hurt(store, file, damage, data.draw(st.integers(0, 5000)))
        if damage != "gone":
            bad.add(key(file))
    report = verify(store)
    left = {key(file) for file in store.list_all()}
    assert {(f.level, f.min_txid, f.max_txid) for f in report.bad_files} == bad
    sound = left - bad
    states, promised = reached(sound), reached(left)
    assert sum(span.states for span in report.ranges) == len(states)
    assert states_in(report, states) == states
    assert report.latest_txid == max(states, default=None)
    for finding in report.bad_files:
        assert finding.needed == (finding.max_txid in promised - states)
    check_gaps(report, sound, states)
    check_latest(report, store, recorded, tmp_path_factory.getbasetemp() / "latest.db")


def check_gaps(report: VerifyReport, sound: Collection[Key], states: set[int]) -> None:
    """Gaps hold no state; what is lost is in no sound increment, all else is in one."""
    inside, lost = (
        {txid for low, high in spans for txid in range(low, high + 1)}
        for spans in (report.gaps, report.lost)
    )
    held = {
        txid
        for level, first, last in sound
        if level < 9
        for txid in range(first, last + 1)
    }
    assert not inside & states
    assert lost == inside - held


def check_latest(
    report: VerifyReport, store: LTXStore, recorded: Recording, path: Path
) -> None:
    """The verdict on the newest state is that of a real restore."""
    try:
        result = restore(store, path, verify=None)
    except SQLiteReplicaError:
        assert not report.latest_ok
        return
    assert report.latest_ok
    assert result.txid is not None
    assert path.read_bytes() == recorded.images[result.txid]
    path.unlink()


@given(st.data())
def test_healing_what_was_found_heals_the_replica(
    recorded: Recording, data: st.DataObject
) -> None:
    """The findings are enough to act on: with these files in place all is well."""
    store = memory_store()
    files = arrange(recorded, store, data.draw(arrangements))
    whole = {key(file): store.get(file) for file in files}
    for file in data.draw(st.lists(st.sampled_from(files), max_size=4, unique=True)):
        hurt(store, file, data.draw(damages), data.draw(st.integers(0, 5000)))
    if not store.list_all():
        return
    for finding in findings(verify(store)):
        if finding.file is not None:
            overwrite(store, finding.file, whole[key(finding.file)])
        else:
            recorded.publish(8, finding.min_txid, finding.max_txid)
    report = verify(store)
    assert report.ok, report


@given(st.data())
def test_file_of_another_database_is_noticed(
    recorded: Recording, other: Recording, data: st.DataObject
) -> None:
    """A valid file of the same transactions, but of another database, cannot hide.

    Without recorded checksums it has to replace a file that others can be held against.
    """
    store = memory_store()
    levels = [(0, txid, txid) for txid in range(1, LAST + 1)]
    files = arrange(recorded, store, [*levels, (1, 1, 4), (1, 5, 9), (9, 1, 6)])
    is_signed = verify(store).files_signed > 0
    chosen = [f for f in files if is_signed or f.level > 0]
    file = data.draw(st.sampled_from(chosen))
    overwrite(store, file, other.files[file.min_txid, file.max_txid])
    report = verify(store)
    kinds = {finding.kind for finding in report.bad_files}
    assert kinds and kinds <= {"foreign", "conflict", "content", "incomplete"}


@pytest.fixture(scope="module")
def other(recorded: Recording, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Another database with as many transactions, all of whose files are made."""
    made = record(tmp_path_factory.mktemp("other"), "other", signed=True)
    for first, last in [(1, 4), (5, 9), (1, 6)]:
        made.publish(8, first, last)
    return made


@given(st.permutations(range(1, LAST + 1)), st.integers(0, LAST - 1))
def test_order_and_repetition_in_a_listing_change_nothing(
    recorded: Recording, order: Sequence[int], count: int
) -> None:
    """T28: files may be listed in any order and twice."""
    store = memory_store()
    arrange(recorded, store, [(0, txid, txid) for txid in range(1, LAST + 1)])
    real = store.list_all()
    listed = [real[txid - 1] for txid in order]
    lying = memory_store()
    lying._fs.store = store._fs.store  # the same files
    lying.list_all = lambda **_: [*listed, *listed[:count]]  # type: ignore[method-assign]
    report = verify(lying)
    assert report.ok and report.latest_txid == LAST
    assert [note.kind for note in report.notes] == ["duplicate"] * (count > 0)
