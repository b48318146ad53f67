"""A Follower beside a live Replicator, as an application has it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from support.ledger import StateLog, Writer, connect, digest_of, image_of
from support.ledger_reader import Reader
from support.lifetime import await_true
from support.recording import Recording
from support.servers import S3Server

from sqlitereplica import (
    DatabaseStateError,
    Follower,
    FollowTimeoutError,
    MixedSQLiteCopiesError,
    NotRestorableError,
    PosMismatchError,
    Replica,
    Replicator,
    ReplicatorClosedError,
    Retention,
    StoreError,
    TargetExistsError,
)
from sqlitereplica.events import Event
from sqlitereplica.ltx import Header
from sqlitereplica.store import LTXStore

CHANGES = 250


def source(folder: Path) -> sqlite3.Connection:
    """A small database in WAL mode."""
    db = sqlite3.connect(
        folder / "app.db", isolation_level=None, check_same_thread=False
    )
    db.execute("pragma journal_mode=wal")
    db.execute("create table t(id integer primary key, v)")
    return db


def rows(path: Path) -> int:
    """How many rows a reader sees."""
    with closing(sqlite3.connect(path, timeout=30)) as db:
        (count,) = db.execute("select count(*) from t").fetchone()
        return int(count)


@pytest.mark.slow
def test_every_reader_sees_states_of_the_source_only(tmp_path: Path) -> None:
    """A ledger read all the time by two copies of SQLite, while history is thinned."""
    path, replica, copy = (tmp_path / n for n in ("app.db", "replica", "copy/f.db"))
    rng = random.Random("follow")
    log = StateLog(tmp_path / "log", exact=False)
    with closing(connect(path)) as db:
        db.execute("pragma journal_mode=wal").fetchall()
        writer = Writer(db, log, rng)
        writer.set_up()
        with (
            Replicator(
                path,
                [replica],
                sync_interval=0.02,
                levels=("10ms", "30ms", "90ms"),
                snapshot_interval="300ms",
                retention=Retention(window="150ms", fine="50ms", grace="20ms"),
            ) as replicator,
            Follower(replica, copy, interval=0.02) as follower,
        ):
            replicator.sync(timeout=120)
            follower.wait(timeout=120)
            readers = [Reader(copy, module) for module in ("sqlite3", "apsw")]
            try:
                for number in range(CHANGES):
                    writer.change()
                    if number % 50 == 25:
                        replicator.sync(timeout=120)
                        follower.wait(timeout=120)
                        assert _digest(copy) == log.states()[-1][1]
                replicator.sync(timeout=120)
                status = follower.wait(replicator.status().txid, timeout=120)
                assert status.error is None
                assert _digest(copy) == log.states()[-1][1]
                for states, last in [reader.finish() for reader in readers]:
                    assert states > 0
                    assert last > 0
            finally:
                for reader in readers:
                    reader.kill()
        states = {digest for _, digest in log.states()}
        assert _digest(copy) in states
        if shutil.which("sqlite3"):
            check = ["sqlite3", str(copy), "pragma integrity_check"]
            done = subprocess.run(check, check=True, stdout=subprocess.PIPE)
            assert done.stdout == b"ok\n"


def _digest(path: Path) -> str:
    with closing(connect(path)) as db:
        db.execute("begin")
        return digest_of(image_of(db))


def test_reader_in_the_same_process_keeps_its_locks(tmp_path: Path) -> None:
    """A read transaction here is waited for, and nothing of it changes meanwhile."""
    copy = tmp_path / "f.db"
    with (
        closing(source(tmp_path)) as db,
        Replicator(tmp_path / "app.db", [tmp_path / "r"]) as replicator,
        Follower(tmp_path / "r", copy, interval=0.01) as follower,
    ):
        replicator.sync()
        follower.wait()
        with closing(sqlite3.connect(copy, isolation_level=None)) as reader:
            reader.execute("begin")
            assert reader.execute("select count(*) from t").fetchone() == (0,)
            db.execute("insert into t(v) values('x')")
            replicator.sync()
            with pytest.raises(FollowTimeoutError):
                follower.wait(timeout=0.5)
            for _ in range(20):
                assert reader.execute("select count(*) from t").fetchone() == (0,)
            reader.execute("commit")
            status = follower.wait()
            assert (status.state, status.ok) == ("following", True)
            assert reader.execute("select count(*) from t").fetchone() == (1,)


def test_status_tells_how_it_fares(tmp_path: Path) -> None:
    """Before the first backup, in step, with the replica away, stopped."""
    replica, away, events = tmp_path / "r", tmp_path / "away", list[Event]()
    follower = Follower(
        replica, tmp_path / "f.db", interval=0.01, observer=events.append
    )
    assert follower.status().state == "stopped"
    with follower:
        await_true(lambda: follower.status().error)
        with pytest.raises(FollowTimeoutError) as caught:
            follower.wait(timeout=0.1)
        assert isinstance(caught.value.__cause__, NotRestorableError)
        status = follower.status()
        assert (status.state, status.txid, status.ok) == ("failing", 0, False)
        with closing(source(tmp_path)):
            with Replicator(tmp_path / "app.db", [replica]) as replicator:
                replicator.sync()
                status = follower.wait(1)
        status = follower.wait()
        assert (status.state, status.txid, status.newest_txid) == ("following", 1, 1)
        assert status.ok
        assert status.error is None
        assert status.timestamp is not None and status.last_success is not None
        assert status.lag_seconds is not None
        replica.rename(away)
        await_true(lambda: follower.status().error)
        status = follower.status()
        assert (status.state, status.txid) == ("failing", 1)
        lag = status.lag_seconds
        assert lag is not None
        await_true(lambda: (follower.status().lag_seconds or 0) > lag)
        away.rename(replica)
        assert follower.wait().ok
    assert follower.status().state == "stopped"
    words = [event.action for event in events]
    assert words.count("follow-error") >= 2 and words.count("follow-ok") >= 2
    assert all(event.database == str(tmp_path / "f.db") for event in events)


def test_it_is_used_in_asyncio(tmp_path: Path) -> None:
    """Started, waited for and stopped without blocking the loop; its status is JSON."""
    recorded = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    recorded.commit("create table t(id integer primary key, v)")
    recorded.close()

    async def follow() -> bytes:
        async with Follower(tmp_path / "r", tmp_path / "f.db") as follower:
            status = await follower.wait_async(timeout=120)
            return status.to_json()

    told = json.loads(asyncio.run(follow()))
    assert (told["state"], told["txid"], told["error"]) == ("following", 1, None)
    assert rows(tmp_path / "f.db") == 0


def test_who_waits_need_not_wait_for_a_long_interval(tmp_path: Path) -> None:
    """After a failure it looks again soon, as long as somebody waits."""
    replica, away = tmp_path / "r", tmp_path / "away"
    recorded = Recording(tmp_path / "s.db", LTXStore.open(replica))
    recorded.commit("create table t(id integer primary key, v)")
    recorded.close()
    outcomes: list[bool] = []
    with Follower(replica, tmp_path / "f.db", interval=3600) as follower:
        follower.wait()
        replica.rename(away)
        waiter = threading.Thread(
            target=lambda: outcomes.append(follower.wait(timeout=60).ok)
        )
        waiter.start()
        await_true(lambda: follower.status().error)
        away.rename(replica)
        waiter.join()
    assert outcomes == [True]


def test_replaced_source_is_an_error_and_overwrite_follows_it(tmp_path: Path) -> None:
    """A replica that starts over says so at once, in status and in wait."""
    first, second, copy = tmp_path / "1", tmp_path / "2", tmp_path / "f.db"
    for folder in (first, second):
        folder.mkdir()
        with (
            closing(source(folder)) as db,
            Replicator(folder / "app.db", [folder / "r"]) as replicator,
        ):
            for number in range(3):
                db.execute("insert into t(v) values(?)", (f"{folder.name}{number}",))
                replicator.sync()
    replica = tmp_path / "r"
    shutil.copytree(first / "r", replica)
    with Follower(replica, copy, interval=0.01) as follower:
        follower.wait()
        shutil.rmtree(replica)
        shutil.copytree(second / "r", replica)
        with pytest.raises(PosMismatchError):
            follower.wait()
        await_true(lambda: "overwrite=True" in (follower.status().error or ""))
    with Follower(replica, copy, overwrite=True) as follower:
        assert follower.wait().ok
    with closing(sqlite3.connect(copy)) as db:
        found = db.execute("select v from t").fetchall()
    assert found == [("20",), ("21",), ("22",)]


def test_promoted_file_continues_the_chain(tmp_path: Path) -> None:
    """It is writable in WAL mode; its Replicator uploads what changes and nothing else."""
    replica, copy, calls = tmp_path / "r", tmp_path / "f.db", list[str]()
    with (
        closing(source(tmp_path)) as db,
        Replicator(tmp_path / "app.db", [replica]) as replicator,
    ):
        for _ in range(3):
            db.execute("insert into t(v) values(randomblob(50000))")
            replicator.sync()
        txid = replicator.status().txid
    follower = Follower(replica, copy)
    follower.start()
    status = follower.promote(before=lambda: calls.append("lease"))
    assert (status.state, status.txid, calls) == ("promoted", txid + 1, ["lease"])
    txid += 1  # the fence
    assert follower.status().state == "stopped"
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        assert db.execute("pragma journal_mode").fetchone() == ("wal",)
        before = _newest_header(replica)
        with Replicator(copy, [replica]) as replicator:
            replicator.sync()
            db.execute("insert into t(v) values('after')")
            replicator.sync()
            newest = replicator.status().txid
    assert newest in (txid + 1, txid + 2), "page 1 changed when it became writable"
    store = LTXStore.open(replica)
    files = store.list_level(0, min_txid=txid + 1)
    assert sum(file.size for file in files) < 10_000
    headers = [Header.unpack(store.get(file, 0, 100)) for file in files]
    assert headers[0].pre_checksum == before.post_checksum
    with Follower(replica, tmp_path / "g.db") as again:
        again.wait()
        assert rows(tmp_path / "g.db") == 4
    with Follower(replica, copy) as again:
        with pytest.raises(TargetExistsError):
            again.wait()
    assert rows(copy) == 4


def _newest_header(replica: Path) -> Header:
    """The header of the newest file."""
    store = LTXStore.open(replica)
    newest = store.list_level(0)[-1]
    return Header.unpack(store.get(newest, 0, 100))


def test_promotion_that_may_not_be_changes_nothing(tmp_path: Path) -> None:
    """If the fence raises, or the replica cannot be read to its end, it follows on."""
    recorded = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    recorded.commit("create table t(id integer primary key, v)")
    recorded.close()
    with Follower(tmp_path / "r", tmp_path / "f.db", interval=0.01) as follower:
        follower.wait()

        def refuse() -> None:
            raise StoreError("the lease is held")

        with pytest.raises(StoreError):
            follower.promote(before=refuse)
        (tmp_path / "r").rename(tmp_path / "away")
        with pytest.raises(FollowTimeoutError):
            follower.promote(timeout=0.3, lease=False)
        (tmp_path / "away").rename(tmp_path / "r")
        assert follower.wait().ok
        with closing(sqlite3.connect(tmp_path / "f.db")) as db:
            assert db.execute("pragma journal_mode").fetchone() == ("delete",)


def test_one_follower_or_replicator_has_a_file(tmp_path: Path) -> None:
    """A second one is refused as long as the first runs, of either kind."""
    recorded = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    recorded.commit("create table t(id integer primary key, v)")
    recorded.close()
    with Follower(tmp_path / "r", tmp_path / "f.db") as follower:
        follower.wait()
        for second in (
            Follower(tmp_path / "r", tmp_path / "f.db"),
            Replicator(tmp_path / "f.db", [tmp_path / "other"]),
        ):
            with pytest.raises(DatabaseStateError) as caught:
                second.start()
            assert caught.value.kind == "elsewhere"
        follower.stop()
        with Follower(tmp_path / "r", tmp_path / "f.db") as again:
            assert again.wait().txid == 1


def test_another_copy_of_sqlite_on_the_file_is_refused(tmp_path: Path) -> None:
    """apsw in the same process would see no lock of ours; with connect= it is ours."""
    import apsw

    recorded = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    recorded.commit("create table t(id integer primary key, v)")
    recorded.close()
    copy = str(tmp_path / "f.db")
    with Follower(tmp_path / "r", copy) as follower:
        follower.wait()
        with pytest.raises(MixedSQLiteCopiesError):
            apsw.Connection(copy)
    # Another file: where two copies met, connections may have to stay open for good.
    copy = str(tmp_path / "g.db")
    with Follower(tmp_path / "r", copy, connect=apsw.Connection) as follower:
        follower.wait()
        with pytest.raises(MixedSQLiteCopiesError):
            sqlite3.connect(copy)
        reader = apsw.Connection(copy)
        assert reader.execute("select count(*) from t").fetchall() == [(0,)]
        reader.close()


def test_many_wait_and_stop_releases_them(tmp_path: Path) -> None:
    """Waiters in threads get their transaction; those left when it stops an error."""
    recorded = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    recorded.commit("create table t(id integer primary key, v)")
    outcomes: list[object] = []

    def wait(txid: int) -> None:
        try:
            outcomes.append(follower.wait(txid, timeout=60).txid >= txid)
        except ReplicatorClosedError as error:
            outcomes.append(error.kind)

    with Follower(tmp_path / "r", tmp_path / "f.db", interval=0.01) as follower:
        threads = [threading.Thread(target=wait, args=(n,)) for n in (1, 2, 2, 99)]
        for thread in threads:
            thread.start()
        recorded.commit("insert into t(v) values(1)")
        await_true(lambda: len(outcomes) == 3)
    for thread in threads:
        thread.join()
    recorded.close()
    assert outcomes == [True, True, True, "closed"]
    with pytest.raises(ReplicatorClosedError):
        follower.wait()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_of_a_fork_cannot_use_it(tmp_path: Path) -> None:
    """The child's copy refuses, and its end leaves the parent's work alone."""
    recorded = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    recorded.commit("create table t(id integer primary key, v)")
    with Follower(tmp_path / "r", tmp_path / "f.db", interval=0.01) as follower:
        follower.wait()
        pid = os.fork()
        if pid == 0:
            try:
                follower.stop()
                assert follower.status().state == "forked"
                follower.wait()
            except ReplicatorClosedError as error:
                os._exit(0 if error.kind == "forked" else 1)
            os._exit(2)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        recorded.commit("insert into t(v) values(1)")
        assert follower.wait(2).txid == 2
    recorded.close()


def test_interpreter_ends_without_a_word_while_it_runs(tmp_path: Path) -> None:
    """Nobody has to stop it; the file can be read and followed afterwards."""
    recorded = Recording(tmp_path / "s.db", LTXStore.open(tmp_path / "r"))
    recorded.commit("create table t(id integer primary key, v)")
    recorded.close()
    code = (
        "from sqlitereplica import Follower\n"
        f"f = Follower({str(tmp_path / 'r')!r}, {str(tmp_path / 'f.db')!r}, interval=0.001)\n"
        "f.start(); f.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.stdout == b""
    assert rows(tmp_path / "f.db") == 0


@pytest.mark.s3
def test_replica_on_s3_is_followed(tmp_path: Path, s3_server: S3Server) -> None:
    """From a bucket, through a gap that a compaction and a retention left."""
    bucket = s3_server.make_bucket()
    url = f"s3://{bucket}/some/app"
    there = Replica(url, storage_options=s3_server.storage_options)
    with (
        closing(source(tmp_path)) as db,
        Replicator(
            tmp_path / "app.db",
            [there],
            retention=Retention(window="0s", fine="0s", grace="0s"),
        ) as replicator,
    ):
        replicator.sync()
        with Follower(
            url,
            tmp_path / "f.db",
            interval=0.05,
            storage_options=s3_server.storage_options,
        ) as follower:
            follower.wait()
            db.execute("insert into t(v) values(randomblob(9000))")
            replicator.sync()
            follower.wait()
            assert rows(tmp_path / "f.db") == 1
        for _ in range(4):
            db.execute("insert into t(v) values(randomblob(9000))")
            replicator.sync()
        replicator.compact()
        store = there.open()
        store.delete(store.list_level(0)[:-1])
        with Follower(there, tmp_path / "f.db", interval=0.05) as follower:
            assert follower.wait().ok
            assert rows(tmp_path / "f.db") == 5
