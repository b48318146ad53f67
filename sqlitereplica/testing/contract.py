"""What every place that holds a replica has to do, as tests to inherit from."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sqlitereplica.errors import AnotherWriterError, StoreError
from sqlitereplica.ltx import FileInfo, Header, encode
from sqlitereplica.store import LTXStore

__all__ = ["LTXStoreTests", "example_file"]

START = 1_700_000_000_123
"""The time (ms) in the example files; one second more for each TXID."""


def example_file(min_txid: int, max_txid: int | None = None, *, fill: int = 7) -> bytes:
    """A small, valid LTX file with one page of 512 bytes."""
    max_txid = max_txid or min_txid
    header = Header(
        page_size=512,
        commit=1,
        min_txid=min_txid,
        max_txid=max_txid,
        timestamp=START + 1000 * max_txid,
    )
    return encode(header, [(1, bytes([fill]) * 512)])


class LTXStoreTests:
    """The contract of ``LTXStore`` on one kind of filesystem.

    Inherit from it and give a fixture ``store``: a new, empty store for each test. Say in
    the attributes what the filesystem cannot do.
    """

    one_winner = True
    """Whether the filesystem itself refuses a name that is taken, whatever the timing."""
    lists_header_time = False
    """Whether listings have the time of the header without ``accurate``."""

    @pytest.fixture
    def store(self) -> LTXStore:
        """An empty store."""
        raise NotImplementedError("a subclass gives the store")

    def reopened(self, store: LTXStore, **settings: Any) -> LTXStore:
        """Another store on the same files, as another process has it."""
        return LTXStore(store._fs, store._root, **settings)

    def put(self, store: LTXStore, level: int, low: int, high: int = 0) -> FileInfo:
        """Put an example file."""
        high = high or low
        data = example_file(low, high)
        return store.put(level, low, high, data, timestamp=START + 1000 * high)

    def plant(self, store: LTXStore, like: FileInfo, name: str) -> None:
        """Put something strange beside a file, behind the store's back."""
        key = store._layout.key(store._root, like.level, like.min_txid, like.max_txid)
        store._fs.pipe_file(f"{key.rpartition('/')[0]}/{name}", b"strange")

    def test_opening_a_store_asks_nothing(self, store: LTXStore) -> None:
        """Whoever only opens a store does not notice that it is away."""
        assert store.requests.total() == 0

    def test_empty_store_lists_nothing(self, store: LTXStore) -> None:
        """A replica that was never written to is empty, not an error."""
        assert store.list_all() == store.list_level(0) == []

    def test_what_was_put_is_given_back(self, store: LTXStore) -> None:
        """The bytes of a file come back, in whole and in ranges."""
        info = self.put(store, 0, 1)
        data = example_file(1)
        assert store.get(info) == data
        assert store.get(info, 3, 90) == data[3:90]
        assert store.get(info, 90) == data[90:]
        assert store.get(info, len(data) - 1, len(data) + 9) == data[-1:]
        assert store.get(info, 5, 5) == b""

    def test_put_tells_what_the_listing_tells(self, store: LTXStore) -> None:
        """Level, TXIDs, size and, where it is asked for, the exact time are listed."""
        info = self.put(store, 2, 3, 9)
        assert info == FileInfo(2, 3, 9, len(example_file(3, 9)), START + 9000)
        assert store.list_all(accurate=True) == [info]
        assert store.list_level(2, accurate=True) == [info]
        [listed] = store.list_level(2)
        assert (listed.name, listed.size) == (info.name, info.size)
        if self.lists_header_time:
            assert listed.timestamp == info.timestamp

    def test_files_are_listed_by_level_and_txid(self, store: LTXStore) -> None:
        """Listings are sorted and complete, whatever the order of the puts."""
        wanted = [(0, 3, 3), (0, 20, 20), (1, 1, 2), (9, 1, 20)]
        for level, low, high in reversed(wanted):
            self.put(store, level, low, high)
        found = store.list_all()
        assert [(f.level, f.min_txid, f.max_txid) for f in found] == wanted
        assert store.list_level(0) == found[:2]
        assert store.list_level(5) == []

    def test_level_is_listed_from_a_txid_on(self, store: LTXStore) -> None:
        """``min_txid`` leaves older files out."""
        infos = [self.put(store, 0, txid) for txid in (1, 2, 3)]
        found = store.list_level(0, min_txid=2, accurate=True)
        assert found == infos[1:]

    def test_new_file_is_listed_at_once(self, store: LTXStore) -> None:
        """No listing comes from a cache, and none is older than what another put."""
        other = self.reopened(store)
        for txid in (1, 2, 3):
            self.put(other, 0, txid)
            assert [f.max_txid for f in store.list_level(0)][-1] == txid
            assert [f.max_txid for f in store.list_all()][-1] == txid

    def test_foreign_names_are_not_listed(self, store: LTXStore) -> None:
        """What else is in the folder is no file of the replica."""
        info = self.put(store, 0, 1)
        strange = ["notes.txt", f"{info.name}.tmp", f".{info.name}", "1-2.ltx"]
        strange += [info.name.upper(), info.name.replace("1-", "0-"), f"x{info.name}"]
        for name in strange:
            self.plant(store, info, name)
        assert [f.name for f in store.list_all()] == [info.name]
        assert [f.name for f in store.list_level(0)] == [info.name]

    def test_same_bytes_again_are_fine(self, store: LTXStore) -> None:
        """Whoever does not know whether a put succeeded puts again."""
        assert self.put(store, 0, 1) == self.put(store, 0, 1)
        assert len(store.list_all()) == 1

    def test_other_bytes_are_another_writer(self, store: LTXStore) -> None:
        """A name that is taken is never overwritten; of equal length or not."""
        info = self.put(store, 0, 1)
        for data in (example_file(1, fill=8), b"short"):
            with pytest.raises(AnotherWriterError) as caught:
                store.put(0, 1, 1, data, timestamp=START)
            assert (caught.value.operation, caught.value.transient) == ("put", False)
        assert store.get(info) == example_file(1)

    def test_file_is_put_from_a_path(self, store: LTXStore, tmp_path: Path) -> None:
        """A local file is stored like its bytes, and stays where it is."""
        source = tmp_path / "source.ltx"
        source.write_bytes(example_file(4))
        info = store.put(0, 4, 4, source, timestamp=START + 4000)
        assert store.get(info) == source.read_bytes() == example_file(4)
        assert store.put(0, 4, 4, source, timestamp=START + 4000) == info
        source.unlink()
        assert store.get(info) == example_file(4)

    def test_path_with_other_bytes_is_another_writer(
        self, store: LTXStore, tmp_path: Path
    ) -> None:
        """A path does not replace what is there either."""
        info = self.put(store, 0, 4)
        source = tmp_path / "source.ltx"
        source.write_bytes(example_file(4, fill=9))
        with pytest.raises(AnotherWriterError):
            store.put(0, 4, 4, source, timestamp=START)
        assert store.get(info) == example_file(4)

    def test_one_of_several_writers_wins(self, store: LTXStore) -> None:
        """Writers that want one name at one moment: all but one are told."""
        if not self.one_winner:
            pytest.skip("this filesystem looks first and writes then")
        stores = [self.reopened(store) for _ in range(6)]
        ready = threading.Barrier(len(stores))

        def write(fill: int) -> bool:
            ready.wait()
            try:
                stores[fill].put(0, 1, 1, example_file(1, fill=fill), timestamp=START)
            except AnotherWriterError:
                return False
            return True

        with ThreadPoolExecutor(len(stores)) as pool:
            won = list(pool.map(write, range(len(stores))))
        assert won.count(True) == 1
        [info] = store.list_all()
        assert store.get(info) == example_file(1, fill=won.index(True))

    def test_deleted_file_is_gone(self, store: LTXStore) -> None:
        """Files are deleted; one that is gone already is fine."""
        infos = [self.put(store, 0, txid) for txid in (1, 2, 3)]
        store.delete(infos[:2])
        store.delete(infos[:1])
        assert store.list_all(accurate=True) == infos[2:]

    def test_missing_file_is_an_error_for_good(self, store: LTXStore) -> None:
        """Reading a file that is gone says so, and nobody tries again."""
        info = self.put(store, 0, 1)
        store.delete([info])
        with pytest.raises(StoreError) as caught:
            store.get(info)
        assert (caught.value.kind, caught.value.transient) == ("missing", False)
        assert (caught.value.operation, store.requests["get"]) == ("get", 1)

    def test_file_shorter_than_listed_is_an_error(self, store: LTXStore) -> None:
        """Fewer bytes than there should be are never given out as if they were all."""
        info = self.put(store, 0, 1)
        longer = FileInfo(0, 1, 1, info.size + 10, info.timestamp)
        quick = self.reopened(store, sleep=lambda _: None)
        with pytest.raises(StoreError) as caught:
            quick.get(longer)
        assert caught.value.operation == "get"

    def test_file_is_read_in_order(self, store: LTXStore) -> None:
        """The reader gives all bytes once, in pieces of any size."""
        info = self.put(store, 0, 1)
        with store.open_file(info) as file:
            pieces = []
            while piece := file.read(37):
                pieces.append(piece)
            assert file.read(1) == b""
        assert b"".join(pieces) == example_file(1)

    def test_level_out_of_range_is_refused(self, store: LTXStore) -> None:
        """There are levels 0 to 9; whoever asks for others has a bug."""
        for level in (-1, 10):
            with pytest.raises(ValueError, match="level"):
                store.put(level, 1, 1, b"x", timestamp=START)

    def test_file_beside_the_levels_is_kept_and_not_mixed_up(
        self, store: LTXStore
    ) -> None:
        """Pins and the like are stored, listed and deleted apart from LTX files."""
        info = self.put(store, 0, 1)
        assert store.list_side("pins") == []
        files = [store.put_side("pins", name, b"1" * 9) for name in ("b.json", "a")]
        store.put_side("other", "a", b"22")
        assert store.list_side("pins") == sorted(files, key=lambda file: file.name)
        assert store.get_side(files[0]) == b"1" * 9
        assert store.get_side(files[0], 2, 5) == b"111"
        assert [(f.level, f.name) for f in store.list_all()] == [(0, info.name)]
        store.delete_side(files)
        store.delete_side(files[:1])
        assert store.list_side("pins") == []
        assert [file.name for file in store.list_side("other")] == ["a"]

    def test_file_beside_the_levels_is_never_overwritten(self, store: LTXStore) -> None:
        """The same bytes again are fine; others are refused and change nothing."""
        file = store.put_side("pins", "a", b"first")
        assert store.put_side("pins", "a", b"first") == file
        with pytest.raises(AnotherWriterError):
            store.put_side("pins", "a", b"other")
        assert store.get_side(file) == b"first"

    @pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "ä", "a\n", "x" * 129])
    def test_name_that_is_no_part_of_a_key_is_refused(
        self, store: LTXStore, name: str
    ) -> None:
        """Nothing leaves its folder, in a put or in a listing."""
        with pytest.raises(ValueError, match="cannot be a name"):
            store.put_side("pins", name, b"")
        assert store.requests.total() == 0

    def test_copy_at_another_level_is_a_file_like_any_other(
        self, store: LTXStore, tmp_path: Path
    ) -> None:
        """Bytes and time are the same; again it is fine, and the first may go."""
        info = self.put(store, 0, 1)
        made = store.copy(info, 9, tmp_path / "scratch")
        assert store.copy(info, 9, tmp_path / "scratch") == made
        assert store.list_all(accurate=True) == [info, made]
        store.delete([info])
        assert store.get(made) == example_file(1)
        assert list(tmp_path.glob("scratch")) == []

    def test_files_of_litestream_03_are_listed_and_read(self, store: LTXStore) -> None:
        """The old layout beside the levels; what else is there is left out."""
        assert store.list_generations() == []
        info = self.put(store, 0, 1)
        old = "00000000000000ab"
        wanted = [
            f"{old}/snapshots/00000000.snapshot.lz4",
            f"{old}/wal/00000000_00000000.wal.lz4",
            f"{old}/wal/00000000_00001038.wal.lz4",
            f"{old}/wal/00000000_123456789.wal.lz4",
            f"{old}/wal/0000000a_00000000.wal.lz4",
            "ffffffffffffffff/snapshots/000000ff.snapshot.lz4",
        ]
        strange = [
            f"{old}/wal/00000000_0000000000001038.wal.lz4",
            f"{old}/wal/00000000_00002000.wal.lz4.tmp",
            f"{old}/snapshots/00000000_00000000.wal.lz4",
            f"{old.upper()}/wal/00000000_00000000.wal.lz4",
            "other/snapshots/00000000.snapshot.lz4",
            "00000000.snapshot.lz4",
        ]
        root = f"{store._root.removesuffix('/.').rstrip('/')}/generations"
        for name in reversed(wanted + strange):
            key = f"{root}/{name}"
            store._fs.makedirs(store._fs._parent(key), exist_ok=True)
            store._fs.pipe_file(key, name.encode())
        files = store.list_generations()
        assert [file.name for file in files] == wanted
        assert [file.size for file in files] == [len(name) for name in wanted]
        assert files[3].offset == 0x123456789
        assert all(0 < f.timestamp <= f.committed_by for f in files)
        for file in files:
            assert store.get_generation_file(file) == file.name.encode()
            assert store.get_generation_file(file, 3, 7) == file.name[3:7].encode()
        assert [(f.level, f.name) for f in store.list_all()] == [(0, info.name)]
