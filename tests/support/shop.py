"""The shop: a Django project in a folder, its servers and its commands."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from support.capturing import serialized
from support.webserver import Clients, WebServer

from sqlitereplica import restore

__all__ = [
    "APPS",
    "Shop",
    "chain_of",
    "check_acknowledged",
    "check_replica_is_exact",
    "later_order",
    "order",
]

APPS = Path(__file__).parents[1] / "apps"

Chain = list[tuple[int, str, str]]


class Shop:
    """The shop in a folder: its database, its replica, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database, self.replica = folder / "shop.db", folder / "replica"
        self.env = {
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(APPS), os.environ.get("PYTHONPATH")])
            ),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SHOP_DATABASE": str(self.database),
            "SHOP_REPLICA": str(self.replica),
        }

    def manage(self, *arguments: str, database: Path | None = None) -> None:
        """Run a management command."""
        with self.managing(*arguments, database=database) as process:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, output

    def prints(self, *arguments: str) -> str:
        """What a management command prints that succeeds."""
        with self.managing(*arguments) as process:
            output, _ = process.communicate(timeout=100)
            assert process.returncode == 0, output
            return output

    def fails(self, *arguments: str) -> str:
        """What a management command prints that fails, in a line and not a traceback."""
        with self.managing(*arguments) as process:
            output, _ = process.communicate(timeout=100)
            assert process.returncode not in (0, None), output
            assert "Traceback" not in output
            return output

    @contextmanager
    def managing(
        self, *arguments: str, database: Path | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """A management command at work; it is killed if it does not end."""
        env = {**os.environ, **self.env}
        if database is not None:
            env["SHOP_DATABASE"] = str(database)
        process = subprocess.Popen(
            [sys.executable, APPS / "manage.py", *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def serve(self, *options: str, application: str = "shop.wsgi") -> WebServer:
        """The shop behind gunicorn, in a worker with threads."""
        command = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "8"]
        return WebServer(
            [sys.executable, *command, *options, application],
            log=self.folder / "gunicorn.log",
            folder=self.folder,
            env=self.env,
        )

    def serve_asgi(self, *options: str) -> WebServer:
        """The shop behind uvicorn."""
        command = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "0"]
        return WebServer(
            [sys.executable, *command, *options, "shop.asgi:application"],
            log=self.folder / "uvicorn.log",
            folder=self.folder,
            env=self.env,
        )

    def runserver(self, source: Path) -> WebServer:
        """A copy of the shop by Django's own server, which reloads what changes."""
        paths = [str(source), os.environ.get("PYTHONPATH")]
        return WebServer(
            [sys.executable, source / "manage.py", "runserver", "127.0.0.1:0"],
            log=self.folder / "runserver.log",
            folder=self.folder,
            env={**self.env, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def lose(self) -> None:
        """Lose the machine: everything but the replica."""
        for path in self.folder.glob("*shop.db*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def restored(self) -> Path:
        """A database made of the replica."""
        path = self.folder / "restored.db"
        restore(self.replica, path, if_exists="replace", verify="full")
        return path


def order(client: int, number: int) -> str:
    """The request of a client; of every two one asks for durability."""
    durable = "&durable" if (client + number) % 2 else ""
    return f"/order/c{client}-{number}?size={50 * (client % 10)}{durable}"


def later_order(client: int, number: int) -> str:
    """As ``order``, by other customers."""
    return order(client + 100, number)


def chain_of(database: Path) -> Chain:
    """The chain of a database, after a look at every link and at SQLite's own checks."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        query = "select id, what, digest from shop_entry order by id"
        chain: Chain = connection.execute(query).fetchall()
    assert [entry[0] for entry in chain] == [*range(1, len(chain) + 1)]
    digest = ""
    for _, what, found in chain:
        digest = hashlib.sha256(f"{digest} {what}".encode()).hexdigest()
        assert found == digest
    return chain


def check_acknowledged(clients: Clients, chain: Chain) -> None:
    """Every order that was answered as durable is in the chain, where the answer said."""
    durable = {p: a for p, a in clients.answered.items() if p.endswith("&durable")}
    assert durable
    for path, answer in durable.items():
        reference = path.removeprefix("/order/").partition("?")[0]
        assert chain[answer["entry"] - 1][1] == f"order {reference}"


def check_replica_is_exact(shop: Shop) -> None:
    """What the replica gives is the database, to the byte."""
    assert shop.restored().read_bytes() == serialized(shop.database)
