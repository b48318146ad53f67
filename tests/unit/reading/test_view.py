"""A view of a replica: which state it has, what it fetches, what it does when files go."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest
from support.ltxfiles import make_header
from support.reading import Clock, open_view, pages_of
from support.recording import Recording
from support.replicas import arrange, flipped, memory_store, record
from support.troubled import TroubledStore, overwrite

from sqlitereplica.errors import (
    ChecksumMismatchError,
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    StoreError,
)
from sqlitereplica.ltx import FileInfo, PageIndex, encode
from sqlitereplica.reading import parts
from sqlitereplica.reading.cache import PageCache
from sqlitereplica.reading.pagemap import Part


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Nine transactions that grow, change, shrink and grow again."""
    return record(tmp_path_factory.mktemp("recorded"), "source")


@pytest.fixture(autouse=True)
def ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read even these small files by range, unless a test says otherwise."""
    monkeypatch.setattr(parts, "SMALL_FILE", 0)


@pytest.fixture
def store() -> TroubledStore:
    """An empty replica in memory."""
    return memory_store()


ALL = [(0, n, n) for n in range(1, 10)]


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "ranges"])
def test_every_state_has_its_pages(
    recorded: Recording,
    store: TroubledStore,
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,
) -> None:
    """Each page of each state is that of the database then, however it is fetched."""
    monkeypatch.setattr(parts, "SMALL_FILE", 1 << 20 if whole else 0)
    arrange(recorded, store, ALL)
    for txid in range(1, 10):
        with closing(open_view(store, txid)) as view:
            assert pages_of(view) == recorded.images[txid]


def test_pages_are_right_in_any_order_and_with_any_cache(
    recorded: Recording, store: TroubledStore
) -> None:
    """Backwards, with room for one page, each is fetched anew and right."""
    arrange(recorded, store, [(9, 1, 4), *ALL])
    with closing(open_view(store, cache_size=512)) as view:
        pgnos = list(range(1, view.map.commit + 1))
        got = [view.read(pgno) for pgno in reversed(pgnos)]
        assert b"".join(reversed(got)) == recorded.images[9]


def test_transaction_keeps_its_state_and_the_next_has_the_newest(
    recorded: Recording, store: TroubledStore
) -> None:
    """What is published meanwhile shows when the next transaction begins."""
    arrange(recorded, store, ALL[:3])
    with closing(open_view(store)) as view:
        view.begin()
        arrange(recorded, store, ALL[3:])
        view.look()
        assert pages_of(view) == recorded.images[3]
        view.end()
        view.begin()
        assert pages_of(view) == recorded.images[9]
        assert view.moves == 1


def test_replica_is_looked_at_when_it_is_time(
    recorded: Recording, store: TroubledStore
) -> None:
    """Within the interval no request is made; a fixed state never makes one."""
    arrange(recorded, store, ALL[:3])
    clock = Clock()
    with (
        closing(open_view(store, refresh=5.0, clock=clock)) as view,
        closing(open_view(store, 3, clock=clock)) as fixed,
    ):
        arrange(recorded, store, ALL[3:])
        before = dict(store.requests)
        clock.now += 4.9
        view.begin()
        view.end()
        fixed.begin()
        assert (view.map.txid, dict(store.requests)) == (3, before)
        clock.now += 0.2
        view.begin()
        assert (view.map.txid, fixed.map.txid) == (9, 3)


@pytest.mark.parametrize(
    "later",
    [
        [(0, 7, 7), (0, 8, 8), (0, 9, 9), (1, 4, 6)],
        [(1, 2, 6), (2, 5, 9), (0, 9, 9)],
        [(9, 1, 8), (0, 9, 9)],
        [(9, 1, 9), (0, 9, 9)],
    ],
    ids=["level 1", "straddling", "snapshot", "snapshot alone"],
)
def test_reader_goes_on_where_history_became_coarser(
    recorded: Recording, store: TroubledStore, later: list[tuple[int, int, int]]
) -> None:
    """Files of other levels, also across the reader's own position, or a snapshot."""
    old = arrange(recorded, store, ALL[:3])
    with closing(open_view(store)) as view:
        assert pages_of(view) == recorded.images[3]
        store.delete(old)
        arrange(recorded, store, later)
        view.begin()
        assert pages_of(view) == recorded.images[9]


def test_gap_is_waited_for_and_told(
    recorded: Recording, store: TroubledStore, caplog: pytest.LogCaptureFixture
) -> None:
    """With files missing the reader stays, says so, and goes on when they come."""
    clock = Clock()
    arrange(recorded, store, ALL[:3])
    with closing(open_view(store, clock=clock)) as view:
        arrange(recorded, store, ALL[5:])
        clock.now += 10
        view.begin()
        assert pages_of(view) == recorded.images[3]
        assert view.lag == 10
        assert "reading stays at transaction 3" in caplog.text
        view.end()
        arrange(recorded, store, ALL[3:5])
        view.begin()
        assert (view.map.txid, view.lag) == (9, 0)


def test_store_that_is_away_leaves_the_state(
    recorded: Recording, store: TroubledStore
) -> None:
    """A look that fails is no error; what is cached is read; the rest says why."""
    arrange(recorded, store, ALL)
    with closing(open_view(store, cache_size=2000)) as view:
        first = view.read(1)
        store.down = True
        view.begin()
        assert view.read(1) == first
        with pytest.raises(StoreError):
            pages_of(view)


def test_files_that_are_gone_are_replaced_by_others(
    recorded: Recording, store: TroubledStore
) -> None:
    """In the middle of a transaction the same state is read from other levels."""
    files = arrange(recorded, store, ALL)
    with closing(open_view(store, cache_size=512)) as view:
        view.begin()
        view.read(1)
        arrange(recorded, store, [(9, 1, 5), (1, 6, 9)])
        store.delete(files)
        assert pages_of(view) == recorded.images[9]


def test_state_that_is_gone_is_an_error_and_the_next_one_is_not(
    recorded: Recording, store: TroubledStore
) -> None:
    """If no files make the state any more the reader is told; then it goes on."""
    files = arrange(recorded, store, ALL[:5])
    with closing(open_view(store, cache_size=512)) as view:
        view.begin()
        view.read(1)
        arrange(recorded, store, [(9, 1, 8), (0, 9, 9)])
        store.delete(files)
        with pytest.raises(NotRestorableError) as caught:
            pages_of(view)
        assert caught.value.kind == "txid"
        assert caught.value.after is not None
        assert caught.value.after.txid == 8
        assert isinstance(caught.value.__cause__, StoreError)
        view.end()
        view.begin()
        assert pages_of(view) == recorded.images[9]


def test_files_may_go_while_a_view_is_opened(
    recorded: Recording, store: TroubledStore
) -> None:
    """Between the listing and the first look into the files all of them change."""
    files = arrange(recorded, store, ALL)

    def compact(info: FileInfo, start: int) -> None:
        store.before_get = None
        arrange(recorded, store, [(9, 1, 9)])
        store.delete(files)

    store.before_get = compact
    with closing(open_view(store)) as view:
        assert pages_of(view) == recorded.images[9]


def damage(store: TroubledStore, recorded: Recording, txid: int) -> None:
    """Change one bit in the middle of the frames of a file."""
    (info,) = [file for file in store.list_level(0) if file.max_txid == txid]
    overwrite(store, info, flipped(recorded.file(txid, txid), info.size // 2))


def test_damaged_small_file_is_avoided(
    recorded: Recording, store: TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another level has what it holds, the state is read from there."""
    monkeypatch.setattr(parts, "SMALL_FILE", 1 << 20)
    arrange(recorded, store, [*ALL, (1, 2, 5)])
    damage(store, recorded, 1)
    with pytest.raises(InvalidFileError):
        open_view(store)
    arrange(recorded, store, [(1, 1, 3)])
    with closing(open_view(store)) as view:
        assert pages_of(view) == recorded.images[9]


def test_damaged_newest_file_is_an_error(
    recorded: Recording, store: TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older state does not pass for the newest one."""
    monkeypatch.setattr(parts, "SMALL_FILE", 1 << 20)
    arrange(recorded, store, ALL)
    damage(store, recorded, 9)
    with pytest.raises(InvalidFileError):
        open_view(store)


def with_other_page(recorded: Recording, txid: int, pgno: int) -> bytes:
    """The file of a full image in which one page is another one, of perfect form."""
    from sqlitereplica import ltx

    header, pages = ltx.decode(recorded.file(1, txid))
    changed = [(p, bytes(512) if p == pgno else page) for p, page in pages]
    return ltx.encode(header, changed)


def test_page_checksums_prove_the_pages_of_an_image(
    recorded: Recording, store: TroubledStore
) -> None:
    """With them a wrong page of an image is noticed, and read from elsewhere."""
    arrange(recorded, store, [(9, 1, 9)])
    recorded.publish_sums(9)
    (info,) = store.list_level(9)
    data = with_other_page(recorded, 9, 3)
    store.delete([info])
    store.put(9, 1, 9, data, timestamp=info.timestamp)
    with closing(open_view(store, cache_size=512)) as view:
        with pytest.raises(ChecksumMismatchError):
            view.read(3)
    arrange(recorded, store, [(8, 1, 9)])
    with closing(open_view(store, 9)) as view:
        assert pages_of(view) == recorded.images[9]


def test_index_that_lies_about_a_page_is_noticed(
    recorded: Recording, store: TroubledStore
) -> None:
    """A frame with the number of another page is refused."""
    arrange(recorded, store, [(9, 1, 9)])
    (info,) = store.list_level(9)
    data = bytearray(store.get(info))
    offset, _ = PageIndex.parse(bytes(data), len(data))[2]
    data[offset : offset + 4] = (3).to_bytes(4, "big")
    overwrite(store, info, bytes(data))
    with closing(open_view(store)) as view:
        with pytest.raises(InvalidFileError) as caught:
            view.read(2)
    assert caught.value.kind == "pgno"


def test_time_is_changed_only_between_transactions(
    recorded: Recording, store: TroubledStore
) -> None:
    """One transaction is one state."""
    from sqlitereplica.restore.assemble import Wanted

    arrange(recorded, store, ALL)
    with closing(open_view(store)) as view:
        view.begin()
        with pytest.raises(ValueError, match="within a transaction"):
            view.travel(Wanted(txid=2))
        view.end()
        view.travel(Wanted(txid=2))
        view.begin()
        assert pages_of(view) == recorded.images[2]
        view.end()
        view.travel(Wanted())
        assert pages_of(view) == recorded.images[9]


def test_other_history_is_planned_anew(
    recorded: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """A replica that was made anew under the same names leaves no page of the old one."""
    arrange(recorded, store, ALL[:3])
    other = record(tmp_path, "other")
    with closing(open_view(store)) as view:
        view.begin()
        assert pages_of(view) == recorded.images[3]
        view.end()
        store.delete(store.list_all())
        arrange(other, store, ALL)
        view.begin()
        assert pages_of(view) == other.images[9]


def test_store_that_takes_long_to_fail_does_not_hold_up_every_transaction(
    recorded: Recording, store: TroubledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the cache is read meanwhile; the age of the state is told."""
    arrange(recorded, store, ALL[:3])
    clock = Clock()

    def fail(level: int, **options: object) -> list[FileInfo]:
        clock.now += 5
        raise StoreError("no answer", operation="list")

    with closing(open_view(store, refresh=1, clock=clock)) as view:
        first = view.read(1)
        arrange(recorded, store, ALL[3:])
        with monkeypatch.context() as patch:
            patch.setattr(store, "list_level", fail)
            begun = clock.now
            for _ in range(100):
                clock.now += 0.5
                view.begin()
                assert view.read(1) == first
                view.end()
            assert clock.now - begun <= 50 + 2 * 5
        assert view.map.txid == 3 and view.lag > 50
        clock.now += 50
        view.begin()
        assert view.map.txid == 9


def test_other_history_is_not_mixed_into_a_transaction(
    recorded: Recording, store: TroubledStore, tmp_path: Path
) -> None:
    """It ends with the same transaction, and its files are others."""
    arrange(recorded, store, ALL)
    other = record(tmp_path, "other")
    with closing(open_view(store, cache_size=512)) as view:
        view.begin()
        assert pages_of(view) == recorded.images[9]
        store.delete(store.list_all())
        arrange(other, store, [(1, 1, 9)])
        for pgno in (2, 3):
            with pytest.raises(NotRestorableError, match="went away"):
                view.read(pgno)
        view.end()
        view.begin()
        assert pages_of(view) == other.images[9]


@pytest.mark.parametrize("how", ["whole", "checksums"])
@pytest.mark.parametrize("seed", range(4))
def test_damage_anywhere_never_gives_wrong_pages(
    recorded: Recording,
    store: TroubledStore,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    seed: int,
) -> None:
    """One bit of one file is flipped: every page is right, or a typed error is raised."""
    rng = random.Random(f"{how}/{seed}")
    monkeypatch.setattr(parts, "SMALL_FILE", 1 << 20 if how == "whole" else 0)
    if how == "whole":
        files = arrange(recorded, store, [*ALL, (9, 1, 4), (1, 5, 7)])
    else:
        files = arrange(recorded, store, [(9, 1, 9)])
        recorded.publish_sums(9)
    refused = 0
    for _ in range(40):
        info = rng.choice(files)
        good = store.get(info)
        overwrite(
            store, info, flipped(good, rng.randrange(len(good)), rng.randrange(8))
        )
        for txid in range(4, 10) if how == "whole" else [9]:
            try:
                with closing(open_view(store, txid)) as view:
                    assert pages_of(view) == recorded.images[txid]
            except (InvalidFileError, NotRestorableError, PosMismatchError, StoreError):
                refused += 1
        overwrite(store, info, good)
    assert refused


def test_replica_of_litestream_03_is_refused_with_the_reason(
    store: TroubledStore,
) -> None:
    """It has no pages to fetch; a restore reads it."""
    name = f"generations/{'ab' * 8}/snapshots/00000000.snapshot.lz4"
    store._fs.pipe_file(f"{store._root}/{name}", b"x")
    with pytest.raises(NotRestorableError, match=r"Litestream 0\.3 wrote") as caught:
        open_view(store)
    assert caught.value.kind == "empty"


HEADER = make_header(min_txid=2, max_txid=2)
EMPTY = encode(HEADER, [])
PART = Part(
    FileInfo(0, 2, 2, len(EMPTY), 0),
    HEADER,
    PageIndex.parse(EMPTY, len(EMPTY)),
    lambda pgno: None,
)


def test_memory_is_bounded_by_the_size_that_was_asked_for() -> None:
    """The pages used last stay, and no more than there is room for."""
    cache = PageCache(10 * (512 + 200))
    for pgno in range(1, 30):
        cache.put((PART, pgno), bytes(512))
        assert cache.get((PART, 1)) is not None
    kept = [pgno for pgno in range(1, 30) if (PART, pgno) in cache]
    assert kept == [1, *range(21, 30)]
    cache.clear()
    assert cache.get((PART, 1)) is None
