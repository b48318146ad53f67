"""Each operation of the work on the history of a replica fails once; nothing comes of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from support.tended import SWIFT, Tended

from sqlitereplica.replicate.retention import kept_points
from sqlitereplica.testing import Fault, Operation, Plan, at, since


@pytest.fixture
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Tended:
    """A replica in which all kinds of work are about to become due; its process ended.

    A young one, whose first image has yet to become a snapshot, or an old one.
    """
    protocol, age = request.param
    folder = tmp_path / "base"
    folder.mkdir()
    made = Tended(folder, protocols=[protocol])
    made.go_on(3 if age == "young" else 30, 7.0)
    made.write()
    made.close()
    assert made.errors == []
    return made


@dataclass(frozen=True)
class Outcome:
    """What was asked while things went wrong, and what there was then and at last."""

    operations: list[Operation]
    restored: set[int]
    kept: set[int]
    """Of these, what the policy keeps. Retention may have been at work or not."""
    ends: dict[int, int]
    """By level, the last transaction in it."""


def live(world: Tended, plan: Plan | None, *, dies: bool = False) -> Outcome:
    """Let all be done that there is to do, while the plan goes wrong, and then some more."""
    [fs] = world.fs
    fs.log.clear()
    fs.plan = plan
    world.acknowledge()
    world.pass_time(90, 9)
    log = list(fs.log)
    assert plan is None or any(record.fault for record in log)
    if dies:
        world.stepped.restart()
    world.heal()
    world.pass_time(1)
    assert world.acknowledge(), world.errors
    world.check_newest()
    restored = set(world.kept())
    points = kept_points(world.files(), SWIFT.retention, world.clock.wall_ms)
    kept = restored & {point.txid for point in points}
    world.pass_time(1200, 60)
    check(world)
    ends = {file.level: file.max_txid for file in world.files()}
    return Outcome([record.operation for record in log], restored, kept, ends)


def check(world: Tended) -> None:
    """All is well, nothing ever had other bytes than it has, and nothing is left behind."""
    [fs] = world.fs
    world.check_newest()
    assert world.errors == []
    assert fs.overwritten == set()
    # Page checksums of snapshots are beside the levels, and may be missing.
    found = [path for path in fs.fs.find("/") if "/sums/" not in path]
    paths = {path.rpartition("/")[2] for path in found}
    # A file server that fails at an upload may fail at taking its beginning away, too.
    torn = {path for path in paths if path.endswith(".tmp")}
    assert not torn or fs.protocol == "sftp"
    assert paths - torn == {file.name for file in world.files()}
    for level in (1, 2):
        for before, after in pairwise(f for f in world.files() if f.level == level):
            assert after.min_txid == before.max_txid + 1
    for path in (world.stepped.meta / "spool").iterdir():
        assert path.name.startswith("recent-") and path.name[18:] in paths, path.name


def possible(operation: Operation, fault: Fault) -> bool:
    """Whether a fault is another one than ``BEFORE`` would be."""
    if fault is Fault.AFTER:
        return operation.kind in ("write", "rename", "delete", "folder")
    return fault is not Fault.TORN or operation.kind == "write"


@contextmanager
def replaying(base: Tended) -> Iterator[Tended]:
    """A copy of the base, for one time."""
    world = base.copy(base.path.parent.with_name("world"))
    try:
        yield world
    finally:
        world.close()
        shutil.rmtree(world.path.parent)


def torment(base: Tended, fault: Fault, *, dies: bool = False) -> int:
    """Let each operation fail, the first one, then the second; returns how many."""
    with replaying(base) as world:
        clean = live(world, None, dies=dies)
    operations = [o for o in clean.operations if possible(o, fault)]
    for operation in operations:
        plan = since if dies else at
        with replaying(base) as world:
            found = live(world, plan(operation.number, fault), dies=dies)
        assert found.restored >= clean.kept, operation
        assert found.ends == clean.ends, operation
    return len(operations)


# What is different about the kinds of stores and of failures, in a few seconds.
FEW = {
    (("gs", "old"), Fault.BEFORE, False),
    (("gs", "old"), Fault.AFTER, False),
    (("sftp", "young"), Fault.TORN, False),
    (("faulty", "young"), Fault.BEFORE, True),
}
ALL = [
    ((protocol, age), fault, dies)
    for protocol in ("gs", "faulty", "sftp")
    for age in ("old", "young")
    for fault in (Fault.BEFORE, Fault.AFTER, Fault.TORN)
    for dies in (False, True)
    if fault is not Fault.TORN or protocol == "sftp"
]


@pytest.mark.parametrize(
    ("base", "fault", "dies"),
    [
        pytest.param(*case, marks=[] if case in FEW else pytest.mark.torture)
        for case in ALL
    ],
    indirect=["base"],
)
def test_operation_that_fails_changes_nothing(
    base: Tended, fault: Fault, dies: bool
) -> None:
    """T22, T35: one of them, or all from there on until the process dies, it is as without.

    Whether it was done before it failed, or torn.
    """
    assert torment(base, fault, dies=dies) >= 2
