"""A TCP proxy in front of an HTTP server: it sees every request and may lose answers."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["Proxy", "start_proxy"]

_REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


class Proxy:
    """Passes bytes on in both directions.

    ``requests`` has ``"METHOD target"`` of each, ``answered`` counts the bytes that came
    back.

    ``lose_answers`` is the number of answers, to requests whose line matches ``losing``,
    that do not come through: the server has done what was asked, the client sees its
    connection end.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[str] = []
        self.answered = 0
        self.losing = re.compile("^PUT ")
        self.lose_answers = 0
        self.lost = 0
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Take connections until it is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            pair = _Pair(self, client, server)
            threading.Thread(target=pair.pass_requests, daemon=True).start()
            threading.Thread(target=pair.pass_answers, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def saw(self, line: str) -> None:
        """A request went by."""
        with self._lock:
            self.requests.append(line)

    def passed(self, size: int) -> None:
        """Bytes of an answer went by."""
        with self._lock:
            self.answered += size

    def loses(self, line: str) -> bool:
        """Whether the answer to a request gets lost; counts it."""
        with self._lock:
            if self.lose_answers == 0 or not self.losing.match(line):
                return False
            self.lose_answers -= 1
            self.lost += 1
            return True


class _Pair:
    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket
    ) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._line = ""

    def pass_requests(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(1 << 20):
                # A request begins a segment: clients wait for one answer before the next.
                if match := _REQUEST.match(data):
                    self._line = f"{match[1].decode()} {match[2].decode()}"
                    self._proxy.saw(self._line)
                self._server.sendall(data)
        self._end()

    def pass_answers(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(1 << 20):
                if not data.startswith(b"HTTP/1.1 100") and self._proxy.loses(
                    self._line
                ):
                    break
                self._proxy.passed(len(data))
                self._client.sendall(data)
        self._end()

    def _end(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def start_proxy(upstream: int) -> Iterator[Proxy]:
    """Run one in front of a port of this machine."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
