"""An HTTP proxy that gives answers of its own now and then."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Meddler", "start_meddler"]


class Meddler(ThreadingHTTPServer):
    """Passes requests on to a port of this machine. ``requests`` has method and target."""

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.requests: list[tuple[str, str]] = []
        self.cut_bodies = 0
        """How many more bodies of answers to GET end in the middle."""
        self.refused: dict[str, int] = {}
        """Status by method: what conditional PUTs, and others, are answered undone."""
        self.bodies: dict[str, bytes] = {}
        """Bodies by method: what is answered, with status 200, without it being done."""

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up now and then: that is theirs to say."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Meddler

    def handle_one(self) -> None:
        meddler, method = self.server, self.command
        meddler.requests.append((method, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_plain_put = method == "PUT" and not self.headers.get("If-None-Match")
        if method in meddler.refused and not is_plain_put:
            self._answer(meddler.refused[method], {}, b"")
        elif method in meddler.bodies:
            self._answer(
                200, {"Content-Type": "application/xml"}, meddler.bodies[method]
            )
        else:
            self._pass_on(body)

    def _pass_on(self, body: bytes) -> None:
        connection = HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)
        # The signature covers the headers and the address of this proxy.
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        self._answer(response.status, dict(response.headers), data)

    def _answer(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response_only(status)
        dropped = {"transfer-encoding", "content-length"}
        kept = {k: v for k, v in headers.items() if k.lower() not in dropped}
        size = str(len(data))
        if self.command == "HEAD":
            size, data = headers.get("Content-Length", "0"), b""
        for name, value in {**kept, "Content-Length": size}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and self.server.cut_bodies and data:
            self.server.cut_bodies -= 1
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)

    do_DELETE = handle_one  # noqa: N815
    do_GET = handle_one  # noqa: N815
    do_HEAD = handle_one  # noqa: N815
    do_POST = handle_one  # noqa: N815
    do_PUT = handle_one  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def start_meddler(upstream: int) -> Iterator[Meddler]:
    """Run one in front of a port of this machine."""
    meddler = Meddler(upstream)
    thread = threading.Thread(target=meddler.serve_forever, args=[0.05])
    thread.start()
    try:
        yield meddler
    finally:
        meddler.shutdown()
        meddler.server_close()
        thread.join()
