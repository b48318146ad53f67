"""A Django application behind gunicorn, with the Replicator in its worker.

The shop (``tests/apps/shop``) ends every transaction with an entry of a chain, each of
which proves the one before: a restored database is a state of the source when its chain is
the beginning of the source's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.capturing import serialized
from support.webserver import Clients, WebServer

from sqlitereplica import Replicator, restore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APPS = Path(__file__).parents[1] / "apps"
ORDERS = int(os.environ.get("REAL_APP_ORDERS", "150"))

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

    def serve(self, *options: str) -> WebServer:
        """The shop behind gunicorn, in a worker with threads."""
        command = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "8"]
        return WebServer(
            [sys.executable, *command, *options, "shop.wsgi"],
            log=self.folder / "gunicorn.log",
            folder=self.folder,
            env=self.env,
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


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop whose database has its first tables."""
    shop = Shop(tmp_path)
    shop.manage("migrate", "--verbosity", "0", "shop", "0002")
    return shop


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


def test_durable_orders_survive_sigkill_and_the_loss_of_the_machine(shop: Shop) -> None:
    """Killed under load, beside a management command: no answered order is lost."""
    restock = shop.managing("restock", "--seconds", "60")
    with restock as process, shop.serve() as server:
        assert process.stdout is not None
        assert process.stdout.readline() == "restocked\n"
        with Clients(server.port, order, threads=6) as clients:
            clients.wait_for(ORDERS)
            server.kill()
    restored = shop.restored()
    chain, source = chain_of(restored), chain_of(shop.database)
    assert chain == source[: len(chain)]
    assert any(what.startswith("restock") for _, what, _ in chain)
    check_acknowledged(clients, chain)
    shop.manage("check", "--database", "default", database=restored)

    shop.lose()
    with shop.serve() as server:  # fetches the database, and goes on with the replica
        status = server.get("/status")
        assert status["entries"] == len(chain)
        before = status["txid"]
        with Clients(server.port, later_order, threads=3) as later:
            later.wait_for(20)
        assert server.get("/status")["txid"] > before
        server.terminate()
    check_replica_is_exact(shop)
    end = chain_of(shop.database)
    assert end[: len(chain)] == chain
    check_acknowledged(later, end)


def test_migration_while_the_shop_is_open(shop: Shop) -> None:
    """Tables are made anew by another process under load; the replica has them, exactly."""
    with shop.serve() as server:
        with Clients(server.port, order, threads=4) as clients:
            clients.wait_for(30)
            shop.manage("migrate", "--verbosity", "0")
            clients.wait_for(len(clients.answered) + 30)
        server.terminate()
    check_replica_is_exact(shop)
    shop.manage("migrate", "--check", database=shop.folder / "restored.db")
    shop.manage("makemigrations", "--check", "--dry-run")
    check_acknowledged(clients, chain_of(shop.folder / "restored.db"))


def test_worker_that_takes_the_place_of_a_killed_one_goes_on(shop: Shop) -> None:
    """With two workers one replicates for both; if it dies, its successor does."""
    with shop.serve("--workers", "2") as server:
        plain = Clients(
            server.port, lambda c, n: f"/order/c{c}-{n}", threads=4, again=True
        )
        with plain as clients:
            clients.wait_for(30)
            first = replicating_worker(server)
            os.kill(first, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 30)
            assert replicating_worker(server) != first
        server.terminate()
    # The worker that replicates may end before the other has answered its last request.
    with Replicator(shop.database, shop.replica) as replicator:
        replicator.sync()
    check_replica_is_exact(shop)
    chain = chain_of(shop.database)
    assert len(chain) >= len(clients.answered)


def replicating_worker(server: WebServer) -> int:
    """The process that replicates, once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = server.get("/status")
        if status["state"] == "running":
            return int(status["pid"])
        time.sleep(0.02)
    raise AssertionError(server.log)
