"""The output gate under real servers: uvicorn, and gunicorn with several workers."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import pytest
from support.lifetime import await_true
from support.webserver import WebServer

from sqlitereplica import restore
from sqlitereplica.integrations.gate import BODY, HEADER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APPS = Path(__file__).parents[2] / "apps"
SERVERS = {
    "uvicorn": "uvicorn --host=127.0.0.1 --port=0 gated:asgi_application",
    "gunicorn": (
        "gunicorn --bind=127.0.0.1:0 --workers=2 --threads=4 gated:wsgi_application"
    ),
}


class Site:
    """A server at work, its database and its replica, which may go away."""

    def __init__(self, server: WebServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.replica = folder / "replica"

    def request(self, method: str, path: str) -> tuple[HTTPResponse, bytes]:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        with closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            return response, response.read()

    def notes(self) -> set[str]:
        """What the replica holds now."""
        path = self.folder / "restored.db"
        restore(self.replica, path, if_exists="replace")
        with closing(sqlite3.connect(path)) as connection:
            return {row[0] for row in connection.execute("select body from note")}

    def take_away(self) -> None:
        """There is a file where the folder was."""
        self.replica.rename(self.folder / "away")
        self.replica.write_bytes(b"")

    def bring_back(self) -> None:
        """The folder is back."""
        self.replica.unlink()
        (self.folder / "away").rename(self.replica)


@pytest.fixture(params=sorted(SERVERS))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """The application under each server."""
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))
    env = {
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path),
        "GATED_DATABASE": str(tmp_path / "app.db"),
        "GATED_REPLICA": str(tmp_path / "replica"),
    }
    command = [sys.executable, "-m", *SERVERS[request.param].split()]
    with WebServer(
        command, log=tmp_path / "server.log", folder=tmp_path, env=env
    ) as server:
        site = Site(server, tmp_path)
        await_true(lambda: b'"ok": true' in site.request("GET", "/status")[1])
        yield site


def test_answers_of_writes_wait_and_others_do_not(site: Site) -> None:
    """What an answer speaks of is in the replica; with the store away it is refused."""
    for number in range(4):
        response, _ = site.request("POST", f"/note-{number}")
        assert (response.status, response.headers[HEADER]) == (200, "yes")
        assert f"note-{number}" in site.notes()
    response, body = site.request("POST", "/stream-1")
    assert (response.status, body) == (200, b"[1]")
    assert "stream-1" in site.notes()

    site.take_away()
    response, body = site.request("POST", "/note-away")
    assert (response.status, body) == (503, BODY)
    assert response.headers[HEADER] == "no"
    assert int(response.headers["Retry-After"]) > 0
    response, _ = site.request("POST", "/pass/note-passed")
    assert (response.status, response.headers[HEADER]) == (200, "no")
    for method, path in (("GET", "/status"), ("POST", "/nothing-written")):
        response, _ = site.request(method, path)
        assert (response.status, response.headers[HEADER]) == (200, None)
    with pytest.raises(HTTPException):
        site.request("POST", "/stream-2")

    site.bring_back()
    await_true(lambda: site.request("POST", "/note-back")[0].status == 200)
    assert {"note-away", "note-back", "note-passed", "stream-2"} <= site.notes()
