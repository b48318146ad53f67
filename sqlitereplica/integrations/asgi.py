"""Replication for the life of an ASGI application.

``lifespan`` is for frameworks that take a lifespan (Starlette, FastAPI, Litestar);
``Replicated`` is around an application of any framework, also of one that knows nothing of
lifespans, such as Django. Both make their Replicator in the server's worker when it starts,
after any ``fork()``, and stop it, with a last flush, before the server is told that the
application has shut down. Servers may end right after that by a signal, without the
interpreter's own exit: what is not flushed then is shipped at the next start.

Nothing of ASGI's own types is imported; no framework is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeAlias

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.integrations.asgigate import (
    ASGIApp,
    DurabilityMiddleware,
    Message,
    Receive,
    Send,
)
from sqlitereplica.replicate import Replicator

__all__ = ["DurabilityMiddleware", "Lifespan", "Replicated", "lifespan"]

logger = logging.getLogger("sqlitereplica")

Lifespan: TypeAlias = Callable[
    [Any], AbstractAsyncContextManager[Mapping[str, Any] | None]
]
"""What Starlette and FastAPI take as ``lifespan=``."""


class Startable(Protocol):
    """What is started and stopped: a Replicator, or several together."""

    def start(self) -> None:
        """Begin to replicate."""

    def stop(self) -> None:
        """Flush and end."""


def lifespan(
    make: Callable[[], Replicator],
    *,
    then: Lifespan | None = None,
    state: str = "replicator",
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """A lifespan in which a database is replicated.

    Args:
        make: Makes the Replicator; called once in each worker, in a thread.
        then: The application's own lifespan. It runs inside: the database is there and
            replicated when it begins, and what it commits at its end is flushed.
        state: Where requests find the Replicator: ``request.state.replicator``.

    Example:
        >>> app = FastAPI(lifespan=lifespan(make_replicator))  # doctest: +SKIP
    """

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        replicator = await asyncio.to_thread(make)
        async with replicator:
            if then is None:
                yield {state: replicator}
                return
            async with then(app) as more:
                yield {**(more or {}), state: replicator}

    return run


class Replicated:
    """An ASGI application around another one, whose database is replicated while it serves.

    An application that has no lifespan gets one. ``scope["state"]`` has the Replicator,
    where the server keeps a state (uvicorn and hypercorn do). A server that has no
    lifespans, as daphne, or uvicorn with ``--lifespan off``, starts nothing: that is logged.

    Example:
        >>> application = Replicated(get_asgi_application(), make)  # doctest: +SKIP
    """

    def __init__(
        self,
        app: ASGIApp,
        make: Callable[[], Startable],
        *,
        state: str = "replicator",
        needs_lifespan: bool = True,
    ) -> None:
        """Wrap ``app``; ``make`` and ``state`` are those of ``lifespan``.

        ``needs_lifespan``: warn once if requests come although none has begun.
        """
        self.app, self._make, self._state = app, make, state
        self._is_told = not needs_lifespan

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, or the life of the application."""
        if scope["type"] == "lifespan":
            self._is_told = True
            await _Life(self.app, self._make, self._state).run(scope, receive, send)
            return
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "this server has no ASGI lifespan, so replication is not started with it,"
                " nor flushed at its end: use one that has, or start it otherwise"
            )
        await self.app(scope, receive, send)


class _Life:
    """One lifespan: that of the application, with replication around it.

    Replication begins before the application sees "startup", and ends before the server
    hears that the application has shut down. One that ends before it has answered, or that
    answers something else, knows no lifespans, by the specification: its part is then played
    here. So it is, to the end, if it ends without having waited for that.
    """

    def __init__(self, app: ASGIApp, make: Callable[[], Startable], state: str) -> None:
        self._app, self._make, self._state = app, make, state
        self._replicator: Startable | None = None
        self._started = self._ended = False

    async def run(self, scope: Message, receive: Receive, send: Send) -> None:
        """Play it from startup to shutdown."""
        startup = await receive()
        try:
            replicator = await asyncio.to_thread(self._make)
            await asyncio.to_thread(replicator.start)
        except Exception as error:  # noqa: BLE001
            # Raised, it would be taken for "no lifespan here", and served without us.
            await send(_failed("startup", error))
            return
        self._replicator = replicator
        if "state" in scope:
            scope["state"][self._state] = replicator
        try:
            await self._live(startup, scope, receive, send)
        finally:
            await self._stop()

    async def _live(
        self, startup: Message, scope: Message, receive: Receive, send: Send
    ) -> None:
        waiting, shutdown = [startup], []

        async def receive_first_the_startup() -> Message:
            if waiting:
                return waiting.pop()
            shutdown.append(await receive())
            return shutdown[-1]

        async def send_once_flushed(message: Message) -> None:
            if not message["type"].startswith("lifespan."):
                raise RuntimeError(f"{message['type']} is no answer to a lifespan")
            if message["type"] == "lifespan.startup.complete":
                self._started = True
            else:
                self._ended = True
                message = await self._flushed(message)
            await send(message)

        try:
            await self._app(scope, receive_first_the_startup, send_once_flushed)
        except Exception as error:
            if self._started or self._ended:
                raise
            logger.info("the application has no lifespan: %r", error)
        if not self._started and not self._ended:
            await send({"type": "lifespan.startup.complete"})
        if not self._ended:
            if not shutdown:
                await receive()
            await send(await self._flushed({"type": "lifespan.shutdown.complete"}))

    async def _flushed(self, last: Message) -> Message:
        """Stop; the message to end with, which is another one if that failed."""
        try:
            await self._stop()
        except SQLiteReplicaError as error:
            if last["type"] == "lifespan.shutdown.complete":
                return _failed("shutdown", error)
            logger.error("while stopping: %s", error)
        return last

    async def _stop(self) -> None:
        replicator, self._replicator = self._replicator, None
        if replicator is not None:
            await asyncio.to_thread(replicator.stop)


def _failed(what: str, error: Exception) -> Message:
    message = f"sqlitereplica: {type(error).__name__}: {error}"
    return {"type": f"lifespan.{what}.failed", "message": message}
