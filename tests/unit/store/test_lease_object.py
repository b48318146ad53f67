"""The object of the lease in folders and in memory: one winner for each replacement."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.leaseobjects import (
    check_one_wins,
    check_replaced_by_its_tag_only,
    lease_of,
    record,
)

from sqlitereplica.errors import StoreError
from sqlitereplica.store import LTXStore
from sqlitereplica.store.lease import Seen
from sqlitereplica.store.leaseobject import LeaseObject, RefusedError


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
    found = lease_of(LTXStore.open(where, path=path))
    assert found.probe() is None
    return found


def test_object_is_made_once_and_replaced_by_its_tag_only(lease: LeaseObject) -> None:
    """Whoever expects anything else is refused, and changes nothing."""
    check_replaced_by_its_tag_only(lease)


def test_of_many_that_replace_it_at_once_one_wins(lease: LeaseObject) -> None:
    """Each time anew."""
    check_one_wins(lease, 20)


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
    lease = lease_of(LTXStore.open(tmp_path))
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
    lease = lease_of(LTXStore.open(tmp_path))
    assert "hard links" in str(lease.probe())


def test_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    """Not a reason to go on without a lease."""
    (tmp_path / "replica").write_text("a file")
    lease = lease_of(LTXStore.open(tmp_path / "replica"))
    with pytest.raises(StoreError):
        lease.probe()


def test_stores_that_look_before_they_write_have_no_lease() -> None:
    """Nothing says that a name was free when it was taken."""

    class Plain(Memory):
        protocol = "sftp"

    from fsspec.implementations.dirfs import DirFileSystem

    fs = DirFileSystem("/x", Plain())
    assert LTXStore.open(fs, path="replica").lease_object() is None
