"""Jobs on many replicas: results as values, nothing that one does stops the others."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from support.fleets import (
    MEMBERS,
    damage,
    deadly,
    image,
    members,
    plant,
)
from support.lifetime import await_true
from support.recording import START

from sqlitereplica import (
    ConfigError,
    Encryption,
    EncryptionError,
    NotRestorableError,
    Replica,
    StoreError,
    TargetExistsError,
)
from sqlitereplica.fleet import (
    JobLostError,
    Outcome,
    find_replicas,
    restore_all,
    verify_all,
)


@pytest.fixture(params=["ours", "threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor | None]:
    """Our own, one of threads, one of processes that are spawned."""
    if request.param == "ours":
        yield None
    elif request.param == "threads":
        with ThreadPoolExecutor(2) as pool:
            yield pool
    else:
        with processes() as pool:
            yield pool


def processes(count: int = 2) -> ProcessPoolExecutor:
    """Processes that share nothing with this one."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


def by_name(outcomes: Iterator[Outcome[Any]]) -> dict[str, Outcome[Any]]:
    """What became of each replica."""
    found = {Path(str(o.replica.display_name)).name: o for o in outcomes}
    return dict(sorted(found.items()))


@pytest.mark.timeout(120)
def test_bad_replicas_among_many_are_told_and_stop_nobody(
    executor: Executor | None, tmp_path: Path
) -> None:
    """Damaged, empty, with the wrong key: each is a value, wherever it is found out."""
    good = members(tmp_path)
    damage(tmp_path / "db-2")
    sealed = Encryption(key=Encryption.new_key())
    plant(Replica(tmp_path / "sealed", encryption=sealed))
    wrong = Encryption(key=Encryption.new_key())
    replicas = [
        *good,
        Replica(tmp_path / "sealed", encryption=wrong),
        Replica(tmp_path / "none"),
    ]
    found = by_name(verify_all(replicas, executor=executor, window=3))
    assert len(found) == MEMBERS + 2
    assert {n for n, o in found.items() if not o.ok} == {"db-2", "sealed", "none"}
    for name in ("db-0", "db-2"):
        report = found[name].get()
        assert report.files == 5 and report.ok is (name == "db-0")
    assert found["db-2"].get().bad_files[0].min_txid == 3

    into = str(tmp_path / "out" / "{name}.db")
    restored = by_name(restore_all(replicas, into, executor=executor, window=3))
    assert {n for n, o in restored.items() if not o.ok} == {"db-2", "sealed", "none"}
    for name in ("db-0", "db-5"):
        assert (tmp_path / "out" / f"{name}.db").read_bytes() == image()
        assert restored[name].get().path == tmp_path / "out" / f"{name}.db"
    errors = {name: restored[name].error for name in ("sealed", "none")}
    assert isinstance(errors["sealed"], EncryptionError)
    assert errors["sealed"].kind == "wrong-key"
    assert isinstance(errors["none"], NotRestorableError)
    with pytest.raises(NotRestorableError):
        restored["none"].get()


def test_replicas_that_are_found_are_verified(tmp_path: Path) -> None:
    """With the key that the place has, at the level that was asked for."""
    top = Replica(tmp_path, encryption=Encryption(key=Encryption.new_key()))
    members(top, 2)
    outcomes = by_name(verify_all(find_replicas(top), "restore", foreign_keys=False))
    assert [o.get().level for o in outcomes.values()] == ["restore"] * 2
    assert all(o.ok and o.seconds > 0 for o in outcomes.values())


def test_time_is_the_same_for_all(tmp_path: Path) -> None:
    """A relative one counts from the call, and a transaction is one."""
    replicas = members(tmp_path, 2)
    for options in ({"at": START / 1000 + 3.5}, {"txid": 3}):
        into = str(tmp_path / "out" / "{name}")
        found = restore_all(replicas, into, if_exists="replace", **options)
        assert [o.get().txid for o in found] == [3, 3]
    later = restore_all(replicas, str(tmp_path / "l" / "{name}"), at="5 minutes ago")
    assert [o.get().txid for o in later] == [5, 5]


# -- where to -------------------------------------------------------------------------


def test_no_two_replicas_are_restored_to_one_path(tmp_path: Path) -> None:
    """The second is refused, and the first is whole."""
    replicas = [plant(Replica(tmp_path / n / "app")) for n in ("one", "two")]
    outcomes = list(
        restore_all(replicas, str(tmp_path / "out" / "{name}.db"), if_exists="replace")
    )
    assert sorted(o.ok for o in outcomes) == [False, True]
    (bad,) = (o for o in outcomes if not o.ok)
    assert bad.replica == replicas[1] and isinstance(bad.error, TargetExistsError)
    assert (tmp_path / "out" / "app.db").read_bytes() == image()


def test_paths_may_come_from_a_function_or_from_where_replicas_are(
    tmp_path: Path,
) -> None:
    """What follows the place at which they were found."""
    plant(Replica(tmp_path / "in" / "one" / "app"))
    plant(Replica(tmp_path / "in" / "two" / "app"))
    found = list(find_replicas(tmp_path / "in"))
    for outcome in restore_all(found, str(tmp_path / "out" / "{path}.db")):
        outcome.get()
    names = [p.relative_to(tmp_path / "out") for p in tmp_path.glob("out/*/*")]
    assert sorted(map(str, names)) == ["one/app.db", "two/app.db"]
    one = [r for r in found if "one" in r.display_name]
    (outcome,) = restore_all(one, lambda replica: tmp_path / "by-function.db")
    assert outcome.get().path == tmp_path / "by-function.db"


def test_hostile_name_does_not_leave_the_folder(tmp_path: Path) -> None:
    """And a function that fails is the error of that replica."""
    evil = plant(Replica(tmp_path / "in", path="x/../../y"))
    (outcome,) = restore_all([evil], str(tmp_path / "out" / "{path}.db"))
    assert isinstance(outcome.error, ConfigError) and outcome.error.kind == "target"
    (outcome,) = restore_all([evil], lambda replica: {}[replica])
    assert isinstance(outcome.error, KeyError)


def test_arguments_without_sense_are_refused_at_once(tmp_path: Path) -> None:
    """Not once for each replica, and before the first."""
    for call in (
        lambda: verify_all(str(tmp_path)),
        lambda: verify_all(Replica(tmp_path)),
        lambda: verify_all([], callback=None),
        lambda: verify_all([], nonsense=1),
        lambda: restore_all([], "{name}", path="x.db"),
    ):
        with pytest.raises(TypeError):
            call()
    for call in (
        lambda: verify_all([], window=0),
        lambda: verify_all([], threads=0),
        lambda: restore_all([], "{nam}"),
        lambda: restore_all([], "{}"),
    ):
        with pytest.raises(ValueError):
            call()


# -- how many at a time -----------------------------------------------------------------


class Counting(Executor):
    """Does nothing until it is told to, and counts what it was given."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, fn, args))
        return future

    def work(self) -> None:
        """Do the oldest job."""
        future, fn, args = self.waiting.pop(0)
        assert future.set_running_or_notify_cancel()
        future.set_result(fn(*args))


def test_replicas_are_taken_as_places_become_free(tmp_path: Path) -> None:
    """So that very many of them fill no memory, here or in the executor."""
    taken: list[int] = []

    def endless() -> Iterator[Replica]:
        for number in range(100_000):
            taken.append(number)
            yield Replica(tmp_path / f"none-{number}")

    executor = Counting()
    results = verify_all(endless(), "listing", executor=executor, window=3)
    assert taken == []
    thread = threading.Thread(target=next, args=(results,))
    thread.start()
    await_true(lambda: len(executor.waiting) == 3)
    assert len(taken) == 3
    executor.work()
    thread.join()
    for done in range(1, 12):
        executor.work()
        assert next(results).replica.display_name.endswith(f"none-{done}")
        assert len(executor.waiting) == 2 and len(taken) == done + 3
    left = [future for future, *_ in executor.waiting]
    results.close()  # type: ignore[attr-defined]
    assert left and all(future.cancelled() for future in left)


def test_results_come_while_replicas_are_still_looked_for(tmp_path: Path) -> None:
    """And all of them before the failure of the one who looks."""
    replicas = members(tmp_path, 3)
    executor = Counting()

    def slow() -> Iterator[Replica]:
        yield replicas[0]
        executor.work()
        yield replicas[1]
        executor.work()
        yield replicas[2]
        raise StoreError("the listing broke off", operation="list")

    results = verify_all(slow(), executor=executor)
    assert [next(results).replica for _ in range(2)] == replicas[:2]
    executor.work()
    assert next(results).replica == replicas[2]
    with pytest.raises(StoreError, match="broke off"):
        next(results)


def test_nothing_of_ours_is_left_when_the_iteration_ends_early(tmp_path: Path) -> None:
    """Threads have ended when ``close`` returns."""
    results = verify_all(members(tmp_path), "listing", threads=2)
    assert next(results).ok
    results.close()  # type: ignore[attr-defined]
    names = [t.name for t in threading.enumerate()]
    assert not [name for name in names if name.startswith("sqlitereplica-fleet")]


# -- executors that fail ----------------------------------------------------------------


@pytest.mark.timeout(120)
def test_killed_process_loses_its_replica_and_is_told(tmp_path: Path) -> None:
    """A pool of the standard library is of no use afterwards: all are told, none waits."""
    good = members(tmp_path)
    fatal = Replica(tmp_path / "db-0", credentials=deadly)
    with processes(1) as pool:
        assert next(verify_all(good[:1], executor=pool)).ok
        outcomes = list(verify_all([fatal, *good], executor=pool, window=2))
    assert len(outcomes) == MEMBERS + 1
    errors = [o.error for o in outcomes]
    assert all(isinstance(error, JobLostError) for error in errors)
    kinds = [error.kind for error in errors if isinstance(error, JobLostError)]
    assert kinds[0] == "lost" and kinds[-1] == "not-started"
    assert all(isinstance(error.__cause__, BrokenProcessPool) for error in errors)  # type: ignore[union-attr]
    assert by_name(verify_all(good)).keys() == {f"db-{n}" for n in range(MEMBERS)}


def test_executor_that_takes_nothing_is_told(tmp_path: Path) -> None:
    """As a value for each replica, and not by ending the iteration."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    outcomes = list(verify_all(members(tmp_path, 2), executor=pool))
    assert [getattr(o.error, "kind", "") for o in outcomes] == ["not-started"] * 2


@pytest.mark.timeout(120)
def test_what_cannot_be_carried_to_a_process_is_told(tmp_path: Path) -> None:
    """A function without a name, for one; the others go on."""
    good = members(tmp_path, 2)

    def nameless() -> dict[str, Any]:
        return {}

    bound = Replica(tmp_path / "db-0", credentials=nameless)
    with processes(1) as pool:
        outcomes = list(verify_all([bound, *good], executor=pool))
    assert sorted(o.ok for o in outcomes) == [False, True, True]
    (bad,) = (o for o in outcomes if not o.ok)
    assert isinstance(bad.error, JobLostError) and bad.error.kind == "lost"


# -- values -----------------------------------------------------------------------------


def test_outcomes_are_values(tmp_path: Path) -> None:
    """They can be pickled, and say themselves in one line of JSON."""
    replicas = [*members(tmp_path, 1), Replica(tmp_path / "none")]
    outcomes = list(restore_all(replicas, str(tmp_path / "out" / "{name}.db")))
    outcomes += list(verify_all(replicas[:1]))
    again = pickle.loads(pickle.dumps(outcomes))
    assert [o.result for o in again] == [o.result for o in outcomes]
    lines = [o.to_json() for o in outcomes]
    assert not any(b"\n" in line for line in lines)
    shown = {frozenset(json.loads(line)) for line in lines}
    fields = {"replica", "ok", "seconds"}
    assert shown == {frozenset({*fields, "result"}), frozenset({*fields, "error"})}
    errors = [json.loads(line)["error"] for line in lines if b'"error"' in line]
    assert [(e["type"], e["kind"]) for e in errors] == [("NotRestorableError", "empty")]


def test_secrets_are_in_no_outcome(tmp_path: Path) -> None:
    """Nor in the job that is carried away, as it is shown."""
    from sqlitereplica.fleet.running import Job
    from sqlitereplica.restore import verify

    secret = "Tr0ub4dor"
    options = {"key": "user", "secret": secret, "endpoint_url": "http://127.0.0.1:9"}
    options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}  # type: ignore[assignment]
    key = Encryption.new_key()
    replica = Replica(
        "s3://bucket/app", storage_options=options, encryption=Encryption(key=key)
    )
    job = Job(verify, replica, {"level": "listing"})
    (outcome,) = verify_all([replica], "listing")
    assert isinstance(outcome.error, StoreError)
    shown = f"{job!r} {outcome!r} {outcome.to_json()!r} {outcome.error.__cause__!r}"
    assert "s3://bucket/app" in shown
    assert secret not in shown and key not in shown
