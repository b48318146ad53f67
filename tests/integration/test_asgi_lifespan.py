"""The ASGI integration: the lifespan protocol, message by message."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from sqlitereplica import Replicator, restore
from sqlitereplica.integrations.asgi import Replicated, lifespan
from sqlitereplica.testing import FaultyStore, MemoryStore, since

START, STOP = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}

pytestmark = pytest.mark.timeout(120)


class Server:
    """What a server does to an application, without the network."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.sent: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.at_shutdown: Callable[[], None] = lambda: None

    async def _receive(self) -> dict[str, Any]:
        self._asked += 1
        if self._asked == 1:
            return START
        self.at_shutdown()
        return STOP

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def run(self) -> list[dict[str, Any]]:
        """Play a lifespan; what the application sent."""
        self._asked = 0
        scope = {"type": "lifespan", "asgi": {}, "state": self.state}
        asyncio.run(self._app(scope, self._receive, self._send))
        return self.sent


class Database:
    """A database, and Replicators of it made by a factory."""

    def __init__(self, folder: Path, store: MemoryStore, **options: Any) -> None:
        self.path, self.store = folder / "a.db", store
        self.made: list[Replicator] = []
        self._options = options

    def make(self) -> Replicator:
        """The factory that the application passes."""
        replica = self.store.replica
        self.made.append(Replicator(self.path, replica, **self._options))
        return self.made[-1]

    def write(self, what: str) -> None:
        """Commit something."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("pragma journal_mode=wal")
            connection.execute("create table if not exists t(x)")
            connection.execute("insert into t values(?)", (what,))

    def replicated(self) -> list[str]:
        """What the replica has."""
        copy = self.path.with_name("copy.db")
        restore(self.store.replica, copy, if_exists="replace")
        with closing(sqlite3.connect(copy)) as connection:
            return [x for (x,) in connection.execute("select x from t")]


@pytest.fixture
def database(tmp_path: Path, replica_store: MemoryStore) -> Database:
    """A database whose replica is in memory."""
    return Database(tmp_path, replica_store)


async def polite(scope: Any, receive: Any, send: Any) -> None:
    """An application that has a lifespan."""
    assert await receive() == START
    await send(STARTED)
    assert await receive() == STOP
    await send(STOPPED)


async def unknowing(scope: Any, receive: Any, send: Any) -> None:
    """An application that refuses what is no HTTP, as Django does."""
    raise ValueError("only HTTP here")


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """An application that ignores what is no HTTP."""


async def thoughtless(scope: Any, receive: Any, send: Any) -> None:
    """An application that takes everything for a request."""
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def hasty(scope: Any, receive: Any, send: Any) -> None:
    """An application that has started, and does not wait for the end."""
    await receive()
    await send(STARTED)


async def taciturn(scope: Any, receive: Any, send: Any) -> None:
    """An application that waits for the end, and does not say that it is done."""
    await hasty(scope, receive, send)
    await receive()


@pytest.mark.parametrize(
    "app", [polite, unknowing, silent, thoughtless, hasty, taciturn]
)
def test_application_is_replicated_from_startup_to_shutdown(
    app: Any, database: Database
) -> None:
    """Whether it has a lifespan or not: started before, flushed after, then answered."""
    server = Server(Replicated(app, database.make))

    def at_shutdown() -> None:
        [replicator] = database.made
        assert replicator.status().state != "stopped"
        assert server.state == {"replicator": replicator}
        database.write("at the end")

    server.at_shutdown = at_shutdown
    assert server.run() == [STARTED, STOPPED]
    assert database.made[0].status().state == "stopped"
    assert database.replicated() == ["at the end"]


def test_application_that_fails_to_start_is_not_replicated_on(
    database: Database,
) -> None:
    """Its own failure reaches the server, and replication ends."""
    failure = {"type": "lifespan.startup.failed", "message": "no luck"}

    async def unlucky(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(failure)
        raise RuntimeError("no luck")

    server = Server(Replicated(unlucky, database.make))
    with pytest.raises(RuntimeError, match="no luck"):
        server.run()
    assert server.sent == [failure]
    assert database.made[0].status().state == "stopped"


def test_replication_that_cannot_start_is_a_startup_that_failed(
    database: Database,
) -> None:
    """Nothing is served without replication; the server is told why."""
    database.write("x")
    with Replicator(database.path, database.store.replica):
        [message] = Server(Replicated(polite, database.make)).run()
    assert message["type"] == "lifespan.startup.failed"
    assert "DatabaseStateError" in message["message"]


def test_flush_that_fails_is_a_shutdown_that_failed(
    tmp_path: Path, faulty_store: FaultyStore
) -> None:
    """The server hears that not everything is in the replica."""
    database = Database(tmp_path, faulty_store, stop_timeout=0.2)
    server = Server(Replicated(polite, database.make))

    def at_shutdown() -> None:
        faulty_store.plan = since(1)
        database.write("not there")

    server.at_shutdown = at_shutdown
    started, failed = server.run()
    assert (started, failed["type"]) == (STARTED, "lifespan.shutdown.failed")
    assert "SyncTimeoutError" in failed["message"]
    assert database.made[0].status().state == "stopped"


def test_requests_pass_unchanged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is no lifespan is the application's own affair, and starts nothing.

    A server that has none is told of, once: its operator waits for a backup.
    """
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    scope = {"type": "http"}
    wrapped: Any = Replicated(app, database.make)
    for _ in range(2):
        asyncio.run(wrapped(scope, "receive", "send"))
    assert seen == [(scope, "receive", "send")] * 2
    assert database.made == []
    assert caplog.text.count("no ASGI lifespan") == 1


def test_no_lifespan_is_no_matter_where_none_is_needed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """As with Datasette's commands; and where there was one, nothing is said either."""
    Server(served := Replicated(silent, database.make)).run()
    quiet: Any = Replicated(silent, database.make, needs_lifespan=False)
    for app in (served, quiet):
        asyncio.run(app({"type": "http"}, None, None))
    assert "no ASGI lifespan" not in caplog.text


def test_own_lifespan_runs_inside(database: Database) -> None:
    """Its state is merged, and what it commits at its end is flushed."""

    @asynccontextmanager
    async def own(app: Any) -> Any:
        assert app == "the app"
        assert database.made[0].status().state != "stopped"
        yield {"mine": 1}
        database.write("at the end of mine")

    async def serve() -> None:
        async with lifespan(database.make, then=own, state="r")("the app") as state:
            assert state == {"mine": 1, "r": database.made[0]}

    asyncio.run(serve())
    assert database.replicated() == ["at the end of mine"]
