"""Money is moved between accounts, by async SQLAlchemy in FastAPI: answers are durable.

The environment says where database (``WALLET_DATABASE``) and replica (``WALLET_REPLICA``)
are.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlitereplica import Replicator
from sqlitereplica.integrations.asgi import lifespan
from sqlitereplica.integrations.sqlalchemy import replicator_of, sync_on_commit

__all__ = ["app"]

DATABASE, REPLICA = os.environ["WALLET_DATABASE"], os.environ["WALLET_REPLICA"]
ACCOUNTS, MONEY = 10, 1000


class Base(DeclarativeBase):
    """Of all tables."""


class Account(Base):
    """Somebody's money."""

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    money: Mapped[int] = mapped_column(default=MONEY)


class Transfer(Base):
    """Money that was moved."""

    __tablename__ = "transfer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


engine = create_async_engine(
    f"sqlite+aiosqlite:///{DATABASE}", connect_args={"timeout": 30}
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def prepare(connection: Any, record: Any) -> None:
    """WAL for all; transactions begin by our own BEGIN IMMEDIATE."""
    connection.isolation_level = None
    connection.execute("pragma journal_mode=wal")


@event.listens_for(engine.sync_engine, "begin")
def begin(connection: Any) -> None:
    """Two transfers do not read before either of them writes."""
    connection.exec_driver_sql("begin immediate")


def make() -> Replicator:
    """The Replicator of this process: commits of ``sessions`` wait for it."""
    replicator = replicator_of(engine, REPLICA, sync_interval=0.2, restore="if-missing")
    sync_on_commit(sessions, replicator, timeout=60)
    return replicator


@asynccontextmanager
async def accounts(app: fastapi.FastAPI) -> AsyncIterator[None]:
    """Make the tables, and accounts if there are none."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions.begin() as session:
        if await session.scalar(select(func.count(Account.id))) == 0:
            session.add_all(Account() for _ in range(ACCOUNTS))
    yield
    await engine.dispose()


app = fastapi.FastAPI(lifespan=lifespan(make, then=accounts))


@app.post("/transfer/{name}")
async def transfer(name: str) -> dict[str, int]:
    """Move one unit between two accounts; when this answers, it is durable."""
    giver, taker = (hash((name, side)) % ACCOUNTS + 1 for side in range(2))
    async with sessions.begin() as session:
        await move(session, giver, taker)
        moved = Transfer(name=name)
        session.add(moved)
    return {"id": moved.id}


async def move(session: AsyncSession, giver: int, taker: int) -> None:
    """One unit from one account to the other."""
    for account, change in ((giver, -1), (taker, 1)):
        found = await session.get_one(Account, account)
        found.money += change
        await session.flush()


@app.get("/status")
async def status(request: fastapi.Request) -> dict[str, Any]:
    """How it is."""
    async with sessions() as session:
        count = await session.scalar(select(func.count(Transfer.id)))
        total = await session.scalar(select(func.sum(Account.money)))
    now = request.state.replicator.status()
    return {"count": count, "total": total, "txid": now.txid, "state": now.state}
