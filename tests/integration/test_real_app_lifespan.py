"""FastAPI and Starlette under uvicorn, with the lifespan of the ASGI integration."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.capturing import serialized
from support.webserver import Clients, WebServer, elected

from sqlitereplica import restore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APPS = Path(__file__).parents[1] / "apps"


class Bookings:
    """The application in a folder, in one of the frameworks."""

    def __init__(self, folder: Path, application: str) -> None:
        self.folder, self._application = folder, application
        self.database, self.replica = folder / "bookings.db", folder / "replica"

    def serve(self, *options: str) -> WebServer:
        """Under uvicorn."""
        paths = [str(APPS), os.environ.get("PYTHONPATH")]
        command = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "0"]
        command += ["--no-access-log", *options, self._application]
        return WebServer(
            [sys.executable, *command],
            log=self.folder / "server.log",
            folder=self.folder,
            env={
                "BOOKINGS_DATABASE": str(self.database),
                "BOOKINGS_REPLICA": str(self.replica),
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What the replica has."""
        copy = self.folder / "restored.db"
        restore(self.replica, copy, if_exists="replace", verify="full")
        with closing(sqlite3.connect(copy)) as connection:
            return connection.execute(query).fetchall()

    def check_durable(self, clients: Clients) -> None:
        """Every seat whose booking was answered as durable is booked."""
        found = dict(self.rows("select name, id from seat"))
        durable = {p: a for p, a in clients.answered.items() if p.endswith("?durable")}
        assert durable
        for path, answer in durable.items():
            name = path.removeprefix("/book/").partition("?")[0]
            assert found[name] == answer["id"]


def booking(client: int, number: int) -> str:
    """The request of a client; of every two one asks for durability."""
    return f"/book/{client}-{number}" + ("?durable" if (client + number) % 2 else "")


@pytest.mark.parametrize("application", ["bookings:fast", "bookings:star"])
def test_bookings_survive_sigkill_and_the_loss_of_the_machine(
    tmp_path: Path, application: str
) -> None:
    """The lifespan fetches the database, and the application's own finds it there."""
    bookings = Bookings(tmp_path, application)
    with bookings.serve() as server:
        with Clients(server.port, booking, threads=4) as clients:
            clients.wait_for(60)
            server.kill()
    bookings.check_durable(clients)

    for path in tmp_path.glob("bookings.db*"):
        path.unlink()
    with bookings.serve() as server:
        assert server.get("/status")["count"] > 0
        more = Clients(server.port, lambda c, n: booking(c + 100, n), threads=2)
        with more as later:
            later.wait_for(20)
        server.terminate()
    bookings.check_durable(clients)
    bookings.check_durable(later)
    # The end of the application's own lifespan is in the replica, too.
    assert bookings.rows("select what from life") == [
        ("begun",),
        ("begun",),
        ("ended",),
    ]
    restored = tmp_path / "restored.db"
    assert restored.read_bytes() == serialized(bookings.database)


def test_every_worker_confirms_and_any_may_be_killed(tmp_path: Path) -> None:
    """Three workers begin as if alone; the one that replicates dies, another goes on."""
    bookings = Bookings(tmp_path, "bookings:fast")
    with bookings.serve("--workers", "3") as server:
        load = Clients(
            server.port, lambda c, n: f"/book/{c}-{n}?durable", threads=4, again=True
        )
        with load as clients:
            clients.wait_for(40)
            first = elected(server)
            os.kill(first, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 40)
            assert elected(server, but=first)
        server.terminate()
    bookings.check_durable(clients)
    restored = tmp_path / "restored.db"
    assert restored.read_bytes() == serialized(bookings.database)
