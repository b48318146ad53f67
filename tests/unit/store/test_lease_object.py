"""The object of the lease in folders and in memory: one winner for each replacement."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.errors import StoreError
from sqlitereplica.store import LTXStore
from sqlitereplica.store.lease import Record, Seen
from sqlitereplica.store.leaseobject import LeaseObject, RefusedError


def record(epoch: int, nonce: str = "n") -> Record:
    """A body."""
    return Record(epoch=epoch, owner="h:1", node=1, nonce=nonce)


class Memory(MemoryFileSystem):
    """One that shares its files with no other test."""

    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False


@pytest.fixture(params=["folder", "memory"])
def lease(request: pytest.FixtureRequest, tmp_path: Path) -> LeaseObject:
    """The object of a new replica."""
    Memory.store.clear()
    where = str(tmp_path / "replica") if request.param == "folder" else Memory()
    path = None if request.param == "folder" else "/replica"
    found = LTXStore.open(where, path=path).lease_object()
    assert found is not None
    assert found.probe() is None
    return found


def test_object_is_made_once_and_replaced_by_its_tag_only(lease: LeaseObject) -> None:
    """Whoever expects anything else is refused, and changes nothing."""
    assert lease.read() == Seen(None, None)
    first = lease.write(record(1), None)
    assert lease.read() == Seen(record(1), first)
    with pytest.raises(RefusedError):
        lease.write(record(1, "x"), None)
    second = lease.write(record(2), first)
    for stale in (None, first):
        with pytest.raises(RefusedError):
            lease.write(record(3), stale)
    assert lease.read() == Seen(record(2), second)


def test_of_many_that_replace_it_at_once_one_wins(lease: LeaseObject) -> None:
    """Each time anew."""
    tag = lease.write(record(1), None)
    for turn in range(20):
        won: list[str] = []
        barrier = threading.Barrier(4)

        def contend(
            n: int, expect: str, won: list[str], start: threading.Barrier
        ) -> None:
            start.wait()
            try:
                won.append(lease.write(record(2, f"{n}"), expect))
            except RefusedError:
                return

        threads = [
            threading.Thread(target=contend, args=(n, tag, won, barrier))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, turn
        tag = won[0]
        assert lease.read().tag == tag


def test_who_comes_when_the_next_number_was_tidied_away_is_refused(
    lease: LeaseObject,
) -> None:
    """It was held up for a hundred renewals; the newest body stays."""
    stale = tag = lease.write(record(1), None)
    for n in range(100):
        tag = lease.write(record(1, f"{n}"), tag)
    with pytest.raises(RefusedError):
        lease.write(record(2, "late"), stale)
    assert lease.read() == Seen(record(1, "99"), tag)
    with pytest.raises(RefusedError):
        lease.write(record(2, "late"), stale)


def test_few_numbers_are_left_in_a_folder(tmp_path: Path) -> None:
    """And nothing else: no temporary file, no probe."""
    lease = LTXStore.open(tmp_path).lease_object()
    assert lease is not None
    lease.probe()
    tag = None
    for n in range(50):
        tag = lease.write(record(1, f"{n}"), tag)
    names = sorted(os.listdir(tmp_path / "lock"))
    assert names == [f"{n:016d}.json" for n in range(35, 51)]


def test_filesystem_without_hard_links_holds_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a look and a rename are two steps, and two may come between."""

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    lease = LTXStore.open(tmp_path).lease_object()
    assert lease is not None
    assert "hard links" in str(lease.probe())


def test_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    """Not a reason to go on without a lease."""
    (tmp_path / "replica").write_text("a file")
    lease = LTXStore.open(tmp_path / "replica").lease_object()
    assert lease is not None
    with pytest.raises(StoreError):
        lease.probe()


def test_stores_that_look_before_they_write_have_no_lease() -> None:
    """Nothing says that a name was free when it was taken."""

    class Plain(Memory):
        protocol = "sftp"

    from fsspec.implementations.dirfs import DirFileSystem

    fs = DirFileSystem("/x", Plain())
    assert LTXStore.open(fs, path="replica").lease_object() is None
