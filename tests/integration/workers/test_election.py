"""Many processes, one Replicator each: one replicates, all may ask."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.lifetime import restored
from support.workers import Refused, WorkerProcess, elected_of, until

from sqlitereplica import Replica, Replicator, SyncTimeoutError

PAGES = 2000


@pytest.fixture(autouse=True)
def database(path: Path) -> None:
    """A database that nobody has open, large enough to tell a snapshot from a delta."""
    db = make_database(path)
    db.execute("insert into t(v) values(randomblob(?))", (PAGES * 4096,))
    db.close()


@pytest.fixture
def workers(path: Path, replica: Path) -> Iterator[list[WorkerProcess]]:
    """Three that have started."""
    with ExitStack() as stack:
        found = [stack.enter_context(WorkerProcess(path, [replica])) for _ in range(3)]
        for worker in found:
            worker.begin("start")
        for worker in found:
            worker.end()
        yield found


def sizes(replica: Path) -> dict[str, int]:
    """Every file of the replica and its size."""
    return {
        str(p.relative_to(replica)): p.stat().st_size for p in replica.rglob("*.ltx")
    }


def test_one_is_elected_and_answers_for_all(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """Each may write and sync; what is confirmed to whomever is in the replica."""
    elected = elected_of(workers)
    for worker in (*workers, *workers):
        worker("write")
        worker("sync")
        assert restored(replica) == serialized(path)
    for worker in workers:
        status = worker("status")
        assert (status["state"], status["pid"]) == ("running", elected.pid)
        assert status["replicas"][0]["state"] == "streaming"


def test_position_of_one_process_is_waited_for_in_another(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """Whoever took it, whoever waits; also when the elected one is killed in between."""
    for taker, waiter in zip(workers, [*workers[1:], workers[0]], strict=True):
        taker("write")
        waiter("wait", taker("position"))
        assert restored(replica) == serialized(path)
    elected = elected_of(workers)
    others = [worker for worker in workers if worker is not elected]
    others[0]("write")
    position = others[0]("position")
    elected.kill()
    others[1]("wait", position)
    assert restored(replica) == serialized(path)
    with pytest.raises(Refused) as caught:
        others[0]("wait", "1-1-1")
    assert caught.value.answer["error"] == "PosMismatchError"


def test_every_call_works_in_every_process(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """Pin, snapshot and compaction; errors arrive as what they are."""
    for number, worker in enumerate(workers):
        worker("write")
        ((name, txid),) = worker("pin", f"p{number}")
        assert (name, txid) == (f"p{number}", worker("status")["txid"])
        worker("snapshot")
        worker("compact")
        worker("write")
        with pytest.raises(Refused) as caught:
            worker("pin", "p0")
        answer = caught.value.answer
        assert (answer["error"], answer["kind"]) == ("PinExistsError", "pin-exists")
        assert answer["data"]["name"] == "p0" and int(answer["data"]["txid"]) > 0
    assert [p.name for p in Replica(replica).pins()] == ["p0", "p1", "p2"]
    assert {f.level for f in Replica(replica).open().list_all()} == {0, 9}


def test_killed_one_is_followed_by_another_that_continues_the_chain(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """By a delta, not by a snapshot; twice, until the last one is alone."""
    workers[0]("sync")
    left = list(workers)
    while len(left) > 1:
        elected = elected_of(left)
        before = sizes(replica)
        left.remove(elected)
        left[0]("write", 3)
        elected.kill()
        left[-1]("write", 3)
        left[-1]("sync")
        assert restored(replica) == serialized(path)
        assert elected_of(left) is not elected
        new = {name: n for name, n in sizes(replica).items() if name not in before}
        assert len(new) >= 1
        assert sum(new.values()) < 100_000 < PAGES * 4096
    assert not list(replica.rglob("ltx/9/*"))


def test_sync_that_was_asked_of_a_killed_process_is_asked_again(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """The elected one stands still while it is asked, then it is gone."""
    elected = elected_of(workers)
    first, second = (w for w in workers if w is not elected)
    elected.kill(signal.SIGSTOP)
    for worker in (first, second):
        worker("write", 5)
        worker.begin("sync")
    time.sleep(0.2)
    elected.kill()
    first.end()
    second.end()
    assert restored(replica) == serialized(path)


def test_last_one_does_itself_what_it_had_asked_of_another(
    path: Path, replica: Path
) -> None:
    """Its sync returns when its own upload is done, not when it is elected."""
    with ExitStack() as stack:
        pair = [stack.enter_context(WorkerProcess(path, [replica])) for _ in "12"]
        for worker in pair:
            worker("start")
        elected = elected_of(pair)
        last = next(w for w in pair if w is not elected)
        elected("sync")
        elected.kill(signal.SIGSTOP)
        last("write", 5)
        last.begin("sync")
        time.sleep(0.2)
        elected.kill()
        last.end()
        assert restored(replica) == serialized(path)


def test_lease_of_a_killed_process_is_its_host_s(path: Path, replica: Path) -> None:
    """Another process of the host goes on with it, and does not wait until it expires."""
    with ExitStack() as stack:
        made = [WorkerProcess(path, [replica], lease="1h") for _ in "12"]
        pair = [stack.enter_context(worker) for worker in made]
        for worker in pair:
            worker("start")
        elected = elected_of(pair)
        last = next(w for w in pair if w is not elected)
        last("write")
        last("sync")
        elected.kill()
        last("write")
        last("sync")
        assert restored(replica) == serialized(path)


def test_process_that_stands_still_is_not_followed(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """It has the lock: sync times out typed, the status says why, and all goes on later."""
    elected = elected_of(workers)
    other = next(w for w in workers if w is not elected)
    elected.kill(signal.SIGSTOP)
    with pytest.raises(Refused) as caught:
        other("sync", 0.5)
    assert caught.value.answer["error"] == "SyncTimeoutError"
    assert f"process {elected.pid}" in caught.value.answer["message"]
    assert other("status")["state"] == "electing"
    elected.kill(signal.SIGCONT)
    other("write")
    other("sync")
    assert restored(replica) == serialized(path)
    assert elected_of(workers) is elected


def test_stopping_hands_over(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """Each leaves in turn, politely or by ending; all that they committed is durable."""
    elected = elected_of(workers)
    others = [w for w in workers if w is not elected]
    elected("stop")
    assert elected("status")["state"] == "stopped"
    next_one = elected_of(others)
    last = next(w for w in others if w is not next_one)
    next_one("write")
    assert next_one.leave() == 0
    last("write", 2)
    assert last.leave() == 0
    assert restored(replica) == serialized(path)


def test_all_leave_at_once(
    workers: list[WorkerProcess], path: Path, replica: Path
) -> None:
    """Whoever ends last, and whatever it committed then, it is durable."""
    for worker in workers:
        worker.begin("write", 10)
    codes = [worker.leave() for worker in workers]
    assert codes == [0, 0, 0]
    assert restored(replica) == serialized(path)


def test_other_replicas_are_refused_until_it_is_their_turn(
    path: Path, replica: Path, tmp_path: Path
) -> None:
    """An answer about replicas that one did not name would promise what is not so."""
    with (
        WorkerProcess(path, [replica]) as one,
        WorkerProcess(path, [tmp_path / "other"]) as other,
    ):
        one("start")
        other("start")
        with pytest.raises(Refused) as caught:
            other("sync")
        assert caught.value.answer["error"] == "DatabaseStateError"
        assert caught.value.answer["kind"] == "elsewhere"
        assert str(one.pid) in caught.value.answer["message"]
        assert other("status")["state"] == "electing"
        one.kill()
        until(lambda: other("status")["pid"] == other.pid)
        other("sync")
    assert restored(tmp_path / "other") == serialized(path)


def test_socket_is_private_and_in_the_folder(path: Path, replica: Path) -> None:
    """Mode 0600, gone after stop; a path that is too long for a socket is no matter."""
    deep = path.parent.joinpath(*["d" * 60] * 3)
    with Replicator(path, replica, meta_path=deep) as replicator:
        replicator.sync()
        mode = os.lstat(deep / "socket").st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert not (deep / "socket").exists()


def test_peer_times_out_when_nobody_can_replicate(
    path: Path, replica: Path, tmp_path: Path
) -> None:
    """The lock is held by a process without a desk: the error says that nobody answers."""
    import fcntl

    folder = tmp_path / "meta"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        replicator = Replicator(path, replica, meta_path=folder)
        replicator.start()
        try:
            with pytest.raises(SyncTimeoutError) as caught:
                replicator.sync(0.1)
            assert caught.value.pending == (str(replica),)
            assert "no process" in str(caught.value)
            assert replicator.status().state == "electing"
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            replicator.stop()
    assert restored(replica) == serialized(path)
