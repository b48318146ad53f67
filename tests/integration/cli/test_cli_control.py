"""The control socket and the port of the daemon, asked by our command and by Litestream's."""

from __future__ import annotations

import json
import socket
import sqlite3
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support.commandline import CommandLine, count, eventually, make_app, write
from support.litestream import Litestream

from sqlitereplica.cli.commands.controlling import ask
from sqlitereplica.cli.control import Control
from sqlitereplica.cli.serving import Reply, serve_port, serve_socket
from sqlitereplica.cli.units import Units
from sqlitereplica.config import Config, build, parse_config
from sqlitereplica.errors import ConfigError, StoreError

CONFIG = """
addr: "127.0.0.1:0"
socket: {{enabled: true, path: {socket}}}
dbs:
  - path: app.db
    replica: {{path: replica, sync-interval: 50ms}}
"""


@pytest.fixture
def cli(tmp_path: Path, socket_path: str) -> Iterator[CommandLine]:
    """A daemon on a database, with a socket and a port."""
    make_app(tmp_path / "app.db")
    (tmp_path / "l.yml").write_text(CONFIG.format(socket=socket_path))
    cli = CommandLine(tmp_path)
    with cli.background("replicate", "-config", "l.yml"):
        eventually(Path(socket_path).exists, "the socket")
        yield cli


def port_of(cli: CommandLine) -> str:
    """Where metrics are, as the log says."""
    text = (cli.folder / "log-0").read_text()
    return text.split("metrics and health on ")[1].split('"')[0]


def get(url: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_commands_by_the_socket(cli: CommandLine, socket_path: str) -> None:
    """Sync, stop, start, register, unregister, list, info."""
    database = str(cli.folder / "app.db")
    at = ["-socket", socket_path]
    assert stat.S_IMODE(Path(socket_path).stat().st_mode) == 0o600
    write(cli.folder / "app.db", 3)
    found = cli.json("sync", database, "-wait", *at)
    assert found["path"] == database and found["replicated_txid"] == found["txid"] > 0
    cli("restore", "-o", "copy.db", "replica")
    assert count(cli.folder / "copy.db") == 13
    assert cli.json("sync", database, *at)["status"] in ("no_change", "synced_local")
    assert cli.json("stop", database, *at)["status"] == "stopped"
    assert cli.json("stop", database, *at)["status"] == "already_stopped"
    assert "stopped" in cli("sync", database, *at, code=1).stderr
    (row,) = cli.json("list", *at)["databases"]
    assert row == {"path": database, "status": "stopped"}
    assert cli.json("start", database, *at)["status"] == "started"
    assert cli.json("start", database, *at)["status"] == "already_running"
    make_app(cli.folder / "other.db")
    other = str(cli.folder / "other.db")
    register = ["register", other, "-replica", str(cli.folder / "r2"), *at]
    assert cli.json(*register)["status"] == "registered"
    assert cli.json(*register)["status"] == "already_registered"
    assert cli.json("sync", other, "-wait", *at)["replicated_txid"] == 1
    make_app(cli.folder / "third.db")
    third = ["register", str(cli.folder / "third.db"), "-replica"]
    done = cli(*third, str(cli.folder / "r2"), *at, code=1)
    assert "have the same replica" in done.stderr
    assert cli.json("info", *at)["database_count"] == 2
    assert cli.json("unregister", other, *at)["status"] == "unregistered"
    assert cli.json("unregister", other, *at)["status"] == "already_unregistered"
    assert "not found" in cli("sync", other, *at, code=1).stderr
    assert database in cli("list", *at).stdout and "pid" in cli("info", *at).stdout


def test_litestream_asks_our_daemon(
    cli: CommandLine, socket_path: str, litestream: Litestream
) -> None:
    """Its command line works with our socket."""
    database = str(cli.folder / "app.db")
    write(cli.folder / "app.db", 2)
    litestream.run("sync", "-socket", socket_path, "-wait", database)
    cli("restore", "-o", "copy.db", "replica")
    assert count(cli.folder / "copy.db") == 12
    assert database in litestream.run("list", "-socket", socket_path).stdout
    assert "app.db" in litestream.run("stop", "-socket", socket_path, database).stdout
    litestream.run("start", "-socket", socket_path, database)
    litestream.run("info", "-socket", socket_path)


def test_metrics_and_health(cli: CommandLine, socket_path: str) -> None:
    """For Prometheus and for load balancers; nothing else is on the port."""
    base = f"http://{port_of(cli)}"
    cli("sync", str(cli.folder / "app.db"), "-wait", "-socket", socket_path)

    def body() -> str:
        return get(f"{base}/metrics")[1]

    eventually(lambda: "litestream_replica_lag_seconds" in body(), "metrics")
    assert f'db="{cli.folder}/app.db"' in body()
    eventually(lambda: get(f"{base}/health")[0] == 200, "health")
    cli("stop", str(cli.folder / "app.db"), "-socket", socket_path)
    status, text = get(f"{base}/health")
    assert status == 503 and json.loads(text)["ok"] is False
    assert get(f"{base}/debug/pprof/")[0] == 404
    cli("start", str(cli.folder / "app.db"), "-socket", socket_path)


def test_heartbeat_is_sent_while_all_is_well(tmp_path: Path) -> None:
    """To a real server; not more often than told, and not while a replica fails."""
    beats: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            beats.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    make_app(tmp_path / "app.db")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        text = f"heartbeat-url: http://127.0.0.1:{server.server_port}/beat\n"
        text += "heartbeat-interval: 1m\n"
        text += "dbs: [{path: app.db, replica: {path: replica}}]"
        (tmp_path / "l.yml").write_text(text)
        with CommandLine(tmp_path).background("replicate", "-config", "l.yml"):
            eventually(lambda: beats, "the heartbeat")
        assert beats == ["/beat"]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def control(tmp_path: Path, socket_path: str) -> Iterator[str]:
    """The socket of a daemon without databases."""
    units = Units([], lambda: pytest.fail("nothing is dated"))
    server = serve_socket(socket_path, 0o600, Control(units, Config()).routes())
    yield socket_path
    server.close()
    assert not Path(socket_path).exists()


@pytest.mark.parametrize(
    ("method", "route", "body", "words"),
    [
        ("POST", "/sync", {}, "path is required"),
        ("POST", "/sync", {"path": 3}, "path is required"),
        ("POST", "/sync", {"path": "/none"}, "not found"),
        ("POST", "/register", {"path": "/x"}, "required"),
        ("POST", "/register", {"path": "/x", "replica_url": "zzz://y"}, "zzz"),
        ("POST", "/unregister", {}, "path is required"),
        ("GET", "/sync", None, "no such route"),
        ("GET", "/none", None, "no such route"),
    ],
)
def test_bad_requests_are_refused(
    control: str, method: str, route: str, body: Any, words: str
) -> None:
    """By name."""
    with pytest.raises(StoreError, match=words):
        ask(control, method, route, body, 10)


def test_socket_in_use_is_not_taken_away(control: str, tmp_path: Path) -> None:
    """A dead one is replaced, a live one never."""
    with pytest.raises(ConfigError, match="another process serves there"):
        serve_socket(control, 0o600, {})
    assert ask(control, "GET", "/info", None, 10)["database_count"] == 0


def test_socket_takes_the_place_of_nothing_else(tmp_path: Path) -> None:
    """A database at the path that was meant for another key stays."""
    (tmp_path / "app.db").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("app.db")
    for name in ("app.db", "link"):
        with pytest.raises(ConfigError, match="no socket"):
            serve_socket(str(tmp_path / name), 0o600, {})
    assert (tmp_path / "app.db").read_bytes() == b"precious"
    assert (tmp_path / "link").is_symlink()


def test_port_answers_over_ipv6_and_to_head() -> None:
    """As uptime monitors ask."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        server = serve_port("[::1]:0", {("GET", "/"): lambda q, b: Reply({"a": 1})})
    except ConfigError:
        pytest.skip("no IPv6 here")
    try:
        request = urllib.request.Request(f"http://{server.where}/", method="HEAD")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert (answer.status, answer.read()) == (200, b"")
        assert json.loads(get(f"http://{server.where}/")[1]) == {"a": 1}
    finally:
        server.close()


def test_nobody_answers(tmp_path: Path) -> None:
    """The error says what to do."""
    with pytest.raises(StoreError, match="no daemon answers"):
        ask(str(tmp_path / "none"), "GET", "/list", None, 1)


def test_port_that_is_taken_is_an_error_of_the_configuration() -> None:
    """And so is what is no address."""
    server = serve_port("127.0.0.1:0", {("GET", "/"): lambda q, b: Reply({"a": 1})})
    try:
        assert get(f"http://{server.where}/") == (200, '{"a": 1}')
        with pytest.raises(ConfigError, match="addr"):
            serve_port(server.where, {})
    finally:
        server.close()
    for text in ("9090", ":x", ":99999"):
        with pytest.raises(ConfigError, match="no address"):
            serve_port(text, {})


def test_registered_database_inherits_from_the_file(tmp_path: Path) -> None:
    """As if it were in it."""
    make_app(tmp_path / "app.db")
    config = parse_config("retention: 7d\nsync-interval: 20ms")
    units = Units([], lambda: datetime.now().astimezone())
    routes = Control(units, config, env={}).routes()
    body = {"path": str(tmp_path / "app.db"), "replica_url": str(tmp_path / "replica")}
    assert routes["POST", "/register"]({}, body).status == 200
    unit = units.find(body["path"])
    assert unit is not None and unit.plan.arguments["sync_interval"] == 0.02
    assert units.stop_all() == []
    assert build(config, {}) == []
    with closing(sqlite3.connect(tmp_path / "app.db")) as db:
        assert db.execute("select count(*) from note").fetchone() == (10,)
