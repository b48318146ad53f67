"""What is asked of a running daemon by its socket: ``sync``, ``start``, ``list`` and so on."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from sqlitereplica.cli.arguments import Parser
from sqlitereplica.cli.output import print_json, print_table
from sqlitereplica.config import database_path
from sqlitereplica.config.schema import SocketConfig
from sqlitereplica.errors import StoreError

__all__ = ["add", "ask"]

_HELP = {
    "sync": "have a running daemon sync a database",
    "start": "have it replicate a database again",
    "stop": "have it stop replicating one, after a last flush",
    "register": "have it replicate one more",
    "unregister": "have it let one go, after a last flush",
    "list": "list the databases of a running daemon",
    "info": "ask a running daemon about itself",
}


def add(commands: Any) -> None:
    """Declare the commands."""
    for name, text in _HELP.items():
        parser: Parser = commands.add_parser(name, help=text)
        if name not in ("list", "info"):
            parser.add_argument("db", metavar="DB", help="the database")
        if name == "register":
            parser.flag("replica", metavar="URL", required=True, help="where to")
        if name == "sync":
            parser.switch("wait", "return when it is durable in every replica")
        parser.flag(
            "socket", default=SocketConfig().path, help="the socket of the daemon"
        )
        parser.flag("timeout", type=float, default=30.0, help="seconds (default: 30)")
        parser.json_flag()
        parser.set_defaults(run=_run, asked=name)


def _run(arguments: argparse.Namespace) -> int:
    name = arguments.asked
    if name in ("list", "info"):
        found = ask(arguments.socket, "GET", f"/{name}", None, arguments.timeout)
    else:
        body = {"path": database_path(arguments.db), "timeout": arguments.timeout}
        if name == "register":
            body["replica_url"] = arguments.replica
        if name == "sync":
            body["wait"] = arguments.wait
        found = ask(arguments.socket, "POST", f"/{name}", body, arguments.timeout)
    if arguments.json:
        print_json(found)
    elif name == "list":
        print_table(
            ("database", "status", "last sync"),
            [
                (row["path"], row["status"], row.get("last_sync_at") or "-")
                for row in found["databases"]
            ],
        )
    else:
        for key, value in found.items():
            print(f"{key}: {value}")
    return 0


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    path: str, method: str, route: str, body: Mapping[str, Any] | None, timeout: float
) -> Any:
    """Ask a daemon.

    Raises:
        StoreError: it does not answer, or its answer is an error.
    """
    connection = _Connection(path, timeout + 5)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, quote(route, safe="/?=&%"), data)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StoreError(
            f"no daemon answers at {path}: {error}. Is 'socket: {{enabled: true}}' in its"
            " configuration?",
            operation="open",
            key=path,
            transient=True,
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        text = found.get("error", answer.reason) if isinstance(found, dict) else found
        raise StoreError(str(text), operation="open", key=path, transient=False)
    return found
