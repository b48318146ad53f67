"""Seats are booked, in FastAPI and in Starlette: an application with a lifespan.

The environment says where database (``BOOKINGS_DATABASE``) and replica
(``BOOKINGS_REPLICA``) are.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import fastapi
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sqlitereplica import Replicator
from sqlitereplica.integrations.asgi import lifespan

__all__ = ["fast", "star"]

DATABASE, REPLICA = os.environ["BOOKINGS_DATABASE"], os.environ["BOOKINGS_REPLICA"]


def make() -> Replicator:
    """The Replicator of this worker."""
    return Replicator(DATABASE, REPLICA, sync_interval=0.2, restore="if-missing")


@asynccontextmanager
async def own_lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """The application's own: it finds a database, and writes until the end."""
    with closing(connect()) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute(
            "create table if not exists seat(id integer primary key, name text unique)"
        )
        connection.execute("create table if not exists life(pid, what)")
        add = "insert into life values(?, ?)"
        connection.execute(add, (os.getpid(), "begun"))
        yield {"limit": 100_000}
        connection.execute(add, (os.getpid(), "ended"))


def connect() -> sqlite3.Connection:
    """A connection for one request."""
    return sqlite3.connect(DATABASE, isolation_level=None, timeout=30)


def book(name: str) -> int | None:
    """Commit a booking; returns its number."""
    with closing(connect()) as connection:
        return connection.execute("insert into seat(name) values(?)", (name,)).lastrowid


def count() -> int:
    """How many seats are booked."""
    with closing(connect()) as connection:
        found: int = connection.execute("select count(*) from seat").fetchone()[0]
        return found


async def answer_booking(state: Any, name: str, durable: bool) -> dict[str, Any]:
    """Book, and wait for durability if that was asked for."""
    number = await run_in_threadpool(book, name)
    if durable:
        await state.replicator.sync_async(timeout=60)
    return {"id": number, "pid": os.getpid(), "limit": state.limit}


async def answer_status(state: Any) -> dict[str, Any]:
    """How it is."""
    status = state.replicator.status()
    return {
        "pid": os.getpid(),
        "count": await run_in_threadpool(count),
        "state": status.state,
        "txid": status.txid,
        "by": status.pid,
    }


fast = fastapi.FastAPI(lifespan=lifespan(make, then=own_lifespan))


@fast.post("/book/{name}")
async def fast_book(request: fastapi.Request, name: str) -> dict[str, Any]:
    """In FastAPI."""
    return await answer_booking(request.state, name, "durable" in request.query_params)


@fast.get("/status")
async def fast_status(request: fastapi.Request) -> dict[str, Any]:
    """In FastAPI."""
    return await answer_status(request.state)


async def star_book(request: Request) -> JSONResponse:
    """In Starlette."""
    name, durable = request.path_params["name"], "durable" in request.query_params
    return JSONResponse(await answer_booking(request.state, name, durable))


async def star_status(request: Request) -> JSONResponse:
    """In Starlette."""
    return JSONResponse(await answer_status(request.state))


star = Starlette(
    routes=[
        Route("/book/{name}", star_book, methods=["POST"]),
        Route("/status", star_status),
    ],
    lifespan=lifespan(make, then=own_lifespan),
)
