"""Stores on a filesystem that fails: each operation once, for good, before, after, torn."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.errors import AnotherWriterError, StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore, RetryPolicy
from sqlitereplica.testing import (
    Fault,
    FaultyFileSystem,
    Operation,
    Plan,
    at,
    only,
    since,
)
from sqlitereplica.testing.contract import START, example_file

ONCE = RetryPolicy(attempts=1)


def memory() -> AbstractFileSystem:
    """An empty filesystem in memory."""
    return MemoryFileSystem(global_store=False, skip_instance_cache=True)


KINDS: dict[str, Callable[[], FaultyFileSystem]] = {
    "plain": lambda: FaultyFileSystem(memory()),
    "objects": lambda: FaultyFileSystem(memory(), protocol="s3"),
    "folders": lambda: FaultyFileSystem(LocalFileSystem(), protocol="sftp"),
    "local": lambda: FaultyFileSystem(LocalFileSystem()),
}


@pytest.fixture(params=KINDS)
def fs(request: pytest.FixtureRequest) -> FaultyFileSystem:
    """A filesystem of each kind that fails as told."""
    return KINDS[request.param]()


@pytest.fixture
def root(fs: FaultyFileSystem, tmp_path: Path) -> str:
    """Where the replica is."""
    if isinstance(fs.fs, LocalFileSystem):
        return str(tmp_path / "replica")
    return f"bucket/{secrets.token_hex(4)}"


def open_store(
    fs: FaultyFileSystem, root: str, retry: RetryPolicy | None = None
) -> LTXStore:
    """A store that does not wait between tries."""
    return LTXStore.open(fs, path=root, retry=retry, sleep=lambda _: None)


def put(store: LTXStore, txid: int, fill: int = 7) -> FileInfo:
    """Put an example file."""
    data = example_file(txid, fill=fill)
    return store.put(0, txid, txid, data, timestamp=START + 1000 * txid)


def work(store: LTXStore) -> list[bytes]:
    """Each kind of operation; the contents of the replica at the end."""
    infos = [put(store, txid) for txid in (1, 2, 3)]
    store.delete(infos[:1])
    return [store.get(info) for info in store.list_all(accurate=True)]


def failure_of(store: LTXStore) -> StoreError | None:
    """How the work fails, if it does."""
    try:
        work(store)
    except StoreError as error:
        return error
    return None


WORK_DONE = [example_file(2), example_file(3)]
BOUND = 200


def fault_of(fault: Fault, fs: FaultyFileSystem) -> Fault:
    """Writes are torn only where that can be: object stores show all or nothing."""
    torn = fault is Fault.TORN and fs.protocol == "sftp"
    return fault if torn or fault is not Fault.TORN else Fault.BEFORE


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.TORN])
def test_operation_that_fails_once_is_tried_again(
    fs: FaultyFileSystem, root: str, fault: Fault
) -> None:
    """T22, T23: whichever operation fails, done or not, nobody notices."""
    fault = fault_of(fault, fs)
    for number in range(1, BOUND):
        fs.plan = at(fs.count + number, fault)
        before = fs.count
        assert work(open_store(fs, f"{root}/{number}")) == WORK_DONE
        if fs.count < before + number:
            break
    else:
        pytest.fail("the work takes more and more operations")
    assert {p for p in fs.overwritten if p.endswith(".ltx")} == set()


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.TORN])
def test_failure_is_told_and_work_goes_on_when_it_ends(
    fs: FaultyFileSystem, root: str, fault: Fault
) -> None:
    """T22: failing for good from any operation on is an error; then all is done again."""
    fault = fault_of(fault, fs)
    for number in range(1, BOUND):
        first = fs.count + number
        fs.plan = since(first, fault)
        store = open_store(fs, f"{root}/{number}", ONCE)
        failure = failure_of(store)
        assert failure is None or failure.transient
        fs.heal()
        if fs.count < first:
            break
        assert work(store) == WORK_DONE
    else:
        pytest.fail("the work takes more and more operations")
    assert {p for p in fs.overwritten if p.endswith(".ltx")} == set()


@pytest.mark.parametrize("fault", [Fault.SHORT, Fault.EMPTY])
def test_bytes_that_are_missing_are_noticed(
    fs: FaultyFileSystem, root: str, fault: Fault
) -> None:
    """T24: a short answer is asked for again, and in the end an error."""
    store = open_store(fs, root)
    info = put(store, 1)
    fs.plan = only("read", fault, times=2)
    assert store.get(info) == example_file(1)
    fs.plan = only("read", fault)
    with pytest.raises(StoreError) as caught:
        store.get(info)
    assert (caught.value.kind, caught.value.transient) == ("short", True)


@pytest.mark.parametrize("fault", [Fault.FLIPPED, Fault.OTHER])
def test_wrong_bytes_are_never_taken_for_our_own(
    fs: FaultyFileSystem, root: str, fault: Fault
) -> None:
    """T24: bytes that differ are another writer's, also if they were read wrongly."""
    store = open_store(fs, root)
    put(store, 2)
    put(store, 1)
    fs.plan = only("read", fault)
    with pytest.raises(AnotherWriterError):
        put(store, 1)


@pytest.mark.parametrize("fault", [Fault.FLIPPED, Fault.OTHER])
def test_one_bad_read_is_no_other_writer(
    fs: FaultyFileSystem, root: str, fault: Fault
) -> None:
    """Our own file, read wrongly once, does not stop replication for good."""
    store = open_store(fs, root)
    put(store, 2)
    info = put(store, 1)
    fs.plan = only("read", fault, times=1)
    assert put(store, 1) == info


@pytest.mark.parametrize("fault", [Fault.DUPLICATED, Fault.REVERSED, Fault.FOREIGN])
def test_listing_is_put_right(fs: FaultyFileSystem, root: str, fault: Fault) -> None:
    """T28: disorder, repetition and strange names do not show."""
    store = open_store(fs, root)
    infos = [put(store, txid) for txid in (1, 2, 3)]
    fs.plan = only("list", fault)
    assert store.list_all(accurate=True) == infos
    assert store.list_level(0, accurate=True) == infos


def test_file_that_a_listing_leaves_out_is_not_overwritten(
    fs: FaultyFileSystem, root: str
) -> None:
    """T28: what a stale listing hides is still there when its name is written."""
    store = open_store(fs, root)
    put(store, 1)
    put(store, 2)
    fs.plan = only("list", Fault.OMITTED)
    with pytest.raises(AnotherWriterError):
        put(store, 2, fill=1)
    assert fs.overwritten == set()


def test_listing_that_fails_is_not_an_empty_one(
    fs: FaultyFileSystem, root: str
) -> None:
    """A folder that cannot be read does not look like one that is empty."""
    store = open_store(fs, root, ONCE)
    put(store, 1)
    fs.plan = only("list")
    with pytest.raises(StoreError):
        store.list_all()
    with pytest.raises(StoreError):
        store.list_level(0)


def test_file_deleted_after_it_was_listed_is_left_out(
    fs: FaultyFileSystem, root: str
) -> None:
    """Exact times are read file by file; one that goes away meanwhile is gone."""
    store = open_store(fs, root)
    infos = [put(store, txid) for txid in (1, 2)]

    def delete_second(operation: Operation) -> None:
        if operation.kind == "read" and operation.path.endswith("1.ltx"):
            folder, _, name = operation.path.rpartition("/")
            fs.fs.rm_file(f"{folder}/{name.replace('1', '2')}")

    fs.plan = delete_second
    assert store.list_all(accurate=True) == infos[:1]


def test_damaged_header_does_not_hide_the_other_files(
    fs: FaultyFileSystem, root: str
) -> None:
    """A file whose header is wrong keeps the time of the listing."""
    store = open_store(fs, root)
    put(store, 1)
    store.put(0, 2, 2, b"no LTX file" * 20, timestamp=START)
    first, second = store.list_all(accurate=True)
    assert first.timestamp == START + 1000
    assert second.max_txid == 2


class TimedError(OSError):
    """A failure that looks like that of some client."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class PickyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Knows no conditional writes; says it with a status, as servers do."""

    protocol = "s3"

    def pipe_file(
        self, path: str, value: bytes, mode: str = "overwrite", **options: object
    ) -> None:
        """Write, unless there is a condition."""
        if mode == "create":
            raise TimedError(501)
        super().pipe_file(path, value, **options)


def test_store_without_conditional_writes_still_refuses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Names are looked up instead, and what was written is read back."""
    fs = PickyFileSystem(global_store=False, skip_instance_cache=True)
    store = LTXStore.open(fs, path="bucket/app")
    info = put(store, 1)
    assert [r.action for r in caplog.records] == ["store-unconditional"]  # type: ignore[attr-defined]
    with pytest.raises(AnotherWriterError):
        put(store, 1, fill=1)
    assert store.get(info) == example_file(1)


def test_writer_that_comes_between_is_found_by_reading_back() -> None:
    """Where a name is looked up first, the loser of a race learns that it lost."""
    inner = memory()
    fs = FaultyFileSystem(inner)
    store = open_store(fs, "replica")
    key = "/replica/ltx/0/0000000000000001-0000000000000001.ltx"

    def overwrite_after_write(operation: Operation) -> None:
        if operation.kind == "info" and inner.exists(key):
            inner.pipe_file(key, example_file(1, fill=99))

    fs.plan = overwrite_after_write
    with pytest.raises(AnotherWriterError):
        put(store, 1)


def test_plans_count_and_choose() -> None:
    """The plans of the testing package say what they say."""
    fs = FaultyFileSystem(memory(), plan=only("info", times=1))
    chosen: Plan = at(2, Fault.AFTER)
    with pytest.raises(ConnectionError):
        fs.info("/a")
    with pytest.raises(FileNotFoundError):
        fs.info("/a")
    fs.plan = chosen
    fs.pipe_file("/a", b"one")
    fs.plan = at(4, Fault.AFTER)
    with pytest.raises(ConnectionError):
        fs.pipe_file("/a", b"two")
    assert fs.cat_file("/a") == b"two"
    assert fs.overwritten == {"/a"}
    assert [r.operation.number for r in fs.log] == [1, 2, 3, 4, 5]
    assert [r.operation.kind for r in fs.log] == ["info"] * 2 + ["write"] * 2 + ["read"]
