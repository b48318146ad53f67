"""Storage that fails, lies and forgets, under a Replicator that is stepped by hand."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.capturing import make_database, serialized
from support.faulty import ROOT, FaultyDatabase
from support.stepping import Stepped

from sqlitereplica import restore
from sqlitereplica.errors import (
    AnotherWriterError,
    NotRestorableError,
    SQLiteReplicaError,
    StoreError,
)
from sqlitereplica.ltx import HEADER_SIZE
from sqlitereplica.store import LTXStore
from sqlitereplica.testing import Fault, Operation, Plan, at, only, since

MakeDatabase = Callable[..., FaultyDatabase]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeDatabase]:
    """Makes databases that are closed at the end."""
    made: list[FaultyDatabase] = []

    def make_one(**options: Any) -> FaultyDatabase:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(FaultyDatabase(folder, **options))
        return made[-1]

    yield make_one
    for database in made:
        database.close()


def live(database: FaultyDatabase) -> list[bool]:
    """A life with all that there is: a first copy, increments, restarts, lost metadata.

    Returns which of the syncs succeeded.
    """
    acknowledged = []
    for restart in (None, None, False, False, True):
        if restart is not None:
            database.write()
            database.restart(forget=restart)
        database.write()
        acknowledged.append(database.acknowledge())
    return acknowledged


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("plan", [at, since])
def test_every_operation_fails(
    make: MakeDatabase, plan: Callable[[int, Fault], Plan], fault: Fault
) -> None:
    """T22, T23: the first operation fails, then the second one, until none is left.

    Either one fails, or all from there on; before it was done, or after. Whatever was
    acknowledged is there; when the storage is well again the replica catches up.
    """
    for number in count(1):
        database = make()
        database.fs.plan = plan(number, fault)
        acknowledged = live(database)
        reached = database.fs.count >= number
        assert reached or all(acknowledged)
        database.heal()
        database.close()
        if not reached:
            break
    assert number > 20


@pytest.mark.slow
def test_faults_during_recovery_from_faults(make: MakeDatabase) -> None:
    """Several at once, chosen by a seed; ``FAULT_SEEDS=100-200`` tries those."""
    first, last = os.environ.get("FAULT_SEEDS", "1-20").split("-")
    for seed in range(int(first), int(last) + 1):
        rng = random.Random(seed)
        chosen = {
            rng.randrange(1, 45): rng.choice([Fault.BEFORE, Fault.AFTER])
            for _ in range(rng.randrange(2, 12))
        }
        database = make(attempts=rng.choice([1, 1, 3]), node_id=rng.choice([0, 7]))
        database.fs.plan = lambda operation, chosen=chosen: chosen.get(operation.number)
        try:
            live(database)
            database.heal()
        except BaseException as error:
            error.add_note(f"FAULT_SEEDS={seed}-{seed}")
            raise
        database.close()


def nth(kind: str, number: int, fault: Fault) -> Plan:
    """Let one operation of a kind fail, counted from now on."""
    seen = count(1)

    def plan(operation: Operation) -> Fault | None:
        return fault if operation.kind == kind and next(seen) == number else None

    return plan


WRONG = [Fault.SHORT, Fault.EMPTY, Fault.FLIPPED, Fault.OTHER]


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("forget", [False, True])
def test_wrong_bytes_at_a_start(make: MakeDatabase, fault: Fault, forget: bool) -> None:
    """T24: whatever is read of a replica to go on from it, what follows is right.

    Its newest header is read, and without metadata all of its files.
    """
    database = make()
    for number in count(1):
        for _ in range(2):
            database.write()
            assert database.acknowledge()
        database.write()
        database.restart(forget=forget, plan=nth("read", number, fault))
        database.acknowledge()
        reached = any(record.fault for record in database.fs.log)
        database.fs.log.clear()
        database.heal()
        if not reached:
            break
        if number == 8:
            break
    assert number > 1


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_bytes_at_a_restore(make: MakeDatabase, fault: Fault) -> None:
    """T24: a restore is right, or an error of ours; it leaves nothing behind."""
    database = make()
    for _ in range(5):
        database.write()
        assert database.acknowledge()
    right = database.restored()
    for number in count(1):
        database.fs.plan = nth("read", number, fault)
        database.fs.log.clear()
        try:
            assert database.restored(database.open()) == right
        except SQLiteReplicaError:
            assert not list(database.folder.glob("*restored*"))
        if not any(record.fault for record in database.fs.log):
            break
    assert number > 5


def test_any_wrong_bit_in_the_newest_header_at_a_start(make: MakeDatabase) -> None:
    """T24: a header has no checksum of its own; what is made of it is right all the same."""
    database = make()
    database.write()
    assert database.acknowledge()
    real, flips = database.real.cat_file, []

    def cat_file(path: str, start: int = 0, end: int | None = None) -> bytes:
        data = real(path, start=start, end=end)
        if not flips or start:
            return data
        byte, bit = divmod(flips.pop(), 8)
        return data[:byte] + bytes([data[byte] ^ (1 << bit)]) + data[byte + 1 :]

    database.real.cat_file = cat_file
    for bit in range(0, 8 * HEADER_SIZE, 5):
        database.write(1)
        database.stepped.kill()
        flips.append(bit)
        database.stepped.begin()
        assert database.acknowledge(), bit
        assert not flips
    database.check()
    times = [f.timestamp for f in database.behind().list_all(accurate=True)]
    assert max(times) <= database.stepped.clock.now_ms()


@pytest.mark.parametrize("forget", [False, True])
def test_newest_file_that_is_a_copy_of_another(
    make: MakeDatabase, forget: bool
) -> None:
    """T24: a valid file under the wrong name does not say where the replica stands."""
    database = make()
    for _ in range(3):
        database.write()
        assert database.acknowledge()
    before, newest = database.behind().list_level(0)[-2:]
    folder = f"{ROOT}/ltx/0"
    data = database.real.cat_file(f"{folder}/{before.name}")
    database.real.pipe_file(f"{folder}/{newest.name}", data)
    database.write()
    database.restart(forget=forget)
    database.stepped.clock.advance(1)
    assert database.stepped.durable()
    assert database.restored() == serialized(database.path)


LIES = [
    Fault.OMITTED,
    Fault.EMPTY,
    Fault.DUPLICATED,
    Fault.REVERSED,
    Fault.FOREIGN,
    Fault.AFTER,
]


@pytest.mark.parametrize("fault", LIES)
@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("node_id", [0, 77])
def test_lying_list_at_a_start(
    make: MakeDatabase, fault: Fault, forget: bool, node_id: int
) -> None:
    """T28: a file that a list leaves out is never overwritten.

    Whoever has put it (without a node id nobody knows) the end is an error that says that
    there is another writer, or the right state; what was there still restores.
    """
    database = make(node_id=node_id)
    for _ in range(3):
        database.write()
        assert database.acknowledge()
    before = database.image()
    database.write()
    # One listing of the replica is two operations, unless the first is empty.
    times = 1 if fault is Fault.EMPTY else 2
    database.restart(forget=forget, plan=only("list", fault, times=times))
    for _ in range(5):
        if database.acknowledge():
            break
        database.stepped.clock.advance(100)
    if isinstance(database.error, AnotherWriterError):
        assert fault in (Fault.OMITTED, Fault.EMPTY) and not node_id
        assert not database.fs.overwritten
        assert database.image() == before == database.restored()
        database.restart()
    database.heal()


@pytest.mark.parametrize("fault", LIES)
def test_lying_list_at_a_restore(make: MakeDatabase, fault: Fault) -> None:
    """T28: a restore makes a state that was, or says that there is none."""
    database = make()
    states = []
    for _ in range(3):
        database.write()
        assert database.acknowledge()
        states.append(database.image())
    database.fs.plan = only("list", fault)
    try:
        assert database.restored(database.open()) in states
    except (NotRestorableError, StoreError):
        assert fault in (Fault.EMPTY, Fault.AFTER)
    if fault not in (Fault.OMITTED, Fault.EMPTY, Fault.AFTER):
        assert database.restored(database.open()) == states[-1]


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("forget", [False, True])
def test_killed_with_a_put_in_doubt(
    make: MakeDatabase, fault: Fault, attempts: int, forget: bool
) -> None:
    """T23: whether the last put of a life was done or not, the next one goes on from it."""
    database = make(attempts=attempts)
    for writes in (0, 1, 0, 1):
        database.write()
        database.fs.plan = only("write", fault)
        done = database.acknowledge()
        # When it was done, a second attempt meets it and finds its own bytes.
        assert done == (fault is Fault.AFTER and attempts > 1)
        for _ in range(writes):
            database.write()
        database.restart(forget=forget)
        database.heal()


def test_storage_that_tears_what_it_writes(make: MakeDatabase) -> None:
    """On file servers a torn upload never gets the name, so the next one does."""
    database = make(protocol="sftp")
    for number in count(1):
        database.write()
        database.fs.plan = nth("write", number, Fault.TORN)
        acknowledged = database.acknowledge()
        database.heal()
        if acknowledged:
            break


def test_nothing_is_asked_of_storage_while_nothing_happens(make: MakeDatabase) -> None:
    """T40, I17: sixty minutes of nothing: no operation, no write to the source."""
    database = make()
    database.write()
    assert database.acknowledge()
    database.stepped.clock.advance(60)
    database.stepped.run()
    source = [database.path.with_name(f"a.db{end}") for end in ("", "-wal")]
    before = database.fs.count, [(p.read_bytes(), p.stat().st_mtime_ns) for p in source]
    for _ in range(3600):
        database.stepped.clock.advance(1)
        database.stepped.step()
    after = database.fs.count, [(p.read_bytes(), p.stat().st_mtime_ns) for p in source]
    assert after == before


def test_upload_that_cannot_be_brought_to_disk_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose fsync failed once is not trusted again, whatever fsync says then."""
    path, replica = tmp_path / "a.db", tmp_path / "replica"
    db = make_database(path)
    for _ in range(6):
        db.execute("insert into t(v) values(randomblob(1000000))")
    seen: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        if "/delta-" in os.readlink(f"/proc/self/fd/{fd}"):
            inode = os.fstat(fd).st_ino
            assert seen.count(inode) < 2, "fsynced once more"
            seen.append(inode)
            if len(seen) == 1:
                kept.append(os.dup(fd))  # no other file shall get its number
            if seen == [inode, inode]:
                # The first time it was being written; now the store wants it on disk.
                raise OSError(errno.EIO, "injected")
        real(fd)

    kept: list[int] = []
    monkeypatch.setattr(os, "fsync", fsync)
    stepped = Stepped(path, [lambda: LTXStore.open(replica, sleep=lambda _: None)])
    ticket = stepped.sync()
    assert len(seen) == 2 and not ticket.future.done()
    stepped.clock.advance(100)
    stepped.run()
    assert len(set(seen)) == 2
    assert ticket.future.result(0) is None
    monkeypatch.undo()
    restore(replica, tmp_path / "restored.db")
    assert (tmp_path / "restored.db").read_bytes() == serialized(path)
    stepped.engine.close()
    db.close()
    os.close(kept[0])
