"""Two hosts and one replica: who may write, and where one ends and the other begins."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.leased import TTL, LeasedHost
from support.stepping import FakeClock
from support.told import LateStore, level0

from sqlitereplica import restore, verify
from sqlitereplica.errors import AnotherWriterError, DivergedError, LeaseLostError
from sqlitereplica.ltx import Header
from sqlitereplica.replicate.anyworker import Phase
from sqlitereplica.store import LTXStore

MakeHost = Callable[..., LeasedHost]


@pytest.fixture
def clock() -> FakeClock:
    """The time of both hosts."""
    return FakeClock()


@pytest.fixture
def host(tmp_path: Path, clock: FakeClock) -> Iterator[MakeHost]:
    """Makes hosts with stores of their own on one replica."""
    made: list[LeasedHost] = []

    def make(name: str, **options: object) -> LeasedHost:
        found = LeasedHost(
            tmp_path / name,
            LateStore.open(tmp_path / "replica"),
            clock,
            node=100 + len(made),
            **options,  # type: ignore[arg-type]
        )
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


@pytest.fixture
def one(host: MakeHost) -> LeasedHost:
    """A host that holds the lease and replicates two transactions."""
    found = host("one")
    found.make()
    assert found.contend()
    found.replicate()
    found.commit(1)
    assert found.sync() is None
    return found


def values(store: LTXStore, folder: Path) -> list[int]:
    """What the newest state of the replica has."""
    target = folder / "restored.db"
    restore(store, target, if_exists="replace")
    connection = sqlite3.connect(target)
    try:
        return [v for (v,) in connection.execute("select v from t order by id")]
    finally:
        connection.close()


def headers(store: LTXStore) -> list[Header]:
    """Of the level-0 files."""
    return [Header.unpack(store.get(info, 0, 100)) for info in level0(store)]


def commit_late(one: LeasedHost, value: int) -> None:
    """A commit whose put stays on its way until the store is told to ``arrive``."""
    one.store.delays = True  # type: ignore[attr-defined]
    one.commit(value)
    assert one.sync() == "waits"


def take_over(two: LeasedHost, clock: FakeClock) -> None:
    """Wait for the TTL and bring the database to the newest state."""
    assert not two.contend()
    clock.advance(TTL)
    assert two.contend()
    two.restore()


def test_second_host_waits_while_the_first_renews(
    one: LeasedHost, host: MakeHost, clock: FakeClock
) -> None:
    """However long: nothing of it gets to the replica."""
    two = host("two")
    for _ in range(20):
        clock.advance(TTL / 4)
        assert one.contend()
        assert not two.contend()
    assert two.leasing.status().state == "waiting"
    holder = two.leasing.status().holder
    assert holder is not None and holder.startswith("one:")
    two.restore()
    stepped = two.replicate()
    assert stepped.workers[0].phase is Phase.CONNECT
    assert len(level0(one.store)) == 2


def test_who_takes_over_puts_a_fence_before_anything_else(
    one: LeasedHost, host: MakeHost, clock: FakeClock, tmp_path: Path
) -> None:
    """A file that changes nothing: the next name of the old one is taken."""
    two = host("two")
    take_over(two, clock)
    assert not two.leasing.entry.done()
    two.replicate()
    assert two.leasing.entry.result(0) is None
    found = headers(one.store)
    assert [h.max_txid for h in found] == [1, 2, 3]
    assert found[2].node_id == two.node
    assert found[2].pre_checksum == found[2].post_checksum == found[1].post_checksum
    assert values(one.store, tmp_path) == [1]
    assert two.leasing.status().epoch == 2


def test_old_holder_fails_at_its_next_put_and_says_so_in_sync(
    one: LeasedHost, host: MakeHost, clock: FakeClock, tmp_path: Path
) -> None:
    """Its clock stood still, so it believes that it holds the lease: the name is taken."""
    two = host("two")
    stood = one.clock = one.leasing._clock = FakeClock()
    stood.seconds = clock.seconds
    assert one.leasing.is_open()
    take_over(two, clock)
    two.replicate()
    assert one.leasing.is_open()
    one.commit(666)
    error = one.sync()
    assert isinstance(error, LeaseLostError) and error.kind == "lease-lost"
    assert isinstance(error.__cause__, AnotherWriterError)
    two.commit(2)
    assert two.sync() is None
    assert isinstance(one.sync(), LeaseLostError)
    assert values(one.store, tmp_path) == [1, 2]
    verify(one.store).raise_for_problems()


def test_holder_that_finds_another_is_told_without_a_put(
    one: LeasedHost, host: MakeHost, clock: FakeClock
) -> None:
    """It was stopped for longer than the TTL; who it is is in the error."""
    two = host("two")
    take_over(two, clock)
    two.replicate()
    before = one.store.requests["put"]
    assert not one.contend()
    assert one.leasing.status().state == "lost"
    one.commit(666)
    error = one.sync()
    assert isinstance(error, LeaseLostError)
    assert error.holder.startswith("two:") and error.epoch == 2
    assert one.store.requests["put"] == before


def test_late_put_that_is_there_before_the_fence_is_gone_on_from(
    one: LeasedHost, host: MakeHost, clock: FakeClock, tmp_path: Path
) -> None:
    """It came after the database was brought up: so that is not the newest state now."""
    commit_late(one, 2)
    two = host("two")
    take_over(two, clock)
    one.store.arrive()  # type: ignore[attr-defined]
    two.replicate()
    error = two.leasing.entry.exception(0)
    assert isinstance(error, DivergedError) and error.txid == 3
    two.close()
    two.begin()
    assert two.contend()
    two.restore()
    two.replicate()
    assert two.leasing.entry.result(0) is None
    assert values(one.store, tmp_path) == [1, 2]
    assert [h.node_id for h in headers(one.store)] == [one.node] * 3 + [two.node]


def test_late_put_that_takes_the_name_of_the_fence_makes_it_look_again(
    one: LeasedHost, host: MakeHost, clock: FakeClock
) -> None:
    """It arrived between the listing and the fence: nothing is acknowledged on top of it."""
    commit_late(one, 2)
    two = host("two")
    take_over(two, clock)
    real = two.store.put

    def put(*arguments: object, **options: object) -> object:
        two.store.put = real  # type: ignore[method-assign]
        one.store.arrive()  # type: ignore[attr-defined]
        return real(*arguments, **options)  # type: ignore[arg-type]

    two.store.put = put  # type: ignore[method-assign, assignment]
    stepped = two.replicate()
    clock.advance(1)
    two.contend()
    stepped.run()
    assert isinstance(two.leasing.entry.exception(0), DivergedError)
    assert [h.node_id for h in headers(one.store)] == [one.node] * 3


def test_late_put_after_the_fence_is_refused(
    one: LeasedHost, host: MakeHost, clock: FakeClock, tmp_path: Path
) -> None:
    """By the store itself: the name is taken."""
    commit_late(one, 2)
    two = host("two")
    take_over(two, clock)
    two.replicate()
    with pytest.raises(AnotherWriterError):
        one.store.arrive()  # type: ignore[attr-defined]
    assert values(one.store, tmp_path) == [1]


def test_database_that_is_not_the_newest_state_does_not_undo_it(
    one: LeasedHost, host: MakeHost, clock: FakeClock, tmp_path: Path
) -> None:
    """What the other host acknowledged is in the replica, so nothing is put."""
    two = host("two")
    two.restore()
    one.commit(2)
    assert one.sync() is None
    assert not two.contend()
    clock.advance(TTL)
    assert two.contend()
    two.commit(666)
    two.replicate()
    error = two.leasing.entry.exception(0)
    assert isinstance(error, DivergedError) and error.kind == "diverged"
    assert isinstance(two.sync(), DivergedError)
    assert values(one.store, tmp_path) == [1, 2]
    assert len(level0(one.store)) == 3


def test_own_restart_goes_on_by_a_delta_at_once(
    one: LeasedHost, clock: FakeClock, tmp_path: Path
) -> None:
    """Killed with commits that were not shipped: no wait, no fence, nothing lost."""
    one.commit(2)
    one.close()
    one.begin()
    assert one.contend()
    one.replicate()
    assert one.sync() is None
    assert values(one.store, tmp_path) == [1, 2]
    assert len(level0(one.store)) == 3
    assert one.leasing.status().epoch == 2


def test_return_to_a_host_whose_fence_was_never_followed_by_another(
    one: LeasedHost, host: MakeHost, clock: FakeClock, tmp_path: Path
) -> None:
    """Another held the lease and wrote nothing: what is here is the truth, and is fenced."""
    two = host("two")
    one.commit(2)
    one.close()
    assert not two.contend()
    clock.advance(TTL)
    assert two.contend()
    one.begin()
    assert not one.contend()
    clock.advance(TTL)
    assert one.contend()
    one.replicate()
    assert one.leasing.entry.result(0) is None
    assert values(one.store, tmp_path) == [1, 2]


def test_holder_that_cannot_renew_stops_and_goes_on_when_it_can(
    one: LeasedHost, clock: FakeClock, tmp_path: Path
) -> None:
    """Nothing is uploaded meanwhile, since another may have taken over."""
    clock.advance(0.7 * TTL)
    before = one.store.requests["put"]
    one.commit(2)
    assert one.sync() == "waits"
    assert one.store.requests["put"] == before
    assert one.leasing.status().state == "unconfirmed"
    assert one.stepped is not None
    assert one.stepped.workers[0].health.error is not None
    assert one.contend()
    assert one.sync() is None
    assert values(one.store, tmp_path) == [1, 2]
    assert one.leasing.status().epoch == 1


def test_put_that_took_longer_than_the_lease_is_not_confirmed(
    one: LeasedHost, clock: FakeClock
) -> None:
    """It is in the replica, but another host may not know of it: ask the lease first."""
    real = one.store.put

    def put(*arguments: object, **options: object) -> object:
        info = real(*arguments, **options)  # type: ignore[arg-type]
        clock.advance(TTL)
        return info

    one.store.put = put  # type: ignore[method-assign, assignment]
    one.commit(2)
    assert one.sync() == "waits"
    assert len(level0(one.store)) == 3
    one.store.put = real  # type: ignore[method-assign]
    assert one.contend()
    assert one.sync() is None
    assert len(level0(one.store)) == 3


def test_released_lease_is_taken_over_at_once_without_loss(
    one: LeasedHost, host: MakeHost, tmp_path: Path
) -> None:
    """A deploy: the old one flushes, releases and ends."""
    two = host("two")
    assert not two.contend()
    one.commit(2)
    assert one.sync() is None
    one.close()
    one.leasing.end(0.0)
    one.leasing._run()
    two.clock.advance(TTL / 6)
    assert two.contend()
    two.restore()
    two.replicate()
    two.commit(3)
    assert two.sync() is None
    assert values(two.store, tmp_path) == [1, 2, 3]


def test_other_replicas_go_on_by_a_delta(
    one: LeasedHost, host: MakeHost, clock: FakeClock, tmp_path: Path
) -> None:
    """They may be behind the one that has the lease, so they prove nothing."""
    two = host("two", leads=False)
    take_over(two, clock)
    two.commit(2)
    two.replicate()
    assert two.sync() is None
    assert values(one.store, tmp_path) == [1, 2]


def test_store_without_conditions_is_named_and_replicated_to_all_the_same(
    host: MakeHost, tmp_path: Path
) -> None:
    """Fenced by refusal to overwrite, and nothing else."""
    found = host("one", open_object=lambda: None)
    found.make()
    assert found.contend()
    found.replicate()
    found.commit(1)
    assert found.sync() is None
    assert [(e.action, e.level, e.replica) for e in found.events] == [
        ("lease-unsupported", 30, "replica")
    ]
    assert found.leasing.status().state == "unsupported"
    assert values(found.store, tmp_path) == [1]
