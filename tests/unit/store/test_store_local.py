"""Durable files in folders: what is fsynced, linked, copied, refused and swept."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sqlitereplica.errors import StoreError
from sqlitereplica.store import LTXStore
from sqlitereplica.store.local import sweep
from sqlitereplica.testing.contract import START, example_file

NAME = "0000000000000001-0000000000000001.ltx"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the replica, which does not exist yet."""
    return tmp_path / "deep" / "replica"


@pytest.fixture
def store(root: Path) -> LTXStore:
    """A store there that does not wait between tries."""
    return LTXStore.open(root, sleep=lambda _: None)


def put(store: LTXStore, data: bytes | Path | None = None) -> Path:
    """Put the first file; where it is."""
    store.put(0, 1, 1, data or example_file(1), timestamp=START)
    return Path(store.name) / "ltx" / "0" / NAME


def leftovers(root: Path) -> list[str]:
    """Names that are no files of the replica."""
    return [p.name for p in root.rglob("*") if p.is_file() and p.suffix != ".ltx"]


class Fsyncs:
    """Watches what is fsynced, and fails as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = os.fsync
        self.files: list[int] = []
        self.folders: list[Path] = []
        self.fail_file = self.fail_folder = 0
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            self.folders.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
            if self.fail_folder:
                self.fail_folder -= 1
                raise OSError(errno.EIO, "told to fail")
        else:
            self.files.append(status.st_ino)
            if self.fail_file:
                self.fail_file -= 1
                raise OSError(errno.EIO, "told to fail")
        self.real(fd)


@pytest.fixture
def fsyncs(monkeypatch: pytest.MonkeyPatch) -> Fsyncs:
    """What is fsynced in this test."""
    return Fsyncs(monkeypatch)


def test_mtime_is_the_time_of_the_header(store: LTXStore) -> None:
    """To the millisecond, as Litestream looks for it."""
    assert put(store).stat().st_mtime_ns == START * 1_000_000
    assert store.list_all()[0].timestamp == START


def test_file_and_all_new_folders_are_brought_to_disk(
    store: LTXStore, root: Path, fsyncs: Fsyncs
) -> None:
    """The file before it has its name; each folder that got a new name after that."""
    path = put(store)
    assert path.stat().st_ino in fsyncs.files
    new = [root.parent.parent, root.parent, root, root / "ltx", root / "ltx" / "0"]
    assert set(new) <= set(fsyncs.folders)
    assert fsyncs.folders[-1] == path.parent


def test_folders_that_a_killed_process_made_are_brought_to_disk(
    store: LTXStore, root: Path, fsyncs: Fsyncs
) -> None:
    """Their names are in the folders above, that of the replica in the one above it."""
    (root / "ltx" / "0").mkdir(parents=True)
    put(store)
    assert {root.parent, root, root / "ltx"} <= set(fsyncs.folders)


def test_folder_is_fsynced_for_each_file(store: LTXStore, fsyncs: Fsyncs) -> None:
    """One fsync for the file and one for its name, no more."""
    path = put(store)
    del fsyncs.files[:], fsyncs.folders[:]
    store.put(0, 2, 2, example_file(2), timestamp=START)
    assert (len(fsyncs.files), fsyncs.folders) == (1, [path.parent])


def test_path_is_linked_not_copied(store: LTXStore, tmp_path: Path) -> None:
    """A finished file gets a second name, without its bytes being written again."""
    source = tmp_path / "spooled"
    source.write_bytes(example_file(1))
    path = put(store, source)
    assert path.stat().st_ino == source.stat().st_ino
    assert path.stat().st_mtime_ns == START * 1_000_000
    source.unlink()
    assert path.read_bytes() == example_file(1)


def test_path_is_copied_where_it_cannot_be_linked(
    store: LTXStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another filesystem, or one without links: same file, same guarantees."""

    def no_links(*_: object) -> None:
        raise OSError(errno.EXDEV, "told to fail")

    monkeypatch.setattr(os, "link", no_links)
    source = tmp_path / "spooled"
    source.write_bytes(example_file(1))
    path = put(store, source)
    assert path.stat().st_ino != source.stat().st_ino
    assert path.read_bytes() == example_file(1)
    assert path.stat().st_mtime_ns == START * 1_000_000
    assert leftovers(root) == []
    put(store)


def test_link_to_a_symbolic_link_is_to_its_file(
    store: LTXStore, tmp_path: Path
) -> None:
    """What is stored is never a link that leads somewhere else."""
    source, link = tmp_path / "spooled", tmp_path / "link"
    source.write_bytes(example_file(1))
    link.symlink_to(source)
    assert not put(store, link).is_symlink()


def test_failed_fsync_of_a_file_leads_to_a_new_file(
    store: LTXStore, root: Path, fsyncs: Fsyncs
) -> None:
    """The second try does not ask for the same file again."""
    fsyncs.fail_file = 1
    path = put(store)
    first, second = fsyncs.files
    assert first != second or path.stat().st_ino == second
    assert store.requests["put"] == 2
    assert path.read_bytes() == example_file(1)
    assert leftovers(root) == []


def test_failed_fsync_of_a_folder_takes_the_name_back(
    store: LTXStore, root: Path, fsyncs: Fsyncs
) -> None:
    """A name of which nobody knows whether it lasts is not left behind."""
    put(store)
    fsyncs.fail_folder = 4
    with pytest.raises(StoreError) as caught:
        store.put(0, 2, 2, example_file(2), timestamp=START)
    assert caught.value.transient
    assert [f.max_txid for f in store.list_all()] == [1]
    assert leftovers(root) == []
    store.put(0, 2, 2, example_file(2), timestamp=START)


def test_folder_that_could_not_be_kept_is_made_anew(
    store: LTXStore, root: Path, fsyncs: Fsyncs
) -> None:
    """A failed fsync after mkdir takes the folder back, too."""
    root.parent.mkdir()
    fsyncs.fail_folder = 4
    with pytest.raises(StoreError):
        put(store)
    assert not root.exists()
    put(store)


def test_source_that_cannot_be_brought_to_disk_is_refused(
    store: LTXStore, tmp_path: Path, fsyncs: Fsyncs
) -> None:
    """It is not asked a second time, and the caller knows to make it anew."""
    put(store)
    source = tmp_path / "spooled"
    source.write_bytes(example_file(2))
    fsyncs.fail_file = 1
    tries = store.requests["put"]
    with pytest.raises(StoreError) as caught:
        store.put(0, 2, 2, source, timestamp=START)
    assert caught.value.kind == "source"
    assert store.requests["put"] == tries + 1
    assert [f.max_txid for f in store.list_all()] == [1]


def test_file_of_an_earlier_process_is_settled(store: LTXStore, fsyncs: Fsyncs) -> None:
    """It may have been killed before its last fsync: success means it is on disk."""
    path = put(store)
    del fsyncs.files[:], fsyncs.folders[:]
    put(store)
    assert path.stat().st_ino in fsyncs.files
    assert fsyncs.folders[-1] == path.parent


def test_replica_deleted_meanwhile_is_begun_anew(store: LTXStore, root: Path) -> None:
    """Folders are made again when somebody removed them."""
    path = put(store)
    path.unlink()
    path.parent.rmdir()
    put(store)
    assert store.list_all()[0].max_txid == 1


def test_first_put_sweeps_what_the_dead_left(
    store: LTXStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporary files older than an hour go; young ones may be somebody's."""
    folder = root / "ltx" / "0"
    folder.mkdir(parents=True)
    stale = folder / f".{NAME}.0123456789abcdef.tmp"
    foreign = folder / "notes.tmp"
    for path in (stale, foreign):
        path.write_bytes(b"x")
    put(store)
    assert stale.exists()
    sweep(folder, now=stale.stat().st_ctime + 3601)
    assert not stale.exists() and foreign.exists()


def test_file_in_the_way_is_an_error_for_good(tmp_path: Path) -> None:
    """A replica cannot be where a file is."""
    (tmp_path / "taken").write_bytes(b"x")
    store = LTXStore.open(tmp_path / "taken")
    for operation in (lambda: put(store), store.list_all):
        with pytest.raises(StoreError) as caught:
            operation()
        assert caught.value.transient is False


def test_folders_and_links_with_names_of_files_are_no_files(
    store: LTXStore, root: Path
) -> None:
    """Only files are listed; a broken link does not end the listing."""
    path = put(store)
    (path.parent / "0000000000000002-0000000000000002.ltx").mkdir()
    (path.parent / "0000000000000003-0000000000000003.ltx").symlink_to("nowhere")
    assert [f.max_txid for f in store.list_all()] == [1]


def test_threads_make_the_same_folders_together(tmp_path: Path) -> None:
    """First puts at one moment do not stand in each other's way."""
    stores = [LTXStore.open(tmp_path / "a" / "b" / "c") for _ in range(8)]
    ready = threading.Barrier(len(stores))

    def first_put(number: int) -> None:
        ready.wait()
        data = example_file(number + 1)
        stores[number].put(0, number + 1, number + 1, data, timestamp=START)

    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(first_put, range(len(stores))))
    assert len(stores[0].list_all()) == len(stores)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_explained(tmp_path: Path) -> None:
    """The message says where to look."""
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="owner and mode"):
        put(LTXStore.open(tmp_path / "replica"))


def test_files_are_deleted_in_the_order_given(store: LTXStore, root: Path) -> None:
    """Retention relies on it: where it stops, all that leads to what is left is there."""
    infos = [
        store.put(0, txid, txid, example_file(txid), timestamp=START)
        for txid in range(1, 41)
    ]
    in_the_way = root / "ltx" / "0" / infos[19].name
    in_the_way.unlink()
    in_the_way.mkdir()
    with pytest.raises(StoreError):
        store.delete(reversed(infos))
    assert store.list_level(0) == infos[:19]
