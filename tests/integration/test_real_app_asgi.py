"""An ASGI application under uvicorn that awaits durability in its handlers."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.servers import S3Server
from support.webserver import Clients, WebServer

from sqlitereplica import Replica, Replicator, restore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APPS = Path(__file__).parents[1] / "apps"
NOTES = int(os.environ.get("REAL_APP_NOTES", "150"))


@dataclass
class Notes:
    """The application in a folder; ``url`` and ``replica`` are the same place."""

    folder: Path
    url: str
    replica: Replica
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """Its database."""
        return self.folder / "notes.db"

    def serve(self) -> WebServer:
        """The application under uvicorn."""
        command = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "0"]
        env = {
            **self.env,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(APPS), os.environ.get("PYTHONPATH")])
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NOTES_DATABASE": str(self.database),
            "NOTES_REPLICA": self.url,
        }
        return WebServer(
            [sys.executable, *command, "--no-access-log", "notes:application"],
            log=self.folder / "uvicorn.log",
            folder=self.folder,
            env=env,
        )

    def restored(self) -> Path:
        """A database made of the replica."""
        path = self.folder / "restored.db"
        restore(self.replica, path, if_exists="replace", verify="full")
        return path


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Notes:
    """The application, with a replica in a folder or on S3."""
    if request.param == "file":
        return Notes(tmp_path, str(tmp_path / "replica"), Replica(tmp_path / "replica"))
    server: S3Server = request.getfixturevalue("s3_server")
    if not server.filesystem().exists("notes"):
        server.make_bucket("notes")
    url = server.url("notes", tmp_path.name)
    options = {"key": server.key, "secret": server.secret}
    replica = Replica(url, storage_options=options)
    return Notes(tmp_path, url, replica, server.environment)


def note(client: int, number: int) -> str:
    """The request of a client; of every three two ask for durability."""
    durable = "?durable" if (client + number) % 3 else ""
    return f"/note/{client}-{number}{durable}"


def rows_of(database: Path) -> list[tuple[int, str, bytes]]:
    """The notes of a sound database."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        return connection.execute("select * from note order by id").fetchall()


def check_acknowledged(clients: Clients, database: Path) -> None:
    """Every note that was answered as durable is there under the number it was given."""
    names = {row[0]: row[1] for row in rows_of(database)}
    durable = {p: a for p, a in clients.answered.items() if p.endswith("?durable")}
    assert durable
    for path, answer in durable.items():
        name = path.removeprefix("/note/").removesuffix("?durable")
        assert names.get(answer["id"]) == name


def test_durable_notes_survive_sigkill_and_the_loss_of_the_machine(
    notes: Notes,
) -> None:
    """Killed under load, then begun anew from the replica alone, then ended politely."""
    with notes.serve() as server:
        with Clients(server.port, note, threads=8) as clients:
            clients.wait_for(NOTES)
            server.kill()
    restored = notes.restored()
    rows = rows_of(restored)
    assert rows == rows_of(notes.database)[: len(rows)]
    check_acknowledged(clients, restored)

    for path in notes.folder.glob("notes.db*"):
        path.unlink()
    with notes.serve() as server:
        status = server.get("/status")
        assert status["count"] == len(rows)
        with Clients(server.port, lambda c, n: note(c + 50, n), threads=8) as later:
            later.wait_for(30)
        assert server.get("/status")["txid"] > status["txid"]
        server.terminate()
    assert notes.restored().read_bytes() == serialized(notes.database)
    check_acknowledged(later, notes.database)
    assert rows_of(notes.database)[: len(rows)] == rows


def test_snapshot_while_requests_are_served(notes: Notes) -> None:
    """A full snapshot is made in a thread; the handlers go on."""
    with notes.serve() as server:
        with Clients(server.port, note, threads=4) as clients:
            clients.wait_for(20)
            with Clients(
                server.port, lambda _, n: f"/snapshot/{n}", threads=1
            ) as other:
                other.wait_for(2)
            clients.wait_for(len(clients.answered) + 10)
        server.terminate()
    levels = {file.level for file in notes.replica.open().list_all()}
    assert levels == {0, 9}
    assert notes.restored().read_bytes() == serialized(notes.database)
    assert {row[1] for row in rows_of(notes.database)} >= {
        path.removeprefix("/note/").removesuffix("?durable")
        for path in clients.answered
    }


def test_bootstrap_keeps_a_database_that_is_there(tmp_path: Path) -> None:
    """``if_exists="skip"`` makes no request; the same Replicator goes on with the count."""
    database, replica = tmp_path / "app.db", tmp_path / "replica"
    assert (
        restore(replica, database, if_exists="skip", missing="skip").reason == "missing"
    )
    with closing(make_database(database)) as connection:
        with Replicator(database, replica):
            connection.execute("insert into t(v) values(1)")
    last = restore(replica, tmp_path / "1.db").txid
    assert last is not None
    for turn in range(3):
        result = restore(replica, database, if_exists="skip", missing="skip")
        assert result.reason == ("exists" if turn % 2 == 0 else "restored")
        with Replicator(database, replica) as replicator:
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("insert into t(v) values(?)", (turn,))
                connection.commit()
            replicator.sync()
            assert replicator.status().txid == last + turn + 1
        for path in tmp_path.glob("app.db*") if turn == 0 else ():
            path.unlink()
    restore(replica, tmp_path / "2.db")
    assert (tmp_path / "2.db").read_bytes() == serialized(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (4,)


@pytest.mark.s3
def test_restore_in_a_coroutine_leaves_the_event_loop_alone(
    s3_server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections to S3 are closed on the loop they belong to, whoever collects them."""
    place = s3_server.url(s3_server.make_bucket(), "app")
    options = {"key": s3_server.key, "secret": s3_server.secret}
    replica = Replica(place, storage_options=options)

    async def start_up() -> None:
        async with Replicator(tmp_path / "app.db", replica) as replicator:
            await replicator.sync_async()
        restore(replica, tmp_path / "restored.db")
        del replicator
        gc.collect()
        await asyncio.sleep(0.1)

    make_database(tmp_path / "app.db").close()
    gc.collect()  # what made the bucket is a plain client of s3fs, which is not meant here
    asyncio.run(start_up())
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_many_coroutines_share_one_event_loop(tmp_path: Path) -> None:
    """A cancelled wait harms no other, and what was answered is durable."""
    database, replica = tmp_path / "app.db", tmp_path / "replica"

    async def write(connection: sqlite3.Connection) -> None:
        async with Replicator(database, replica) as replicator:

            async def one(number: int) -> None:
                connection.execute("insert into t(v) values(?)", (number,))
                await replicator.sync_async()

            tasks = [asyncio.create_task(one(n)) for n in range(300)]
            await asyncio.sleep(0)
            for task in tasks[::10]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled = [r for r in done if isinstance(r, asyncio.CancelledError)]
            assert len(cancelled) == 30
            assert [r for r in done if r is not None and r not in cancelled] == []
            assert replicator.status().txid <= 301

    with closing(make_database(database)) as connection:
        asyncio.run(write(connection))
    restore(replica, tmp_path / "restored.db")
    assert (tmp_path / "restored.db").read_bytes() == serialized(database)
