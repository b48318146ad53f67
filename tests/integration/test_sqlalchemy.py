"""SQLAlchemy: engines become Replicators, commits wait for them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqlitereplica import Replicator, SyncTimeoutError, restore
from sqlitereplica.integrations.sqlalchemy import replicator_of, sync_on_commit
from sqlitereplica.testing import FaultyStore, MemoryStore, Operation, only

pytestmark = pytest.mark.timeout(120)

INSERT = text("insert into t values(:x)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A WAL database with a table."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table t(x)")
    return path


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """An engine on it."""
    engine = create_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


@pytest.fixture
def async_engine(path: Path) -> AsyncEngine:
    """An engine on it for asyncio."""
    return create_async_engine(f"sqlite+aiosqlite:///{path}")


def replicated(store: MemoryStore, folder: Path) -> list[Any]:
    """What the replica has now."""
    copy = folder / "copy.db"
    restore(store.replica, copy, if_exists="replace")
    with closing(sqlite3.connect(copy)) as connection:
        return [x for (x,) in connection.execute("select x from t order by x")]


class Module:
    """A driver's module that is not the usual one; it connects to nothing."""

    sqlite_version_info = sqlite3.sqlite_version_info
    paramstyle = "qmark"

    @staticmethod
    def connect(path: str) -> sqlite3.Connection:
        """What a Replicator is to be given."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)


# -- engines ---------------------------------------------------------------------------


def test_replicator_opens_the_database_as_the_engine_does(
    engine: Engine, async_engine: AsyncEngine, path: Path, replica_store: MemoryStore
) -> None:
    """Both engines use the stdlib's SQLite, and so does the Replicator."""
    for one in (engine, async_engine):
        replicator = replicator_of(one, replica_store.replica, sync_interval=0.1)
        assert replicator.database == str(path.resolve())
        assert replicator._options.connect is sqlite3.connect


def test_other_module_of_the_engine_is_that_of_the_replicator(path: Path) -> None:
    """An engine that is given a module opens by it, and so does the Replicator."""

    engine = create_engine(f"sqlite:///{path}", module=Module())
    assert replicator_of(engine, "x")._options.connect is Module.connect


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql+pg8000://user:secret@host/db", "postgresql"),
        ("sqlite://", "no file"),
        ("sqlite:///file:a.db?uri=true", "path of a database file"),
        ("sqlite+pysqlcipher:///a.db", "pass connect="),
    ],
)
def test_engine_that_cannot_be_replicated_is_refused(url: str, why: str) -> None:
    """Another database, one in memory, a URI and an unknown driver are told apart."""
    engine = create_engine(url, module=Module())
    with pytest.raises(ValueError, match=why) as caught:
        replicator_of(engine, "x")
    assert "secret" not in str(caught.value)


# -- commits ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sessionmaker", "scoped_session", "class"])
def test_commit_returns_when_it_is_durable(
    engine: Engine, replica_store: MemoryStore, tmp_path: Path, kind: str
) -> None:
    """Whatever makes the sessions: what ``commit`` returned from is in the replica."""
    makers = {
        "sessionmaker": sessionmaker(engine),
        "scoped_session": scoped_session(sessionmaker(engine)),
        "class": type("MySession", (Session,), {}),
    }
    maker: Any = makers[kind]
    replicator = replicator_of(engine, replica_store.replica, sync_interval=30)
    sync_on_commit(maker, replicator)
    with replicator:
        replicator.sync()
        session = maker() if kind != "class" else maker(engine)
        for x in range(3):
            session.execute(INSERT, {"x": x})
            session.commit()
            assert replicated(replica_store, tmp_path) == list(range(x + 1))
        session.close()


def test_sessions_that_were_not_asked_to_do_not_wait(
    engine: Engine, faulty_store: FaultyStore
) -> None:
    """Other sessions of the same engine commit while the store is away."""
    asked, others = sessionmaker(engine), sessionmaker(engine)
    replicator = replicator_of(engine, faulty_store.replica, stop_timeout=30)
    sync_on_commit(asked, replicator, timeout=0.1)
    with replicator:
        replicator.sync()
        faulty_store.plan = only("write")
        with others.begin() as session:
            session.execute(INSERT, {"x": 1})
        with pytest.raises(SyncTimeoutError):
            with asked.begin() as session:
                session.execute(INSERT, {"x": 2})
        faulty_store.heal()


def test_session_is_whole_after_a_commit_that_was_not_confirmed(
    engine: Engine, faulty_store: FaultyStore, tmp_path: Path
) -> None:
    """The error leaves the commit made, and the session and its pool as new."""
    maker = sessionmaker(engine)
    replicator = replicator_of(engine, faulty_store.replica)
    sync_on_commit(maker, replicator, timeout=0.1)
    with replicator:
        replicator.sync()
        session = maker()
        faulty_store.plan = only("write")
        session.execute(INSERT, {"x": 1})
        with pytest.raises(SyncTimeoutError):
            session.commit()
        assert not session.in_transaction()
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        faulty_store.heal()
        replicator.sync()
        session.execute(INSERT, {"x": 2})
        session.rollback()
        session.execute(INSERT, {"x": 3})
        session.flush()
        session.close()
    assert replicated(faulty_store, tmp_path) == [1]


def test_no_connection_is_held_while_a_commit_waits(
    engine: Engine, faulty_store: FaultyStore
) -> None:
    """A slow store does not use up the engine's pool."""
    held: list[int] = []

    def look(operation: Operation) -> None:
        if operation.kind == "write":
            held.append(engine.pool.checkedout())  # type: ignore[attr-defined]

    maker = sessionmaker(engine)
    replicator = replicator_of(engine, faulty_store.replica, sync_interval=30)
    sync_on_commit(maker, replicator)
    with replicator:
        replicator.sync()
        faulty_store.plan = look
        with maker.begin() as session:
            session.execute(INSERT, {"x": 1})
    assert held
    assert set(held) == {0}


def test_only_the_commit_of_the_whole_transaction_waits(
    engine: Engine, replica_store: MemoryStore
) -> None:
    """Savepoints and rollbacks do not; one commit is one wait."""
    maker = sessionmaker(engine)
    replicator = replicator_of(engine, replica_store.replica)
    waits: list[float | None] = []

    def sync(timeout: float | None, *, require: str | None) -> None:
        assert require == "any"
        waits.append(timeout)

    replicator.sync = sync  # type: ignore[method-assign, assignment]
    sync_on_commit(maker, replicator, timeout=7, require="any")
    with maker() as session:
        with session.begin_nested():
            session.execute(INSERT, {"x": 1})
        assert waits == []
        session.rollback()
        assert waits == []
        session.execute(INSERT, {"x": 2})
        with session.begin_nested():
            session.execute(INSERT, {"x": 3})
        session.commit()
        assert waits == [7]
        session.begin_nested()
        session.execute(INSERT, {"x": 4})
        session.commit()
        assert waits == [7, 7]
    assert waits == [7, 7]


def test_commits_of_asyncio_wait_without_blocking_the_loop(
    async_engine: AsyncEngine, faulty_store: FaultyStore, tmp_path: Path
) -> None:
    """While one commit waits for a store that is away, other coroutines run."""
    maker = async_sessionmaker(async_engine)
    replicator = replicator_of(async_engine, faulty_store.replica, sync_interval=0.05)
    sync_on_commit(maker, replicator, timeout=60)

    async def insert(x: int) -> None:
        async with maker.begin() as session:
            await session.execute(INSERT, {"x": x})

    async def main() -> None:
        async with replicator:
            await replicator.sync_async()
            faulty_store.plan = only("write")
            waiting = asyncio.create_task(insert(1))
            while not any(r.fault for r in faulty_store.filesystem.log):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not waiting.done()
            faulty_store.heal()
            await waiting
            assert replicated(faulty_store, tmp_path) == [1]
        await async_engine.dispose()

    asyncio.run(main())


def test_own_class_of_sessions_is_kept(async_engine: AsyncEngine) -> None:
    """A maker of asyncio that has a class for its inner sessions goes on to use it."""

    class Mine(Session):
        pass

    maker = async_sessionmaker(async_engine, sync_session_class=Mine)
    other = async_sessionmaker(async_engine)
    sync_on_commit(maker, Replicator("a.db", "x"))
    sync_on_commit(other, Replicator("a.db", "x"))
    assert isinstance(maker().sync_session, Mine)
    assert not event.contains(Mine, "after_commit", lambda session: None)
    assert type(other().sync_session) not in (Session, Mine)
