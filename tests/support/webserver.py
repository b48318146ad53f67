"""A web server of a real application in a process of its own, and clients that load it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Clients", "WebServer", "elected"]

_START_SECONDS = 90.0


class WebServer:
    """A server that listens on a free port, which it tells in its log.

    It is killed at the end of ``with``, if ``terminate`` did not end it before.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        folder: Path,
        env: Mapping[str, str],
    ) -> None:
        self._command, self._log, self._folder = command, log, folder
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
        self.port = 0

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise
        return self

    def _wait(self) -> None:
        """Return when a request is answered."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            if ports := self.ports():
                self.port = ports[0]
                try:
                    self.get("/status")
                    return
                except (OSError, HTTPException):
                    pass  # not yet
            time.sleep(0.02)

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text()

    def ports(self) -> list[int]:
        """The ports that it told, one after the other where it starts anew."""
        told = r"(?:http://|TCP address )127\.0\.0\.1:([1-9]\d*)"
        return [int(port) for port in re.findall(told, self.log)]

    def get(self, path: str) -> Any:
        """The JSON of a page; raises AssertionError for any status but 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, (response.status, body, self.log)
            return json.loads(body)
        finally:
            connection.close()

    def kill(self) -> None:
        """End it and its workers by SIGKILL."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all ended already
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to end, and wait until it has."""
        self.process.terminate()
        self.process.wait(45)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        if error is not None:
            error.add_note(self.log)


class Clients:
    """Threads that post one request after the other until told to stop.

    ``path_of(client, number)`` is what to post. ``answered`` has the JSON of every answer
    by its path; ``refused`` other answers. A connection that ends, ends its thread, unless
    ``again``.
    """

    def __init__(
        self,
        port: int,
        path_of: Callable[[int, int], str],
        *,
        threads: int,
        again: bool = False,
    ) -> None:
        self.answered: dict[str, Any] = {}
        self.refused: list[tuple[int, bytes]] = []
        self._port, self._path_of, self._again = port, path_of, again
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(n,)) for n in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def _run(self, client: int) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            self._post(connection, client)
        finally:
            connection.close()

    def _post(self, connection: HTTPConnection, client: int) -> None:
        number = 0
        while not self._stop.is_set():
            path = self._path_of(client, number)
            number += 1
            try:
                connection.request("POST", path)
                response = connection.getresponse()
                body = response.read()
            except (OSError, HTTPException):
                connection.close()
                if not self._again:
                    return
                time.sleep(0.02)
                continue
            if response.status == 200:
                self.answered[path] = json.loads(body)
            else:
                self.refused.append((response.status, body[-2000:]))
                return

    def wait_for(self, count: int, *, seconds: float = 100) -> None:
        """Return when so many requests were answered with 200."""
        deadline = time.monotonic() + seconds
        while len(self.answered) < count:
            assert not self.refused, self.refused
            assert time.monotonic() < deadline, len(self.answered)
            time.sleep(0.01)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if error is None:
            assert not self.refused, self.refused


def elected(server: WebServer, *, but: int = 0) -> int:
    """The process that replicates, once there is one, and it is another than ``but``."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = server.get("/status")
        if status["state"] == "running" and status["by"] not in (0, but):
            return int(status["by"])
        time.sleep(0.02)
    raise AssertionError(server.log)
