"""A Django application behind gunicorn, with the Replicator in its worker.

The shop (``tests/apps/shop``) ends every transaction with an entry of a chain, each of
which proves the one before: a restored database is a state of the source when its chain is
the beginning of the source's.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.shop import (
    Shop,
    chain_of,
    check_acknowledged,
    check_replica_is_exact,
    later_order,
    order,
)
from support.webserver import Clients, elected

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ORDERS = int(os.environ.get("REAL_APP_ORDERS", "150"))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop whose database has its first tables."""
    shop = Shop(tmp_path)
    shop.manage("migrate", "--verbosity", "0", "shop", "0002")
    return shop


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


@pytest.mark.parametrize("application", ["shop.wsgi", "shop.plain_wsgi"])
@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_killed_process_that_replicates_is_replaced(
    shop: Shop, preload: bool, application: str
) -> None:
    """Every worker confirms; whoever replicates may be killed. gunicorn's own main
    process, which replicates where the application is preloaded, is spared."""
    options = ["--workers", "3", *(["--preload"] if preload else [])]
    with shop.serve(*options, application=application) as server:
        plain = Clients(server.port, order, threads=4, again=True)
        with plain as clients:
            clients.wait_for(30)
            first = elected(server)
            worker = server.get("/status")["pid"]
            victim = worker if first == server.process.pid else first
            os.kill(victim, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 30)
            assert (elected(server) == first) == (victim != first)
        server.terminate()
    check_replica_is_exact(shop)
    check_acknowledged(clients, chain_of(shop.restored()))
