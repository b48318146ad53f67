"""The Django app: its checks, its commands, its view, and who starts replication."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler
from support.library import request, until, until_noticed
from support.shop import (
    APPS,
    Shop,
    chain_of,
    check_acknowledged,
    check_replica_is_exact,
    order,
)
from support.webserver import Clients, WebServer

from sqlitereplica.integrations.django import checks, databases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SQLITE = {"ENGINE": "django.db.backends.sqlite3"}
GOOD = {**SQLITE, "NAME": "good.db", "OPTIONS": {"transaction_mode": "IMMEDIATE"}}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop with its tables."""
    shop = Shop(tmp_path)
    shop.manage("migrate", "--verbosity", "0")
    return shop


def health(server: WebServer) -> int:
    """The status of the health view."""
    return request(server, "GET", "/health")[0]


# -- checks ----------------------------------------------------------------------------


def check(
    monkeypatch: pytest.MonkeyPatch,
    described: Any,
    database: dict[str, Any] | None = None,
    **others: Any,
) -> list[str]:
    """The numbers of the messages about a project with these settings."""
    if not settings.configured:
        settings.configure()
    handler = ConnectionHandler({"default": GOOD, "main": database or GOOD})
    for module in (checks, databases):
        monkeypatch.setattr(module, "connections", handler)
    for name, value in {"SQLITEREPLICA": described, **others}.items():
        monkeypatch.setattr(settings, name, value, raising=False)
    return [str(message.id).partition(".")[2] for message in checks.check_replication()]


@pytest.mark.parametrize(
    ("described", "database", "wanted"),
    [
        ({"main": "backups/main"}, None, []),
        ({"main": {"replicas": ["a", {"url": "b", "retention": "7d"}]}}, None, []),
        ({"default": "b/{name}", "main": "b/{name}"}, None, []),
        ({}, None, []),
        ("backups/main", None, ["E001"]),
        ({"other": "backups"}, None, ["E002"]),
        (
            {"main": "a"},
            {"ENGINE": "django.db.backends.dummy", "NAME": "x"},
            ["E003"],
        ),
        ({"main": "a"}, {**GOOD, "NAME": ":memory:"}, ["E004"]),
        ({"main": "a"}, {**GOOD, "NAME": "file:x?mode=memory"}, ["E004"]),
        ({"main": {}}, None, ["E005"]),
        ({"main": {"replicas": "a", "sync": 1}}, None, ["E005"]),
        ({"main": {"replicas": "a", "connect": "no.such.thing"}}, None, ["E005"]),
        ({"main": "s3://key:secret@b/x"}, None, ["E005"]),
        ({"default": "a", "main": {"url": "./a", "name": "n"}}, None, ["E006"]),
        ({"main": "media/backups"}, None, ["E007"]),
        ({"main": "static"}, None, ["E007"]),
        ({"main": ["a", {"mirror": "media/{name}.db"}]}, None, ["E007"]),
        ({"default": {"mirror": "b.db"}, "main": {"mirror": "./b.db"}}, None, ["E006"]),
        ({"main": "media-backups"}, None, []),
        ({"main": "a"}, {**SQLITE, "NAME": "x"}, ["W002"]),
        (
            {"main": "a"},
            {
                **SQLITE,
                "NAME": "x",
                "OPTIONS": {
                    "transaction_mode": "EXCLUSIVE",
                    "init_command": "pragma synchronous=1; PRAGMA journal_mode = WAL;",
                },
            },
            [],
        ),
        (
            {"main": "a"},
            {
                **SQLITE,
                "NAME": "x",
                "OPTIONS": {
                    "timeout": 0,
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode('delete')",
                },
            },
            ["W001", "W003"],
        ),
    ],
)
def test_check_finds_what_cannot_work(
    monkeypatch: pytest.MonkeyPatch,
    described: Any,
    database: dict[str, Any] | None,
    wanted: list[str],
) -> None:
    """Each wrong or doubtful setting has its message; sound ones have none."""
    roots = {"MEDIA_ROOT": "media", "STATIC_ROOT": Path("static").absolute()}
    assert check(monkeypatch, described, database, **roots) == wanted


def test_no_message_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a URL is said without its password."""
    check(monkeypatch, {"main": "s3://key:hidden@b/x"})
    [message] = checks.check_replication()
    assert "hidden" not in str(message)


# -- commands --------------------------------------------------------------------------


def test_commands_tell_verify_and_restore(shop: Shop) -> None:
    """By alias or for all; what is wrong is a line and an exit code."""
    assert "no backup" in shop.fails("sqlitereplica", "status")
    with shop.serve() as server:
        with Clients(server.port, order, threads=2) as clients:
            clients.wait_for(10)
        server.terminate()

    found = json.loads(shop.prints("sqlitereplica", "status", "--json"))
    [points] = found["default"].values()
    assert (points["points"] > 0, points["gaps"]) == (True, [])
    before = shop.database.read_bytes()
    shop.lose()
    assert "restored from" in shop.prints("sqlitereplica", "restore")
    check_acknowledged(clients, chain_of(shop.database))
    shop.database.write_bytes(b"")
    options = ["--if-exists", "replace", "--txid", str(points["txid"]), "default"]
    assert "restored from" in shop.prints("sqlitereplica", "restore", *options)
    assert shop.database.read_bytes() == before
    assert "does not name" in shop.fails("sqlitereplica", "status", "other")

    for path in shop.replica.rglob("*.ltx"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert "not all is" in shop.fails("sqlitereplica", "verify")


def test_restore_without_a_backup_starts_empty(tmp_path: Path) -> None:
    """At the very first start there is nothing to fetch, and that is no failure."""
    shop = Shop(tmp_path)
    assert shop.prints("sqlitereplica", "restore") == (
        "default: there is no backup yet\n"
    )
    assert not shop.database.exists()


def test_check_is_part_of_the_projects_checks(shop: Shop) -> None:
    """``manage.py check`` runs ours, and finds the shop sound."""
    assert "no issues" in shop.prints("check", "--tag", "sqlitereplica")
    shop.env["SHOP_REPLICA"] = ""
    assert "sqlitereplica.E005" in shop.fails("check")


# -- who starts it, and who does not ---------------------------------------------------


def test_first_request_starts_it_where_nobody_does(shop: Shop) -> None:
    """With a ``wsgi.py`` as Django makes it, the shop is replicated all the same."""
    shop.env["SHOP_WSGI"] = "shop.plain_wsgi.application"
    with shop.serve(application="shop.plain_wsgi") as server:
        until(lambda: health(server) == 200, lambda: server.log)
        with Clients(server.port, order, threads=2) as clients:
            clients.wait_for(10)
        server.terminate()
    check_replica_is_exact(shop)
    check_acknowledged(clients, chain_of(shop.restored()))


def test_commands_and_tests_replicate_nothing(shop: Shop) -> None:
    """Neither management commands nor Django's own test runner start it."""
    assert "OK" in shop.prints("test", "shop", "--noinput")
    shop.manage("restock")
    assert not shop.replica.exists()


def test_uvicorn_flushes_at_shutdown(shop: Shop) -> None:
    """Around Django's ASGI application the lifespan starts, and ends with a flush."""
    with shop.serve_asgi() as server:
        with Clients(
            server.port, lambda c, n: f"/order/c{c}-{n}", threads=3
        ) as clients:
            clients.wait_for(20)
        server.terminate()
    check_replica_is_exact(shop)


def test_runserver_goes_on_after_a_reload(shop: Shop) -> None:
    """The reloader's new process takes over; nothing that was answered is lost."""
    source = shop.folder / "apps"
    shutil.copytree(APPS, source, ignore=shutil.ignore_patterns("__pycache__"))
    with shop.runserver(source) as server:
        until(lambda: health(server) == 200, lambda: server.log)
        first = server.get("/status")["pid"]
        with Clients(server.port, order, threads=2) as before:
            before.wait_for(10)
        ports = server.ports()
        views = source / "shop" / "views.py"
        until_noticed(
            lambda: views.write_text(views.read_text() + "\n# changed\n"),
            lambda: len(server.ports()) > len(ports),
            lambda: server.log,
        )
        server.port = server.ports()[-1]
        until(lambda: health(server) == 200, lambda: server.log)
        assert server.get("/status")["pid"] != first
        with Clients(
            server.port, lambda c, n: f"/order/c{c + 100}-{n}?durable", threads=2
        ) as after:
            after.wait_for(10)
    chain = chain_of(shop.restored())
    names = {what for _, what, _ in chain}
    for path, answer in {**before.answered, **after.answered}.items():
        if "durable" in path:
            assert chain[answer["entry"] - 1][1] in names


def test_gate_holds_every_answer_of_a_view_that_wrote(shop: Shop) -> None:
    """No view asks for durability, and yet every answered order survives SIGKILL."""
    application = "shop.gated_wsgi"
    with shop.serve("--workers", "2", application=application) as server:
        plain = Clients(server.port, lambda c, n: f"/order/c{c}-{n}", threads=4)
        with plain as clients:
            clients.wait_for(40)
            server.kill()
    chain = chain_of(shop.restored())
    for path, answer in clients.answered.items():
        reference = path.removeprefix("/order/")
        assert chain[answer["entry"] - 1][1] == f"order {reference}"


def test_health_is_503_while_a_replica_is_away(shop: Shop) -> None:
    """A load balancer is told, and told again when all is well; details are not."""
    with shop.serve() as server:
        until(lambda: health(server) == 200, lambda: server.log)
        request(server, "POST", "/order/c0-0?durable")
        away = shop.replica.with_name("away")
        shop.replica.rename(away)
        shop.replica.write_text("in the way")
        with Clients(server.port, lambda c, n: f"/order/c1-{n}", threads=1) as some:
            some.wait_for(3)
            until(lambda: health(server) == 503, lambda: server.log)
        _, _, body = request(server, "GET", "/health")
        assert json.loads(body) == {"ok": False, "databases": {"default": False}}
        shop.replica.unlink()
        away.rename(shop.replica)
        until(lambda: health(server) == 200, lambda: server.log)
        os.kill(server.process.pid, signal.SIGTERM)
        server.terminate()
    check_replica_is_exact(shop)
