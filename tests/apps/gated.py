"""One small application behind the output gate, for ASGI and for WSGI servers.

``GATED_DATABASE`` and ``GATED_REPLICA`` say where its files are. Nothing but the gate makes an
upload: the interval is an hour. Below ``/pass`` the gate lets answers go when the store is
away; elsewhere it does not.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

from sqlitereplica import Replicator
from sqlitereplica.integrations import asgi, wsgi

__all__ = ["asgi_application", "wsgi_application"]

DATABASE, REPLICA = os.environ["GATED_DATABASE"], os.environ["GATED_REPLICA"]


def make() -> Replicator:
    """The Replicator of a worker."""
    with closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table if not exists note(body)")
    return Replicator(DATABASE, REPLICA, sync_interval=3600)


def save(body: str) -> None:
    """One commit."""
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection, connection:
        connection.execute("insert into note values(?)", (body,))


def count() -> int:
    """How many there are."""
    with closing(sqlite3.connect(DATABASE, timeout=30)) as connection:
        found: int = connection.execute("select count(*) from note").fetchone()[0]
        return found


def answer(method: str, path: str, replicator: Replicator) -> Iterator[bytes]:
    """The parts of an answer; some are written while it is sent."""
    what = path.removeprefix("/pass").strip("/")
    if what.startswith("stream"):
        yield b"["
        save(what)
        yield b"1]"
        return
    if method == "POST" and what.startswith("note"):
        save(what)
    status = replicator.status()
    yield json.dumps(
        {"count": count(), "state": status.state, "ok": status.ok}
    ).encode()


# -- ASGI ------------------------------------------------------------------------------


async def asgi_core(scope: Any, receive: Any, send: Any) -> None:
    """The application without its gate."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in answer(scope["method"], scope["path"], scope["state"]["replicator"]):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def by_path(strict: Any, lax: Any) -> Any:
    """Below ``/pass`` the one, elsewhere the other."""

    async def choose(scope: Any, receive: Any, send: Any) -> None:
        chosen = lax if scope.get("path", "").startswith("/pass") else strict
        await chosen(scope, receive, send)

    return choose


asgi_application = asgi.Replicated(
    by_path(
        asgi.DurabilityMiddleware(asgi_core, timeout=20),
        asgi.DurabilityMiddleware(asgi_core, timeout=20, when_away="pass"),
    ),
    make,
)


# -- WSGI ------------------------------------------------------------------------------

replicator: Replicator | None = None


def wsgi_core(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """The application without its gate."""
    assert replicator is not None
    start("200 OK", [("Content-Type", "application/json")])
    return answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], replicator)


def wsgi_application(
    environ: dict[str, Any], start: Callable[..., Any]
) -> Iterable[bytes]:
    """The application; its Replicator begins with the first request of a worker."""
    global replicator
    if replicator is None:
        replicator = make()
        replicator.start()
    lax = environ["PATH_INFO"].startswith("/pass")
    gate = wsgi.DurabilityMiddleware(
        wsgi_core, replicator, timeout=20, when_away="pass" if lax else "fail"
    )
    return gate(environ, start)
