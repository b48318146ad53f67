"""Small HTTP servers: on a port for metrics and health, on a Unix socket for control.

A route is a function from the query and the body to a ``Reply``. Requests are answered in
threads of their own. Bodies are bounded; errors are JSON.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import socketserver
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from sqlitereplica.errors import ConfigError

__all__ = ["Reply", "Routes", "Server", "parse_address", "serve_port", "serve_socket"]

logger = logging.getLogger("sqlitereplica.cli")

_MOST_BODY = 1 << 20
_PATIENCE = 30.0


class Reply(NamedTuple):
    """An answer: bytes as they are, anything else as JSON."""

    body: object
    status: int = 200
    kind: str = "application/json"


Route = Callable[[Mapping[str, str], Mapping[str, Any]], Reply]
Routes = Mapping[tuple[str, str], Route]
"""By method and path."""


class _Handler(BaseHTTPRequestHandler):
    routes: ClassVar[Routes] = {}
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE
    server_version = "sqlitereplica"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        route = self.routes.get((method, parts.path))
        if route is None:
            known = any(path == parts.path for _, path in self.routes)
            status = 405 if known else 404
            return self._send(Reply({"error": "no such route"}, status))
        try:
            body = self._body()
        except ValueError as error:
            self.close_connection = True
            return self._send(Reply({"error": str(error)}, 400))
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            reply = route(query, body)
        except Exception as error:
            # The border of a request: whatever it is, the client has to hear of it.
            logger.exception("%s %s failed", method, parts.path)
            reply = Reply({"error": str(error)}, 500)
        return self._send(reply)

    def _body(self) -> Mapping[str, Any]:
        try:
            size = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            raise ValueError("the length of the body is no number") from None
        if not 0 <= size <= _MOST_BODY:
            raise ValueError(f"a body of {size} bytes is too large")
        data = self.rfile.read(size)
        if not data:
            return {}
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the body is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError("the body is no JSON object")
        return found

    def _send(self, reply: Reply) -> None:
        body = reply.body
        data = (
            body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
        )
        with suppress(ConnectionError):  # the client has gone
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("http: %s", format % args)

    def address_string(self) -> str:
        """Who asks, for the log; a Unix socket has no address."""
        address: Any = self.client_address
        return str(address[0]) if isinstance(address, tuple) else "local"


class _PortServer(ThreadingHTTPServer):
    daemon_threads = True


class _PortServer6(_PortServer):
    address_family = socket.AF_INET6


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def _handler(routes: Routes) -> type[_Handler]:
    return cast("type[_Handler]", type("Handler", (_Handler,), {"routes": routes}))


class Server:
    """A server and its thread, until ``close``."""

    def __init__(
        self, server: socketserver.BaseServer, path: str | None = None
    ) -> None:
        self.where = _text_of(server.server_address)
        self._server, self._path = server, path
        self._thread = threading.Thread(
            target=server.serve_forever, name="http", daemon=True, args=(0.1,)
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more requests."""
        self._server.shutdown()
        self._server.server_close()
        if self._path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)


def _text_of(address: Any) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return str(address)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of an ``addr``; raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"addr {address!r} is no address: write ':9090' or 'host:9090'"
        )
    return host.strip("[]"), int(port)


def serve_port(address: str, routes: Routes) -> Server:
    """Serve on ``host:port``, or ``:port`` for every interface.

    Raises:
        ConfigError: it is no address, or taken.
    """
    host, port = parse_address(address)
    kind = _PortServer6 if ":" in host else _PortServer
    try:
        server = kind((host, port), _handler(routes))
    except OSError as error:
        raise ConfigError(f"addr {address}: {error}") from error
    return Server(server)


def serve_socket(path: str, mode: int, routes: Routes) -> Server:
    """Serve on a Unix socket with these permissions.

    One that a killed process left is replaced; one that answers is not.

    Raises:
        ConfigError: it cannot be made, or another process serves there.
    """
    try:
        _remove_dead(path)
        # Made with narrow permissions from the first moment, then opened as told.
        mask = os.umask(0o177)
        try:
            server = _UnixServer(path, _handler(routes))
        finally:
            os.umask(mask)
        os.chmod(path, mode)
    except OSError as error:
        raise ConfigError(f"socket {path}: {error}") from error
    return Server(server, path)


def _remove_dead(path: str) -> None:
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        # A connection to any file is refused: it would be taken for a dead socket.
        raise OSError("there is something else that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError("another process serves there")
