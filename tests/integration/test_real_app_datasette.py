"""Datasette replicates the databases that it serves."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.browser import browse
from support.library import Library, request, until
from support.webserver import WebServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A library with four databases."""
    return Library(tmp_path)


def report(server: WebServer, cookie: str) -> dict[str, dict[str, object]]:
    """The databases on the status page, as its JSON has them."""
    status, _, body = request(server, "GET", "/-/sqlitereplica.json", cookie=cookie)
    assert status == 200, body
    found: dict[str, dict[str, object]] = json.loads(body)["databases"]
    return found


def sign_in(library: Library, server: WebServer) -> str:
    """The cookie of root."""
    _, headers, _ = request(server, "GET", library.token(server))
    return headers["set-cookie"].partition(";")[0]


def add_book(server: WebServer, title: str) -> None:
    """Write by a query of Datasette's own."""
    body = {"title": title}
    status, _, answer = request(server, "POST", "/books/add_book?_json=1", body)
    assert (status, json.loads(answer)["ok"]) == (200, True), answer


def healthy(server: WebServer) -> bool:
    """Whether a load balancer would be content."""
    return request(server, "GET", "/-/sqlitereplica/health")[0] == 200


def streaming(server: WebServer, cookie: str, *names: str) -> bool:
    """Whether these databases have nothing left to catch up."""
    found = report(server, cookie)
    states = [r["state"] for name in names for r in replicas_of(found[name])]
    return set(states) == {"streaming"}


def replicas_of(database: dict[str, object]) -> list[dict[str, object]]:
    """The replicas of a database in a report."""
    found = database["replicas"]
    assert isinstance(found, list)
    return found


def test_attached_databases_are_replicated(library: Library) -> None:
    """Mutable databases go where the configuration says; those attached later, too."""
    replicas = library.folder / "replicas"
    with library.serve("--root") as server:
        until(lambda: healthy(server), lambda: server.log)
        cookie = sign_in(library, server)
        assert sorted(report(server, cookie)) == ["books", "loans"]
        add_book(server, "one")

        server.get("/attach/news")
        until(lambda: "news" in report(server, cookie), lambda: server.log)
        until(lambda: healthy(server), lambda: server.log)
        server.get("/detach/loans")
        assert sorted(report(server, cookie)) == ["books", "news"]
        add_book(server, "the last")
        server.terminate()
    # Ended by SIGTERM, with a flush: nothing is waited for.
    assert library.restored("books", replicas / "books") == ["one", "the last"]
    assert library.restored("news", replicas / "news") == ["the first"]
    assert library.restored("loans", library.folder / "loans-replica") == []
    assert sorted(path.name for path in replicas.iterdir()) == ["books", "news"]


def test_books_survive_sigkill(library: Library) -> None:
    """What the status page says is replicated is there when the server is killed."""
    with library.serve("--root") as server:
        until(lambda: healthy(server), lambda: server.log)
        cookie = sign_in(library, server)
        until(lambda: streaming(server, cookie, "books"), lambda: server.log)
        before = report(server, cookie)["books"]["txid"]
        add_book(server, "kept")
        until(
            lambda: report(server, cookie)["books"]["txid"] != before,
            lambda: server.log,
        )
        server.kill()
    replica = library.folder / "replicas" / "books"
    assert library.restored("books", replica) == ["kept"]


def test_status_is_for_those_who_may_see_it(library: Library) -> None:
    """Others are refused the page and its data; health tells them no more than that."""
    with library.serve("--root") as server:
        for path in ("/-/sqlitereplica", "/-/sqlitereplica.json"):
            assert request(server, "GET", path)[0] == 403
        until(lambda: healthy(server), lambda: server.log)
        _, _, body = request(server, "GET", "/-/sqlitereplica/health")
        assert json.loads(body) == {"ok": True}
        cookie = sign_in(library, server)
        status, _, page = request(server, "GET", "/-/sqlitereplica", cookie=cookie)
        assert (status, b"loans" in page) == (200, True)
        assert str(library.folder / "replicas").encode() in page


def test_database_that_cannot_be_replicated_is_shown(library: Library) -> None:
    """One that is attached later and fails does not fail requests, but health."""
    (library.folder / ".bad.db-sqlitereplica").write_text("in the way of the folder")
    with library.serve("--root") as server:
        until(lambda: healthy(server), lambda: server.log)
        server.get("/attach/bad")
        until(lambda: not healthy(server), lambda: server.log)
        cookie = sign_in(library, server)
        _, _, page = request(server, "GET", "/-/sqlitereplica", cookie=cookie)
        assert b"cannot be used" in page
        assert request(server, "GET", "/bad")[0] == 200


def test_commands_replicate_nothing(library: Library) -> None:
    """Only a server replicates: ``datasette --get`` leaves no trace."""
    command = [sys.executable, "-m", "datasette", "books.db", "--get", "/books.json"]
    metadata = library.folder / "metadata.json"
    config = {"sqlitereplica": {"replicas": str(library.folder / "replica")}}
    metadata.write_text(json.dumps({"plugins": config}))
    done = subprocess.run(
        [*command, "--metadata", metadata],
        check=True,
        cwd=library.folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=100,
    )
    assert json.loads(done.stdout)["database"] == "books"
    assert not (library.folder / "replica").exists()
    assert not (library.folder / ".books.db-sqlitereplica").exists()


def test_status_page_in_a_browser(library: Library) -> None:
    """Root finds the page in the menu, and sees a write arrive without reloading it."""
    with library.serve("--root") as server, browse() as browser:
        until(lambda: healthy(server), lambda: server.log)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        errors: list[object] = []
        page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108
        page.goto(f"http://127.0.0.1:{server.port}{library.token(server)}")
        page.click("details.nav-menu > summary")
        page.click("text=Replication")
        page.wait_for_selector("text=All databases are replicated.")
        row = "#sqlitereplica-rows tr:has-text('books')"
        txid = f"{row} >> td:nth-child(5)"
        page.wait_for_selector(f"{row} >> td:nth-child(4):text-is('streaming')")
        shown = page.inner_text(txid)

        with closing(sqlite3.connect(library.folder / "books.db")) as connection:
            connection.execute("insert into book values('by another program')")
            connection.commit()
        until(lambda: page.inner_text(txid) != shown, lambda: server.log)
        assert page.inner_text("#sqlitereplica-summary") == (
            "All databases are replicated."
        )
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / "datasette.png", full_page=True)

        server.kill()
        page.wait_for_selector("text=The server does not answer")
        assert errors == []
