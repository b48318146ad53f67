"""A group is told of changes where the system does that, and finds them where not."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.group import Tenants, parked, until, until_state

from sqlitereplica import ReplicatorGroup
from sqlitereplica.group import scanner
from sqlitereplica.group.notices import Notices

told = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="inotify is Linux's"
)


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    """Two databases, one of them in a folder below."""
    tenants = Tenants(tmp_path)
    tenants.make("a.db", "eu/b.db")
    return tenants


def told_only(tenants: Tenants) -> ReplicatorGroup:
    """A group that looks at all files once in an hour."""
    return tenants.group(recursive=True, scan_interval="1h")


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at all files are as seldom as they would be without notices."""
    monkeypatch.setattr(scanner, "_SELDOM", 3600.0)


@told
@pytest.mark.usefixtures("seldom")
def test_commits_are_told_of(tenants: Tenants) -> None:
    """In the folder and below; by connections that stay open and that are closed."""
    with told_only(tenants) as group:
        parked(group, 2)
        for value in (1, 2):
            for name in ("a.db", "eu/b.db"):
                tenants.write(name, value)
            until(lambda: tenants.restored("a.db")[-1] == value, "the commit")  # noqa: B023
            until(lambda: tenants.restored("eu/b.db")[-1] == value, "the other")  # noqa: B023
            parked(group, 2)


@told
@pytest.mark.usefixtures("seldom")
def test_what_comes_and_goes_is_told_of(tenants: Tenants, tmp_path: Path) -> None:
    """Databases, whole folders of them, moved in, deleted, in a folder that is new."""
    with told_only(tenants) as group:
        parked(group, 2)
        tenants.make("new.db", "us/c.db", "../outside/d.db")
        (tmp_path / "outside").rename(tenants.dir / "moved")
        until(lambda: len(group) == 5, f"five: {group.databases}")
        parked(group, 5)
        tenants.write("us/c.db", 1)
        until(lambda: tenants.restored("us/c.db") == [0, 1], "in a new folder")
        parked(group, 5)
        os.unlink(tenants.path("a.db"))
        until_state(group, "a.db", "removed")
        shutil.rmtree(tenants.path("moved"))
        until_state(group, "moved/d.db", "removed")
        assert len(group) == 3


def no_inotify(root: str, tell: Callable[[], None]) -> Notices:
    """All of it is used up."""
    raise OSError(errno.EMFILE, "too many")


class Full(Notices):
    """One that watches no folder."""

    def _add(self, rel: str) -> None:
        raise OSError(errno.ENOSPC, "no space for watches")


@pytest.mark.parametrize("watch", [no_inotify, Full])
def test_without_notices_changes_are_found(
    tenants: Tenants, watch: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none, or not enough of it: files are looked at instead."""
    defaults = scanner.Scanner.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "watch", watch)
    descriptors = len(os.listdir("/proc/self/fd"))
    with tenants.group(recursive=True) as group:
        parked(group, 2)
        tenants.write("eu/b.db", 1)
        until(lambda: tenants.restored("eu/b.db") == [0, 1], "the commit")
        tenants.make("us/c.db")
        until(lambda: len(group) == 3, "the new one")
    assert len(os.listdir("/proc/self/fd")) < descriptors + 30


@told
def test_notices_end_with_the_group(tenants: Tenants) -> None:
    """No descriptor and no thread is left of them, however often it starts."""

    def count() -> int:
        names = [
            os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
        ]
        return sum("inotify" in name for name in names)

    before = count()
    for _ in range(3):
        with tenants.group(recursive=True) as group:
            until(lambda: count() == before + 1, "the notices")
            assert len(group) == 2
    assert count() == before
