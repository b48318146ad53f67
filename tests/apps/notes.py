"""A small ASGI application without a framework: notes, and answers that are durable.

The environment says where database (``NOTES_DATABASE``) and replica (``NOTES_REPLICA``)
are; credentials come from AWS's variables.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs

from sqlitereplica import Replicator, restore

__all__ = ["application"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DATABASE, REPLICA = os.environ["NOTES_DATABASE"], os.environ["NOTES_REPLICA"]
replicator = Replicator(DATABASE, REPLICA, sync_interval=0.1)


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Serve one connection, or the application's life."""
    if scope["type"] == "lifespan":
        await live(receive, send)
    elif scope["type"] == "http":
        await serve(scope, receive, send)


async def live(receive: Receive, send: Send) -> None:
    """Fetch the database, replicate while requests are served, flush at the end."""
    await receive()
    try:
        await asyncio.to_thread(prepare)
        async with replicator:
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": repr(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})


def prepare() -> None:
    """Make sure that there is a database with its table."""
    restore(REPLICA, DATABASE, if_exists="skip", missing="skip")
    with closing(connect()) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute(
            "create table if not exists note"
            "(id integer primary key, name text unique, body)"
        )


def connect() -> sqlite3.Connection:
    """A connection for one request."""
    return sqlite3.connect(DATABASE, isolation_level=None, timeout=30)


async def serve(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one request."""
    while (await receive()).get("more_body"):
        pass
    query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
    status, answer = 200, {}
    match scope["method"], scope["path"].split("/"):
        case "GET", ["", "status"]:
            answer = {
                "count": await asyncio.to_thread(count),
                "txid": replicator.status().txid,
            }
        case "POST", ["", "note", name]:
            answer = {"id": await asyncio.to_thread(save, name)}
            if "durable" in query:
                await replicator.sync_async(timeout=30)
        case "POST", ["", "snapshot", _]:
            await asyncio.to_thread(replicator.snapshot)
        case _:
            status = 404
    body = json.dumps(answer).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def save(name: str) -> int | None:
    """Commit a note; returns its number."""
    with closing(connect()) as connection:
        added = connection.execute(
            "insert into note(name, body) values(?, randomblob(500))", (name,)
        )
        return added.lastrowid


def count() -> int:
    """How many notes there are."""
    with closing(connect()) as connection:
        found: int = connection.execute("select count(*) from note").fetchone()[0]
        return found
