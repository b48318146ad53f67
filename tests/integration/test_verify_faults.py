"""``verify`` on replicas that are hurt, that live on, and on stores that lie or fail."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recording import Recording
from support.replicas import (
    ROOT,
    arrange,
    flipped,
    memory_files,
    memory_store,
    record,
)
from support.troubled import TroubledStore, overwrite

from sqlitereplica import StoreError, VerifyReport, verify
from sqlitereplica import ltx as ltx_format
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore import findings, survey
from sqlitereplica.store import LTXStore, RetryPolicy
from sqlitereplica.store.pins import put_pin
from sqlitereplica.testing import Fault, FaultyFileSystem, Operation, only

LEVEL_0 = [(0, n, n) for n in range(1, 10)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Nine transactions."""
    return record(tmp_path_factory.mktemp("recorded"), "source")


@pytest.fixture
def store(recorded: Recording) -> TroubledStore:
    """Nine files of level 0 and one that merges some of them."""
    made = memory_store()
    arrange(recorded, made, [*LEVEL_0, (1, 5, 7)])
    return made


def level_0(store: LTXStore, txid: int) -> FileInfo:
    """A file of level 0."""
    [file] = [f for f in store.list_level(0) if f.max_txid == txid]
    return file


def bad(report: VerifyReport) -> list[tuple[int | None, int, int, str]]:
    """(level, first, last, kind) of the bad files."""
    return [(f.level, f.min_txid, f.max_txid, f.kind) for f in report.bad_files]


# -- damage ------------------------------------------------------------------------------


def test_each_flipped_byte_of_a_file_is_found(recorded: Recording) -> None:
    """Unless it is one in LZ4 that says the very same page in another way."""
    store = memory_store()
    files = arrange(recorded, store, LEVEL_0[:4])
    smallest = min(files, key=lambda f: f.size)
    data = store.get(smallest)
    other_ways = 0
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        overwrite(store, smallest, changed)
        found = [finding.name for finding in verify(store).bad_files]
        if not found and ltx_format.decode(changed) == ltx_format.decode(data):
            other_ways += 1
        else:
            assert found == [smallest.name], at
    assert other_ways < len(data) // 20
    overwrite(store, smallest, data)
    assert verify(store).ok


def test_each_truncation_of_a_file_is_found(recorded: Recording) -> None:
    """From nothing at all to one byte less; nothing shorter is even read."""
    store = memory_store()
    files = arrange(recorded, store, LEVEL_0[:4])
    smallest = min(files, key=lambda f: f.size)
    data = store.get(smallest)
    for size in range(len(data)):
        overwrite(store, smallest, data[:size])
        assert len(verify(store).bad_files) == 1, size
        if size < 131:
            kind = "truncated" if size else "empty"
            assert verify(store, "listing").bad_files[0].kind == kind


def test_listing_shows_what_it_can(store: TroubledStore, recorded: Recording) -> None:
    """Objects without bytes, and snapshots that are none, cost no request more."""
    overwrite(store, level_0(store, 6), b"")
    recorded.store = store
    recorded.publish(9, 2, 5)
    report = verify(store, "listing")
    assert bad(report) == [(0, 6, 6, "empty"), (9, 2, 5, "no-image")]
    assert [f.needed for f in report.bad_files] == [True, False]
    assert report.latest_ok and report.gaps == ()


@pytest.mark.parametrize("txid", range(1, 10))
def test_lost_object_is_found(recorded: Recording, txid: int) -> None:
    """T27: its transactions are named, unless it was the last, which nobody can tell."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0)
    store.delete([level_0(store, txid)])
    for level in ("listing", "checksums"):
        report = verify(store, level)  # type: ignore[arg-type]
        assert report.ok == (txid == 9)
        assert not verify(store, level, at_least=9).ok  # type: ignore[arg-type]
        if txid < 9:
            [lost] = findings(report)
            assert (lost.kind, lost.min_txid, lost.max_txid) == ("lost", txid, txid)


# -- a replica that lives on -------------------------------------------------------------


def when(
    store: TroubledStore, txid: int, action: Callable[[], object], level: int = 0
) -> None:
    """Do something once, just before a file of level 0 is read."""

    def before(file: FileInfo, start: int) -> None:
        if (file.level, file.max_txid) == (level, txid):
            store.before_get = None
            action()

    store.before_get = before


def take_away(store: LTXStore, txids: range) -> None:
    """Delete files of level 0."""
    store.delete([f for f in store.list_level(0) if f.max_txid in txids])


def test_files_compacted_away_meanwhile_are_no_loss(recorded: Recording) -> None:
    """What replaces them is read instead, and held against what was read before."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0)

    def compact() -> None:
        recorded.store = store
        recorded.publish(1, 2, 8)
        take_away(store, range(2, 9))

    when(store, 4, compact)
    report = verify(store, parallel=1)
    assert report.ok and report.latest_txid == 9, report
    [span] = report.ranges
    assert (span.states, report.files) == (3, 3)


def test_files_behind_those_that_moved_are_held_against_states(
    recorded: Recording,
) -> None:
    """The walk goes on through what replaced them, and misses nothing behind."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0)
    header, pages = ltx_format.decode(recorded.files[9, 9])
    wrong = [(pgno, page[::-1]) for pgno, page in pages]
    overwrite(store, level_0(store, 9), ltx_format.encode(header, wrong))

    def compact() -> None:
        recorded.store = store
        recorded.publish(1, 2, 8)
        take_away(store, range(2, 9))

    when(store, 4, compact)
    assert bad(verify(store, parallel=1)) == [(0, 9, 9, "content")]


def test_everything_replaced_by_a_snapshot_meanwhile_is_no_loss(
    recorded: Recording,
) -> None:
    """Retention may take all that the first listing had."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0)

    def prune() -> None:
        recorded.store = store
        recorded.publish(9, 1, 9)
        take_away(store, range(1, 10))

    when(store, 5, prune)
    report = verify(store, parallel=1)
    assert report.ok
    assert [(s.min_txid, s.max_txid) for s in report.ranges] == [(9, 9)]


def test_replica_that_never_rests_is_verified_to_an_end(recorded: Recording) -> None:
    """New files are not run after for ever: those of the first listing are enough."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0[:5])
    added = iter(range(6, 10))

    def before(file: FileInfo, start: int) -> None:
        recorded.store = store
        for txid in added:
            recorded.publish(0, txid, txid)
            take_away(store, range(txid - 3, txid - 2))
            recorded.publish(1, 1, txid - 3)
            break

    store.before_get = before
    report = verify(store, parallel=1)
    assert report.ok and report.latest_txid in (5, 6), report


def test_pin_made_meanwhile_is_not_lost(recorded: Recording) -> None:
    """Its state is newer than what is verified; one of the first listing is looked for."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0[:5])

    def go_on() -> None:
        recorded.store = store
        recorded.publish(0, 6, 6)
        recorded.publish(0, 7, 7)
        put_pin(store, "new", 7)
        recorded.publish(1, 2, 4)
        take_away(store, range(2, 5))

    when(store, 2, go_on)
    report = verify(store, parallel=1)
    assert report.ok and report.latest_txid == 5, report
    take_away(store, range(6, 8))
    assert [pin.name for pin in verify(store).lost_pins] == ["new"]


def test_wrong_compaction_meanwhile_is_noticed(recorded: Recording) -> None:
    """A file that is new is held against the states that were passed already."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0)
    content = ltx_format.decode(recorded.files[2, 2])[1]
    header = ltx_format.decode(recorded.files[3, 3])[0]

    def compact() -> None:
        lossy = ltx_format.Header(
            page_size=header.page_size,
            commit=header.commit,
            min_txid=2,
            max_txid=3,
            timestamp=header.timestamp,
            post_checksum=recorded.checksum(2),
        )
        data = ltx_format.encode(lossy, content)
        store.put(1, 2, 3, data, timestamp=header.timestamp)
        take_away(store, range(6, 7))

    when(store, 6, compact)
    report = verify(store, parallel=1)
    assert (1, 2, 3, "conflict") in bad(report)


def test_file_that_is_listed_and_not_there_is_a_loss(store: TroubledStore) -> None:
    """A listing that lies for ever is not believed; the rest is judged without it."""
    gone = level_0(store, 8)

    def deny(file: FileInfo, start: int) -> None:
        if file == gone:
            raise StoreError("gone", operation="get", transient=False, kind="missing")

    store.before_get = deny
    report = verify(store)
    assert bad(report) == [(0, 8, 8, "missing")]
    assert report.bad_files[0].needed and not report.latest_ok
    assert "the listing has it, but it is not there" in str(report)


def test_gap_that_a_new_listing_does_not_have_is_no_gap(recorded: Recording) -> None:
    """Compaction and retention may run between the folders of one listing."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0)
    real, asked = store.list_all, []

    def once(*, accurate: bool = False) -> list[FileInfo]:
        asked.append(1)
        found = real(accurate=accurate)
        return [f for f in found if f.max_txid != 4] if len(asked) == 1 else found

    store.list_all = once  # type: ignore[method-assign]
    assert verify(store, "listing").ok
    assert len(asked) == 2
    asked.clear()
    report = verify(store)
    assert report.ok and report.files_read == 9


# -- stores that lie ---------------------------------------------------------------------


def faulty(recorded: Recording, files: list[tuple[int, int, int]]) -> FaultyFileSystem:
    """A filesystem with a replica on which things can go wrong."""
    fs = FaultyFileSystem(memory_files())
    arrange(recorded, LTXStore.open(fs, path=ROOT), files)
    return fs


def on(fs: FaultyFileSystem) -> LTXStore:
    """The replica on it, that gives up at once."""
    retry = RetryPolicy(attempts=1)
    return LTXStore.open(fs, path=ROOT, retry=retry, sleep=lambda seconds: None)


@pytest.mark.parametrize("fault", [Fault.DUPLICATED, Fault.REVERSED, Fault.FOREIGN])
@pytest.mark.parametrize("level", ["listing", "checksums"])
def test_odd_listing_is_no_problem(
    recorded: Recording, fault: Fault, level: str
) -> None:
    """T28: order, repetition and names that nobody wrote do not matter."""
    fs = faulty(recorded, [*LEVEL_0, (1, 1, 4), (9, 1, 6)])
    fs.plan = only("list", fault)
    report = verify(on(fs), level, at_least=9)  # type: ignore[arg-type]
    assert report.ok and report.files == 11, report


def test_listing_that_leaves_the_newest_out_is_found_by_who_knows(
    recorded: Recording,
) -> None:
    """T28: the replica looks older; one that lies once is asked again."""
    fs = faulty(recorded, LEVEL_0)
    fs.plan = only("list", Fault.OMITTED)
    assert verify(on(fs)).latest_txid == 8
    report = verify(on(fs), at_least=9)
    assert not report.ok and not report.latest_ok
    # Of its two requests the second lists the folder of level 0.
    fs.plan = only("list", Fault.OMITTED, times=2)
    assert verify(on(fs), at_least=9).ok


@pytest.mark.parametrize("fault", [Fault.FLIPPED, Fault.SHORT, Fault.EMPTY])
def test_read_that_goes_wrong_once_is_no_damage(
    recorded: Recording, fault: Fault
) -> None:
    """What looks wrong is read again; that it was wrong once is noted."""
    fs = faulty(recorded, LEVEL_0)
    fs.plan = only("read", fault, times=1)
    report = verify(on(fs), parallel=1)
    assert report.ok and report.files_read == 9
    noted = {note.kind for note in report.notes}
    assert noted == ({"unstable"} if fault is Fault.FLIPPED else set())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Fault.FLIPPED, ""), (Fault.SHORT, "short"), (Fault.OTHER, "")],
)
def test_reads_that_always_go_wrong_are_damage(
    recorded: Recording, fault: Fault, kind: str
) -> None:
    """A file that cannot be read rightly cannot be restored."""
    fs = faulty(recorded, LEVEL_0)

    def plan(operation: Operation) -> Fault | None:
        wrong = operation.kind == "read" and operation.path.endswith("5.ltx")
        return fault if wrong else None

    fs.plan = plan
    [(level, first, last, found)] = bad(verify(on(fs)))
    assert (level, first, last) == (0, 5, 5)
    assert found == kind or not kind


# -- stores that fail --------------------------------------------------------------------


def test_store_that_does_not_answer_is_an_error(store: TroubledStore) -> None:
    """Nothing is known about the replica then."""
    store.down = True
    for level in ("listing", "checksums", "restore"):
        with pytest.raises(StoreError, match="is down"):
            verify(store, level)  # type: ignore[arg-type]


def test_store_that_goes_away_meanwhile_is_an_error(
    store: TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that cannot be read because nothing can are not called damaged."""

    def fail(*_: object, **__: object) -> list[FileInfo]:
        raise StoreError("no answer", operation="list")

    def go() -> None:
        store.down = True
        monkeypatch.setattr(store, "list_level", fail)

    when(store, 6, go)
    with pytest.raises(StoreError, match="no answer"):
        verify(store, parallel=1)


def test_store_of_which_nothing_can_be_read_is_an_error(
    store: TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists, but reads fail one after the other: that is not about files."""
    monkeypatch.setattr(survey, "_MOST_UNREADABLE", 4)

    def fail(file: FileInfo, start: int) -> None:
        raise StoreError("denied", operation="get", transient=False)

    store.before_get = fail
    with pytest.raises(StoreError, match="denied"):
        verify(store)


def test_single_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    """A bad sector, an archived object: all others are verified."""
    made = record(tmp_path, "source")
    store = memory_store()
    arrange(made, store, LEVEL_0)
    hurt = level_0(store, 7)

    def fail(file: FileInfo, start: int) -> None:
        if file == hurt:
            error = OSError(errno.EIO, "Input/output error")
            raise StoreError(f"get: {error}", operation="get") from error

    store.before_get = fail
    report = verify(store)
    assert bad(report) == [(0, 7, 7, "unreadable")]
    assert "Input/output error" in str(report)
    assert report.files_read == 8


def test_reading_again_what_has_gone_lists_anew(
    recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the walk needs a second time may be gone by then: so be it."""
    from sqlitereplica.restore import walk

    monkeypatch.setattr(walk, "_KEPT_BYTES", 0)
    store = memory_store()
    # The chain of level 0 ends within 2..7, which is needed again to go on.
    files = [f for f in LEVEL_0 if f[1] not in (5, 6, 7)]
    arrange(recorded, store, [*files, (1, 2, 7), (9, 1, 4)])
    [merged] = store.list_level(1)

    def compact() -> None:
        recorded.store = store
        recorded.publish(2, 2, 8)
        store.delete([merged])

    # It has been fetched by then; files are fetched ahead, so 8 would be too late at times.
    when(store, 4, compact)
    report = verify(store, parallel=1)
    assert report.ok and report.latest_txid == 9, report


def test_reading_again_what_is_damaged_by_then_is_reported(
    recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sound when it was checked, and is not when it is needed."""
    from sqlitereplica.restore import walk

    monkeypatch.setattr(walk, "_KEPT_BYTES", 0)
    store = memory_store()
    files = [f for f in LEVEL_0 if f[1] not in (5, 6, 7)]
    arrange(recorded, store, [*files, (1, 2, 7)])
    [merged] = store.list_level(1)
    data = store.get(merged)
    # It has been fetched by then; files are fetched ahead, so 8 would be too late at times.
    when(store, 4, lambda: overwrite(store, merged, flipped(data, len(data) - 1)))
    report = verify(store, parallel=1)
    assert [finding.name for finding in report.bad_files] == [merged.name]
    assert report.bad_files[0].needed and not report.latest_ok


def test_file_of_many_pages_that_are_not_there_is_refused(recorded: Recording) -> None:
    """A hostile header does not make us allocate what it says."""
    store = memory_store()
    arrange(recorded, store, LEVEL_0[:3])
    header = ltx_format.Header(
        page_size=512,
        commit=ltx_format.MAX_COMMIT,
        min_txid=4,
        max_txid=4,
        timestamp=1_700_000_004_000,
    )
    data = ltx_format.encode(header, [(1, bytes(512))])
    store.put(0, 4, 4, data, timestamp=header.timestamp)
    assert bad(verify(store)) == [(0, 4, 4, "commit")]
    assert io.BytesIO(data).read(4) == b"LTX1"
