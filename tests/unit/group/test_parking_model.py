"""Every interleaving of a parking with commits: none is missed.

A model of SQLite's files as ``stat`` sees them, and of the steps in which a database is
parked. All orders of the writer's steps, the parker's steps and ticks of the clock are
tried. What is judged are the real ``holds`` and ``is_settled``.

The model knows what makes parking hard: a WAL that is begun anew is overwritten in place,
with the same size; the times of files are ticks; frames are written before they are
committed, and committing (the wal-index) sets no time; the last one to close copies the WAL
and deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from sqlitereplica.group.signature import Signature, holds, is_settled

TICK = 10_000_000 + 1
LONG = 300_000_001
START = 1_000_000_000_123


@dataclass(frozen=True)
class World:
    """Files, locks and clock; and how far writer and parker are."""

    now: int = START + LONG
    waits: int = 0
    db_time: int = START
    db_holds: int = 0
    """Commits that were copied into the database file."""
    wal_time: int = START
    wal_inode: int = 1
    is_wal: bool = False
    written: int = 0
    """Commits of which the frames are in the WAL or the file."""
    committed: int = 0
    lock: bool = False
    writer_open: bool = True
    writer_at: int = 0
    parker_at: int = 0
    seal: Signature | None = None
    captured: int = 0
    attached: bool = True
    parked: Signature | None = None
    gave_up: bool = False

    @property
    def tick(self) -> int:
        """The kernel's clock."""
        return self.now - self.now % TICK

    def look(self) -> Signature:
        """What ``stat`` tells."""
        db = Signature(1, 1, 4096, self.db_time, self.db_time)
        if not self.is_wal:
            return db
        times = self.wal_time, self.wal_time
        return Signature(*db[:5], self.wal_inode, 4152, *times)

    def checkpointed(self) -> World:
        """All that is committed is copied, if there is anything."""
        if self.db_holds == self.committed:
            return self
        return replace(self, db_holds=self.committed, db_time=self.tick)

    def closed_last(self) -> World:
        """The last connection closes."""
        return replace(self.checkpointed(), is_wal=False)


# -- the writer ----------------------------------------------------------------------------

COMMIT = ("lock", "write", "commit", "unlock")
PROGRAMS = {
    "a commit": COMMIT,
    "a commit and a close": (*COMMIT, "close"),
    "a checkpoint between two": (*COMMIT, "checkpoint", *COMMIT),
    "two commits and a close": (*COMMIT, *COMMIT, "close"),
    "a checkpoint, a close, another one": (*COMMIT, "checkpoint", "close", *COMMIT),
}


def writer(world: World, program: tuple[str, ...]) -> World | None:
    """The writer's next step; None if it has to wait, or is done."""
    if world.writer_at == len(program):
        return None
    step = program[world.writer_at]
    world = replace(world, writer_at=world.writer_at + 1)
    match step:
        case "lock":
            return None if world.lock else replace(world, lock=True, writer_open=True)
        case "write":  # over the old frames, if all of them were copied
            inode = world.wal_inode if world.is_wal else world.wal_inode + 1
            return replace(
                world,
                written=world.written + 1,
                wal_time=world.tick,
                wal_inode=inode,
                is_wal=True,
            )
        case "commit":
            return replace(world, committed=world.written)
        case "unlock":
            return replace(world, lock=False)
        case "checkpoint":
            return world.checkpointed()
        case _:
            world = replace(world, writer_open=False)
            return world if world.attached else world.closed_last()


# -- the parker ----------------------------------------------------------------------------

STEPS = ("checkpoint", "seal", "flush", "detach", "look")


def parker(
    world: World, *, under_lock: bool = True, settle: bool = True
) -> World | None:
    """The next step of ``Pool._park``, without the parts that another test leaves out."""
    if world.gave_up or world.parked is not None:
        return None
    step = STEPS[world.parker_at]
    world = replace(world, parker_at=world.parker_at + 1)
    match step:
        case "checkpoint":
            return world.checkpointed()
        case "seal":
            found = world.look()
            busy = under_lock and world.lock
            if busy or (settle and not is_settled(found, world.now)):
                return replace(world, gave_up=True)
            return replace(world, seal=found)
        case "flush":
            return replace(world, captured=world.committed)
        case "detach":
            world = replace(world, attached=False)
            return world if world.writer_open else world.closed_last()
        case _:
            assert world.seal is not None
            seen = world.look()
            if holds(world.seal, seen):
                return replace(world, parked=seen)
            return replace(world, gave_up=True)


def clock(world: World) -> Iterator[World]:
    """Time goes on: within a tick, or for long; a few times."""
    if world.waits < 3:
        yield replace(world, now=world.now + LONG, waits=world.waits + 1)
        yield replace(world, now=world.now + TICK, waits=world.waits + 1)


def missed(program: tuple[str, ...], **parts: bool) -> tuple[int, list[World]]:
    """How many ends there are, and those at which a commit is missed for good."""
    seen: set[World] = set()
    waiting = [World()]
    ends, wrong = 0, []
    while waiting:
        world = waiting.pop()
        if world in seen:
            continue
        seen.add(world)
        steps = [writer(world, program), parker(world, **parts)]
        found = [step for step in steps if step is not None]
        if not found:
            ends += 1
            asleep = world.parked is not None and holds(world.parked, world.look())
            if asleep and world.captured != world.committed:
                wrong.append(world)
        waiting += [*found, *clock(world)]
    return ends, wrong


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_no_commit_is_missed(program: tuple[str, ...]) -> None:
    """When the writer is done, one look wakes the database or it has every commit."""
    ends, wrong = missed(program)
    assert ends > 10
    assert wrong == []


@pytest.mark.parametrize("part", ["under_lock", "settle"])
def test_every_part_of_the_protocol_is_needed(part: str) -> None:
    """The model sees what it is for: without the lock, or the wait, commits are missed."""
    assert any(missed(program, **{part: False})[1] for program in PROGRAMS.values())


def test_a_database_is_parked_at_all() -> None:
    """With a writer that is done the parker gets through, though its close copies nothing."""
    world = World()
    for _ in COMMIT:
        moved = writer(world, COMMIT)
        assert moved is not None
        world = moved
    world = replace(world, now=world.now + LONG).checkpointed()
    world = replace(world, now=world.now + LONG, writer_open=False)
    while (moved := parker(world)) is not None:
        world = moved
    assert world.parked is not None and world.captured == 1
    assert not world.is_wal
