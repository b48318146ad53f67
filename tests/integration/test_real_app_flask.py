"""A Flask application behind gunicorn, and the extension's commands."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from support.capturing import serialized
from support.library import request, until, until_noticed
from support.webserver import Clients, WebServer, elected

from sqlitereplica import restore
from sqlitereplica.integrations.flask import SQLiteReplica
from sqlitereplica.testing import MemoryStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APPS = Path(__file__).parents[1] / "apps"


class Guestbook:
    """The application in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database, self.replica = folder / "guests.db", folder / "replica"
        paths = [str(APPS), os.environ.get("PYTHONPATH")]
        self.env = {
            **os.environ,
            "FLASK_APP": "guestbook:create_app",
            "GUESTBOOK": str(folder),
            "GUESTBOOK_REPLICA": str(self.replica),
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def serve(self, *options: str) -> WebServer:
        """Behind gunicorn."""
        command = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4"]
        return WebServer(
            [sys.executable, *command, *options, "guestbook:create_app()"],
            log=self.folder / "gunicorn.log",
            folder=self.folder,
            env=self.env,
        )

    def flask(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            check=False,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        return done.returncode, done.stdout

    def lose(self) -> None:
        """Lose the database, and what is beside it."""
        for path in self.folder.glob("guests.db*"):
            path.unlink()

    def restored(self) -> Path:
        """A database made of the replica."""
        path = self.folder / "restored.db"
        restore(self.replica, path, if_exists="replace", verify="full")
        return path


@pytest.fixture
def guestbook(tmp_path: Path) -> Guestbook:
    """An empty one."""
    return Guestbook(tmp_path)


def sign(client: int, number: int) -> str:
    """The request of a client; of every two one asks for durability."""
    return f"/sign/{client}-{number}" + ("?durable" if (client + number) % 2 else "")


def names(database: Path) -> dict[int, str]:
    """The guests of a sound database by number."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        return dict(connection.execute("select id, name from guest"))


def check_durable(clients: Clients, found: dict[int, str]) -> None:
    """Every guest whose answer was durable is there."""
    durable = {p: a for p, a in clients.answered.items() if p.endswith("?durable")}
    assert durable
    for path, answer in durable.items():
        assert found[answer["id"]] == path.removeprefix("/sign/").partition("?")[0]


def test_guests_survive_sigkill_and_the_loss_of_the_machine(
    guestbook: Guestbook,
) -> None:
    """Fetched and replicated from the first request on, killed: all are there."""
    with guestbook.serve() as server:
        with Clients(server.port, sign, threads=4) as clients:
            clients.wait_for(40)
            server.kill()
    check_durable(clients, names(guestbook.restored()))

    guestbook.lose()
    with guestbook.serve("--workers", "2") as server:
        with Clients(server.port, lambda c, n: sign(c + 100, n), threads=2) as later:
            later.wait_for(20)
        assert request(server, "GET", "/healthz")[0] == 200
        server.terminate()
    found = names(guestbook.restored())
    check_durable(clients, found)
    check_durable(later, found)
    assert guestbook.restored().read_bytes() == serialized(guestbook.database)


def test_health_is_503_while_the_replica_is_away(guestbook: Guestbook) -> None:
    """A load balancer is told; paths and errors are not."""
    with guestbook.serve() as server:
        until(lambda: request(server, "GET", "/healthz")[0] == 200, lambda: server.log)
        request(server, "POST", "/sign/zero?durable")
        away = guestbook.folder / "away"
        guestbook.replica.rename(away)
        guestbook.replica.write_text("in the way")
        request(server, "POST", "/sign/one")
        until(lambda: request(server, "GET", "/healthz")[0] == 503, lambda: server.log)
        _, _, body = request(server, "GET", "/healthz")
        assert json.loads(body) == {"ok": False, "databases": {"default": False}}
        guestbook.replica.unlink()
        away.rename(guestbook.replica)
        server.terminate()
    assert names(guestbook.restored()) == {1: "zero", 2: "one"}


def test_commands_say_what_there_is(guestbook: Guestbook) -> None:
    """Without a backup, with one, and damaged; none of them replicates."""
    code, output = guestbook.flask("sqlitereplica", "status")
    assert (code, "no backup" in output) == (1, True), output
    assert list(guestbook.folder.glob(".guests*")) == []

    with guestbook.serve() as server:
        assert request(server, "POST", "/sign/one?durable")[0] == 200
        server.terminate()
    code, output = guestbook.flask("sqlitereplica", "status", "--json", "default")
    [points] = json.loads(output)["default"].values()
    assert (code, points["points"] > 0) == (0, True)
    code, output = guestbook.flask("sqlitereplica", "status", "other")
    assert (code, "does not name 'other'" in output) == (1, True), output

    guestbook.lose()
    code, output = guestbook.flask("sqlitereplica", "restore")
    assert (code, "restored from" in output) == (0, True), output
    assert names(guestbook.database) == {1: "one"}

    for path in guestbook.replica.rglob("*.ltx"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert guestbook.flask("sqlitereplica", "verify")[0] == 1


def test_flask_run_reloads_and_goes_on(guestbook: Guestbook) -> None:
    """Under the development server only the process that serves replicates."""
    source = guestbook.folder / "guestbook.py"
    source.write_bytes((APPS / "guestbook.py").read_bytes())
    guestbook.env["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    server = WebServer(
        [sys.executable, "-m", "flask", "run", "--port", "0", "--debug"],
        log=guestbook.folder / "flask.log",
        folder=guestbook.folder,
        env=guestbook.env,
    )
    with server:
        assert request(server, "POST", "/sign/one?durable")[0] == 200
        first = server.get("/status")["pid"]
        until_noticed(
            lambda: os.utime(source),
            lambda: pid_of(server) not in (None, first),
            lambda: server.log,
        )
        assert request(server, "POST", "/sign/two?durable")[0] == 200
        assert names(guestbook.restored()) == {1: "one", 2: "two"}


def pid_of(server: WebServer) -> int | None:
    """Who answers; None while nobody does."""
    if ports := server.ports():
        server.port = ports[-1]
    try:
        return int(server.get("/status")["pid"])
    except OSError:
        return None


# -- without a server ------------------------------------------------------------------


def app_with(folder: Path, configuration: Any) -> tuple[Flask, SQLiteReplica]:
    """An application with one page."""
    app = Flask("app", instance_path=str(folder))
    app.config["SQLITEREPLICA"] = configuration
    replication = SQLiteReplica(app)
    app.add_url_rule("/", view_func=lambda: "hello")
    return app, replication


def test_several_databases_by_name(tmp_path: Path) -> None:
    """Each is found by its name; the only one by no name, where there is one."""
    stores = {name: MemoryStore() for name in ("main", "audit")}
    app, replication = app_with(
        tmp_path,
        {
            name: {"database": f"{name}.db", "replicas": store.replica}
            for name, store in stores.items()
        },
    )
    with app.app_context():
        assert list(replication.replicators) == ["main", "audit"]
        path = replication.replicators["audit"].database
        assert path == str((tmp_path / "audit.db").resolve())
        with pytest.raises(ValueError, match="several"):
            _ = replication.replicator


def test_application_that_is_not_replicated_is_told_so() -> None:
    """By what is missing: the extension, or the configuration."""
    replication = SQLiteReplica()
    app = Flask(__name__)
    with app.app_context():
        with pytest.raises(RuntimeError, match="init_app"):
            replication.health()
        replication.init_app(app)
        with pytest.raises(ValueError, match="names no database"):
            _ = replication.replicator


def test_replication_is_started_by_requests_but_not_by_tests(tmp_path: Path) -> None:
    """A first request starts it; of an application under test only ``start`` does."""
    store = MemoryStore()
    description = {"database": tmp_path / "a.db", "replicas": store.replica}
    app, replication = app_with(tmp_path, description)
    app.testing = True
    with app.app_context():
        replicator = replication.replicator
    client = app.test_client()
    client.get("/")
    assert replicator.status().state == "stopped"
    replication.start(app)
    assert replicator.status().state != "stopped"
    replication.stop(app)
    app.testing = False
    client.get("/")
    assert replicator.status().state != "stopped"
    replication.stop(app)


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        ("backups", "is a mapping"),
        ({"default": "backups"}, "no mapping with the key 'database'"),
        ({"replicas": "backups"}, "default is no mapping with the key 'database'"),
        ({"database": "a.db"}, "at least one destination"),
        ({"database": "a.db", "replicas": "b", "sink": 1}, "sink"),
    ],
)
def test_nonsense_is_refused_when_the_application_is_made(
    tmp_path: Path, configuration: Any, why: str
) -> None:
    """Not at the first request."""
    with pytest.raises(ValueError, match=why):
        app_with(tmp_path, configuration)


def test_sigterm_of_a_worker_loses_nothing(guestbook: Guestbook) -> None:
    """A worker that is ended on its own flushes before it goes."""
    with guestbook.serve() as server:
        pid = server.get("/status")["pid"]
        for name in ("one", "two"):
            assert request(server, "POST", f"/sign/{name}")[0] == 200
        os.kill(pid, signal.SIGTERM)
        until(lambda: pid_of(server) not in (None, pid), lambda: server.log)
        server.kill()
    assert names(guestbook.restored()) == {1: "one", 2: "two"}


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preload"])
def test_workers_confirm_each_others_guests(
    guestbook: Guestbook, options: list[str]
) -> None:
    """All workers answer durably; the one that replicates is killed, another goes on."""
    with guestbook.serve("--workers", "3", *options) as server:
        load = Clients(
            server.port, lambda c, n: f"/sign/{c}-{n}?durable", threads=4, again=True
        )
        with load as clients:
            clients.wait_for(30)
            first = elected(server)
            os.kill(first, signal.SIGKILL)
            clients.wait_for(len(clients.answered) + 30)
            assert elected(server, but=first)
        server.terminate()
    assert {answer["pid"] for answer in clients.answered.values()} != {first}
    check_durable(clients, names(guestbook.restored()))
    assert guestbook.restored().read_bytes() == serialized(guestbook.database)
