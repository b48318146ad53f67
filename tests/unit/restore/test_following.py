"""A follower, step by step, on replicas that are arranged file by file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.recording import Recording
from support.replicas import arrange, flipped, memory_store, record
from support.troubled import TroubledStore, overwrite

from sqlitereplica import ltx
from sqlitereplica.errors import (
    DatabaseStateError,
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    StoreError,
    TargetExistsError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.following import Following
from sqlitereplica.restore.route import IN_STEP, Route, route, shortcut
from sqlitereplica.sqlite import SourceBusyError

Files = list[tuple[int, int, int]]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Nine transactions with our checksums."""
    return record(tmp_path_factory.mktemp("signed"), "signed")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Nine transactions as Litestream writes them."""
    return record(tmp_path_factory.mktemp("plain"), "plain", signed=False)


@pytest.fixture
def store() -> TroubledStore:
    """An empty replica."""
    return memory_store()


class Copy:
    """A file that follows, and what it must be."""

    def __init__(
        self,
        folder: Path,
        store: TroubledStore,
        *,
        overwrite: bool = False,
        batch: int = 4096,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.path, self.told = folder / "f.db", list[str]()
        self.following = Following(
            str(self.path),
            lambda: store,
            sqlite3.connect,
            copy="sqlite3",
            notes=folder / "held",
            overwrite=overwrite,
            report=self.told.append,
            batch=batch,
        )

    def follow(self) -> int:
        """Step until it has all; return the number of changes."""
        changes, more = 0, True
        while more:
            before = self.following.held
            more = self.following.step()
            changes += more or before not in (None, self.following.held)
        return changes

    def content(self) -> bytes:
        """The file behind its header, as any SQLite sees it."""
        with closing(sqlite3.connect(self.path)) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            return db.serialize()[100:]

    @property
    def txid(self) -> int:
        """What it holds."""
        assert self.following.held is not None
        return self.following.held.txid


@pytest.fixture
def copy(tmp_path: Path, store: TroubledStore) -> Iterator[Copy]:
    """A follower of the replica."""
    made = Copy(tmp_path / "copy", store)
    yield made
    made.following.close()


@pytest.mark.parametrize("kind", ["signed", "plain"])
def test_each_new_transaction_is_followed(
    kind: str, request: pytest.FixtureRequest, store: TroubledStore, copy: Copy
) -> None:
    """One listing of level 0 a look; nothing is fetched when there is nothing new."""
    recording: Recording = request.getfixturevalue(kind)
    for txid in range(1, recording.txid + 1):
        arrange(recording, store, [(0, txid, txid)])
        assert copy.follow() == 1
        assert copy.txid == txid
        assert copy.content() == recording.images[txid][100:]
        copy.follow()
        before = store.requests.copy()
        assert copy.follow() == 0
        assert store.requests - before == {"list": 1}
    assert copy.told == []


JOURNEYS: dict[str, list[Files]] = {
    "level 0 is gone, level 1 straddles": [[(9, 1, 2), (0, 3, 3)], [(1, 2, 6)]],
    "levels join": [[(0, 1, 1)], [(2, 1, 3), (1, 4, 6), (0, 7, 7), (0, 8, 8)]],
    "only a snapshot is left": [[(0, 1, 1), (0, 2, 2)], [(9, 1, 9)]],
    "snapshot and what follows it": [[(0, 1, 1)], [(9, 1, 7), (0, 8, 8), (0, 9, 9)]],
    "compacted from the first on": [[(0, 1, 1)], [(1, 1, 8), (0, 9, 9)]],
    "behind a shrink and a growth": [[(9, 1, 3)], [(1, 3, 9)]],
}


@pytest.mark.parametrize("kind", ["signed", "plain"])
@pytest.mark.parametrize("journey", JOURNEYS)
def test_gap_is_bridged(
    kind: str, journey: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """However old the file is, in the same process and after a restart."""
    recording: Recording = request.getfixturevalue(kind)
    first, later = JOURNEYS[journey]
    for restart in (False, True):
        store = memory_store()
        folder = tmp_path / str(restart)
        copy = Copy(folder, store)
        before = arrange(recording, store, first)
        copy.follow()
        if restart:
            copy.following.close()
            copy = Copy(folder, store)
        after = arrange(recording, store, later)
        store.delete(before)
        copy.follow()
        assert copy.txid == after[-1].max_txid
        assert copy.content() == recording.images[copy.txid][100:]
        copy.following.close()


def test_change_costs_one_listing_and_one_fetch(
    signed: Recording, store: TroubledStore, copy: Copy
) -> None:
    """A look that brings the file up to what was listed is not repeated to find nothing."""
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    for txid in (2, 3):
        arrange(signed, store, [(0, txid, txid)])
        before = store.requests.copy()
        assert not copy.following.step()
        assert copy.txid == txid
        assert store.requests - before == {"list": 1, "get": 1}


def test_what_readers_held_up_is_not_the_newest(
    signed: Recording, store: TroubledStore, copy: Copy
) -> None:
    """A change that had to wait is followed by a look: more may be there since."""
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    arrange(signed, store, [(0, 2, 2)])
    with closing(sqlite3.connect(copy.path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select * from sqlite_master").fetchall()
        with pytest.raises(SourceBusyError):
            copy.following.step()
    arrange(signed, store, [(0, 3, 3)])
    assert copy.following.step()
    assert copy.txid == 2
    assert not copy.following.step()
    assert copy.txid == 3


def test_batches_end_at_transactions(
    signed: Recording, store: TroubledStore, copy: Copy
) -> None:
    """A long way is gone in pieces, each of which is a state."""
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    arrange(signed, store, [(0, n, n) for n in range(2, 10)])
    states, more = [], True
    while more:
        more = copy.following.step()
        states.append(copy.txid)
        assert copy.content() == signed.images[copy.txid][100:]
    assert states[-1] == 9
    assert 1 < len(states) < 8


def test_gap_without_a_way_is_an_error_until_it_is_closed(
    signed: Recording, store: TroubledStore, copy: Copy
) -> None:
    """What can be reached is reached; beyond, every look says what is missing."""
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    arrange(signed, store, [(0, 2, 2), (0, 4, 4)])
    assert copy.following.step()
    assert copy.txid == 2
    for _ in range(2):
        with pytest.raises(NotRestorableError) as caught:
            copy.following.step()
        assert caught.value.kind == "gap"
    arrange(signed, store, [(0, 3, 3)])
    copy.follow()
    assert copy.txid == 4


def test_replica_that_is_gone_is_an_error(
    signed: Recording, store: TroubledStore, copy: Copy
) -> None:
    """Emptied, or out of reach: never taken for nothing new; it goes on afterwards."""
    files = arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    store.delete(files)
    with pytest.raises(NotRestorableError) as caught:
        copy.following.step()
    assert caught.value.kind == "empty"
    store.down = True
    with pytest.raises(StoreError):
        copy.following.step()
    store.down = False
    arrange(signed, store, [(0, 1, 1), (0, 2, 2)])
    copy.follow()
    assert copy.content() == signed.images[2][100:]


@pytest.mark.parametrize("held", [3, 5, 7])
@pytest.mark.parametrize("kind", ["signed", "plain"])
def test_replica_of_another_history_is_refused(
    kind: str, held: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With a lower, the same or a higher transaction; ``overwrite`` follows it anew."""
    recording: Recording = request.getfixturevalue(kind)
    other = record(tmp_path, "other", signed=kind == "signed")
    store = memory_store()
    before = arrange(recording, store, [(0, n, n) for n in range(1, held + 1)])
    copy = Copy(tmp_path / "copy", store)
    copy.follow()
    content = copy.content()
    store.delete(before)
    if kind == "plain":  # without checksums only its time tells
        _later(other, store, 5)
    else:
        arrange(other, store, [(0, n, n) for n in range(1, 6)])
    with pytest.raises(PosMismatchError):
        copy.follow()
    assert copy.content() == content
    copy.following.close()
    copy = Copy(tmp_path / "copy", store, overwrite=True)
    copy.follow()
    assert copy.content() == other.images[5][100:]
    assert len(copy.told) == 1
    copy.following.close()


def _later(recording: Recording, store: TroubledStore, last: int) -> None:
    """Publish transactions with times later than those of another history."""
    for txid in range(1, last + 1):
        header, pages = ltx.decode(recording.file(txid, txid))
        time = header.timestamp + 3_600_000
        changed = ltx.Header(
            page_size=header.page_size,
            commit=header.commit,
            min_txid=txid,
            max_txid=txid,
            timestamp=time,
        )
        store.put(0, txid, txid, ltx.encode(changed, pages), timestamp=time)


def test_files_that_do_not_lead_to_their_state_change_nothing(
    signed: Recording, store: TroubledStore, tmp_path: Path, copy: Copy
) -> None:
    """Whole and joined as they are: the checksum of the database tells, before a write."""
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    content = copy.content()
    header, pages = ltx.decode(signed.file(2, 2))
    forged = [(pgno, bytes(512) if pgno == 2 else page) for pgno, page in pages]
    store.put(0, 2, 2, ltx.encode(header, forged), timestamp=header.timestamp)
    for _ in range(2):
        with pytest.raises(PosMismatchError) as caught:
            copy.following.step()
        assert caught.value.kind == "diverged"
    assert copy.content() == content
    assert copy.txid == 1


def test_increments_of_another_history_over_ours_change_nothing(
    store: TroubledStore, tmp_path: Path, copy: Copy
) -> None:
    """One that straddles our state cannot be told by how it joins, but by what it makes."""
    ours, others = (_with_cold_rows(tmp_path / name) for name in ("a", "b"))
    first = arrange(ours, store, [(0, 1, 1), (0, 2, 2), (0, 3, 3)])
    copy.follow()
    store.delete(first)
    arrange(others, store, [(1, 3, 4)])
    with pytest.raises(PosMismatchError):
        copy.following.step()
    assert copy.content() == ours.images[3][100:]


def _with_cold_rows(path: Path) -> Recording:
    """Four transactions, of which the second writes most of the pages."""
    recording = Recording(path, memory_store(), page_size=512)
    recording.commit("create table t(v)", "create table cold(v)")
    recording.commit("insert into cold values(randomblob(5000))")
    recording.commit("insert into t values(1)")
    recording.commit("insert into t values(2)")
    recording.close()
    return recording


def test_damaged_file_is_gone_around_or_is_an_error(
    signed: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """What precedes it is applied; another level that has it leads on."""
    copy = Copy(tmp_path / "copy", store, batch=1 << 20)
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    files = arrange(signed, store, [(0, 2, 2), (0, 3, 3), (0, 4, 4)])
    broken = signed.file(3, 3)  # its last byte is of the checksum over all its pages
    overwrite(store, files[1], flipped(broken, len(broken) - 1))
    with pytest.raises(InvalidFileError):
        copy.follow()
    assert copy.txid == 2
    assert copy.content() == signed.images[2][100:]
    arrange(signed, store, [(1, 2, 4)])
    copy.follow()
    assert copy.txid == 4
    assert copy.content() == signed.images[4][100:]
    assert len(copy.told) == 1
    copy.following.close()


def test_file_compacted_away_while_it_is_read_is_found_elsewhere(
    signed: Recording, store: TroubledStore, copy: Copy
) -> None:
    """The listing is made anew, and the way goes through the other level."""
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    files = arrange(signed, store, [(0, 2, 2), (0, 3, 3)])

    def compact(info: FileInfo, start: int) -> None:
        if info.max_txid == 3 and info.level == 0:
            store.before_get = None
            arrange(signed, store, [(1, 2, 3)])
            store.delete(files)

    store.before_get = compact
    copy.follow()
    assert copy.content() == signed.images[3][100:]


def test_database_that_was_there_is_not_touched(
    signed: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """A stranger's file at the path is an error, not opened; ``overwrite`` takes it."""
    arrange(signed, store, [(0, 1, 1)])
    folder = tmp_path / "copy"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "f.db")) as db:
        db.execute("create table precious(x)")
    before = (folder / "f.db").read_bytes()
    copy = Copy(folder, store)
    with pytest.raises(TargetExistsError):
        copy.follow()
    assert (folder / "f.db").read_bytes() == before
    copy.following.close()
    copy = Copy(folder, store, overwrite=True)
    copy.follow()
    assert copy.content() == signed.images[1][100:]
    copy.following.close()


def test_what_somebody_wrote_to_the_file_is_kept(
    signed: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """Their write stops the follower, at once; ``overwrite`` brings the file back."""
    arrange(signed, store, [(0, 1, 1)])
    copy = Copy(tmp_path / "copy", store)
    copy.follow()
    with closing(sqlite3.connect(copy.path, isolation_level=None)) as db:
        db.execute("create table precious(x)")
    for _ in range(2):
        with pytest.raises(DatabaseStateError) as caught:
            copy.following.step()
        assert caught.value.kind == "written"
        copy.following.close()
        copy = Copy(tmp_path / "copy", store)
    copy = Copy(tmp_path / "copy", store, overwrite=True)
    copy.follow()
    assert copy.content() == signed.images[1][100:]
    copy.following.close()


def test_removed_file_is_made_again(
    signed: Recording, store: TroubledStore, copy: Copy
) -> None:
    """Whoever deletes the copy gets a new one."""
    arrange(signed, store, [(0, 1, 1)])
    copy.follow()
    copy.path.unlink()
    arrange(signed, store, [(0, 2, 2)])
    copy.follow()
    assert copy.content() == signed.images[2][100:]


def test_another_address_of_the_same_replica_goes_on(
    signed: Recording, tmp_path: Path
) -> None:
    """A bucket that moved is known by its content; one without the state is refused."""
    first, moved, foreign = memory_store(), memory_store(), memory_store()
    moved.name, foreign.name = "moved", "foreign"
    for store in (first, moved):
        arrange(signed, store, [(0, 1, 1), (0, 2, 2)])
    copy = Copy(tmp_path / "copy", first)
    copy.follow()
    copy.following.close()
    copy = Copy(tmp_path / "copy", moved)
    arrange(signed, moved, [(0, 3, 3)])
    copy.follow()
    assert copy.txid == 3
    copy.following.close()
    arrange(signed, foreign, [(0, 4, 4), (9, 1, 4)])
    copy = Copy(tmp_path / "copy", foreign)
    with pytest.raises(PosMismatchError):
        copy.follow()
    copy.following.close()


def test_routes_are_chosen_by_what_they_cost() -> None:
    """Increments where they lead on and are the lesser part; else the snapshot."""

    def file(level: int, first: int, last: int, size: int) -> FileInfo:
        return FileInfo(level, first, last, size, last)

    image = file(9, 1, 6, 100)
    small, large = file(1, 3, 6, 99), file(1, 3, 6, 101)
    assert shortcut([file(0, 6, 6, 1)], 6) == IN_STEP
    assert shortcut([file(0, 5, 5, 1), file(0, 6, 6, 1)], 3) is None
    assert shortcut([], 3) is None
    assert route([image, small], 2) == Route((small,))
    assert route([image, large], 2) == Route((image,), whole=True)
    assert route([image], 6) == IN_STEP
    last = file(0, 7, 7, 500)
    assert route([image, last], 6) == Route((last,))
    assert route([image, last], 5) == Route((image, last), whole=True)
