"""The library: a Datasette with databases, replicas and a plugin of its own."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from support.webserver import WebServer

from sqlitereplica import restore

__all__ = ["Library", "request", "until", "until_noticed"]

APP = Path(__file__).parents[1] / "apps" / "library"


class Library:
    """Its files in a folder, and how it is served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("books", "loans", "private", "old"):
            with closing(sqlite3.connect(folder / f"{name}.db")) as connection:
                connection.execute("create table book(title)")
                connection.commit()

    def serve(self, *options: str) -> WebServer:
        """``datasette serve``, with one of its databases immutable."""
        files = ["books.db", "loans.db", "private.db", "--immutable", "old.db"]
        command = [sys.executable, "-m", "datasette", "serve", "--port", "0", *files]
        own = ["--metadata", APP / "metadata.yml", "--plugins-dir", APP / "plugins"]
        return WebServer(
            [*command, *own, *options],
            log=self.folder / "datasette.log",
            folder=self.folder,
            env={
                "LIBRARY_REPLICAS": str(self.folder / "replicas" / "{name}"),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )

    def token(self, server: WebServer) -> str:
        """The path by which root signs in, of a server with ``--root``."""
        [found] = re.findall(r"(/-/auth-token\?token=\w+)", server.log)
        return str(found)

    def restored(self, name: str, replica: Path) -> list[str]:
        """The titles that a replica has."""
        copy = self.folder / f"{name}-restored.db"
        restore(replica, copy, if_exists="replace", verify="full")
        with closing(sqlite3.connect(copy)) as connection:
            return [title for (title,) in connection.execute("select title from book")]


def request(
    server: WebServer, method: str, path: str, body: Any = None, cookie: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if cookie:
            headers["cookie"] = cookie
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def until_noticed(
    change: Callable[[], object],
    condition: Callable[[], bool],
    what: Callable[[], object],
) -> None:
    """Change something again every ten seconds until it is so.

    A reloader looks once a second, and knows of no change before its first look.
    """
    for _ in range(8):
        change()
        again = time.monotonic() + 10
        while time.monotonic() < again:
            if condition():
                return
            time.sleep(0.02)
    raise AssertionError(what())


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)
