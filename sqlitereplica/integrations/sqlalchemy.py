"""From an engine of SQLAlchemy to a Replicator, and commits that wait for it.

The Replicator opens the database by the very module that the engine's dialect uses, so that
both share one copy of SQLite; it takes no connection from the engine's pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction, scoped_session, sessionmaker
from sqlalchemy.util import await_only

from sqlitereplica.replicate import Replicator, Require
from sqlitereplica.replicate.options import ReplicaLike

__all__ = ["Sessions", "replicator_of", "sync_on_commit"]

Sessions: TypeAlias = (
    sessionmaker[Any] | scoped_session[Any] | type[Session] | async_sessionmaker[Any]
)
"""What makes the sessions of which commits are to wait."""

_COMMITTED = "sqlitereplica.committed"


def replicator_of(
    engine: Engine | AsyncEngine,
    replicas: Sequence[ReplicaLike] | ReplicaLike,
    **options: Any,
) -> Replicator:
    """A Replicator of the database that an engine is for; not started.

    Args:
        engine: An engine of SQLite on a file, of the drivers ``pysqlite`` or ``aiosqlite``;
            of any driver if ``connect`` is among the options.
        replicas: As for ``Replicator``.
        **options: Likewise.

    Raises:
        ValueError: it is of another database or driver, or not on a file.
    """
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    url, dialect = sync_engine.url, sync_engine.dialect
    if dialect.name != "sqlite":
        raise ValueError(f"this engine is of {dialect.name}, not of SQLite: {url!r}")
    if not url.database:
        raise ValueError(
            f"this engine's URL has no file: {url!r}; pass the path to Replicator itself"
        )
    options.setdefault("connect", _connect_of(dialect))
    return Replicator(url.database, replicas, **options)


def _connect_of(dialect: Any) -> Callable[[str], Any]:
    """The ``connect`` of the module that a dialect opens databases with."""
    match dialect.driver:
        case "pysqlite":
            connect = dialect.loaded_dbapi.connect
        case "aiosqlite":
            connect = dialect.loaded_dbapi.sqlite.connect
        case driver:
            raise ValueError(
                f"how {driver} opens a database is not known here: pass connect=, a"
                " function from a path to a connection of the same SQLite"
            )
    found: Callable[[str], Any] = connect
    return found


def sync_on_commit(
    sessions: Sessions,
    replicator: Replicator,
    *,
    timeout: float | None = 30.0,
    require: Require | None = None,
) -> None:
    """Let every commit of these sessions return only when it is durable in the replicas.

    The wait comes when the session has given its connection back. Sessions of asyncio wait
    without blocking the event loop.

    Where durability is not confirmed, ``commit()`` raises what ``Replicator.sync`` raises:
    the transaction *is* committed all the same, and the session can be used again.

    Args:
        sessions: A ``sessionmaker``, ``scoped_session``, class of sessions, or
            ``async_sessionmaker``. Sessions that it made before are not affected.
        replicator: Of the database that they commit to.
        timeout: Seconds to wait; None for as long as it takes.
        require: How many replicas must confirm, if not what the Replicator says.
    """

    def wait() -> None:
        replicator.sync(timeout, require=require)

    def wait_async() -> None:
        await_only(replicator.sync_async(timeout, require=require))

    if isinstance(sessions, async_sessionmaker):
        _listen(_own_class(sessions), wait_async)
    else:
        _listen(sessions, wait)


def _own_class(sessions: async_sessionmaker[Any]) -> type[Session]:
    """A class for the sessions inside those of asyncio that is shared with no others."""
    base = sessions.kw.get("sync_session_class", sessions.class_.sync_session_class)
    own = type("SyncedSession", (base,), {})
    sessions.configure(sync_session_class=own)
    return own


def _listen(target: Any, wait: Callable[[], None]) -> None:
    def committed(session: Session) -> None:
        # SQLAlchemy says so of the release of a savepoint, too.
        if not session.in_nested_transaction():
            session.info[_COMMITTED] = True

    def ended(session: Session, transaction: SessionTransaction) -> None:
        # Not in ``committed``: there the session still holds its connection, and would be
        # left in the middle of its transaction by an error.
        if transaction.parent is None and session.info.pop(_COMMITTED, False):
            wait()

    event.listen(target, "after_commit", committed)
    event.listen(target, "after_transaction_end", ended)
