"""The output gate around an ASGI application; ``gate.py`` has its theory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, TypeAlias

from sqlitereplica.errors import ReplicatorClosedError, SQLiteReplicaError
from sqlitereplica.integrations.gate import (
    BODY,
    HEADER,
    SAFE_METHODS,
    Gate,
    Looks,
    OneOrSeveral,
    Syncs,
    WhenAway,
    several,
)
from sqlitereplica.replicate import Require

__all__ = ["ASGIApp", "DurabilityMiddleware", "Message", "Receive", "Send"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_HEADER = HEADER.lower().encode()


class DurabilityMiddleware:
    """Holds the answers of requests that wrote until what they wrote is durable.

    Example:
        >>> app.add_middleware(DurabilityMiddleware)  # doctest: +SKIP
    """

    def __init__(
        self,
        app: ASGIApp,
        replicator: OneOrSeveral | None = None,
        *,
        state: str = "replicator",
        timeout: float = 5.0,
        require: Require | None = None,
        when_away: WhenAway = "fail",
        retry_after: int = 5,
        safe_methods: Collection[str] = SAFE_METHODS,
    ) -> None:
        """Wrap ``app``.

        Args:
            app: The application.
            replicator: The Replicator, or several; None for that of the lifespan.
            state: Where the lifespan puts it.
            timeout: Seconds that one answer is held at most.
            require: How many replicas must confirm, if not what the Replicator says.
            when_away: What if they do not: ``"fail"`` answers with 503 and
                ``Retry-After``; ``"pass"`` lets the answer go with a header that says so.
            retry_after: Seconds, for the 503.
            safe_methods: Requests by these methods are never held.

        Raises:
            ValueError: an argument that cannot be meant.
        """
        self.app, self._replicator, self._state = app, replicator, state
        self._gate = Gate(
            timeout=timeout,
            require=require,
            when_away=when_away,
            retry_after=retry_after,
            safe_methods=safe_methods,
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        gate = self._gate
        if scope["type"] != "http" or scope["method"] in gate.safe_methods:
            await self.app(scope, receive, send)
            return
        answer = _Answer(gate, gate.look(self._replicators(scope)), send)
        await self.app(scope, receive, answer.send)

    def _replicators(self, scope: Message) -> list[Syncs]:
        found = self._replicator
        if found is None:
            found = (scope.get("state") or {}).get(self._state)
        if found is None:
            raise ReplicatorClosedError(
                f"DurabilityMiddleware finds no Replicator: scope['state'] has no"
                f" {self._state!r}; use a lifespan of sqlitereplica.integrations.asgi, or"
                " pass the Replicator"
            )
        return several(found)


class _Answer:
    """One answer on its way out.

    Its start is kept until the first part of its body comes, as ASGI lets servers do: what
    the application commits in between belongs to it.
    """

    def __init__(self, gate: Gate, looks: Looks, send: Send) -> None:
        self._gate, self._looks, self._send = gate, looks, send
        self._start: Message | None = None
        self._parts = 0
        self._refused = False

    async def send(self, message: Message) -> None:
        """Pass a message on when its time has come."""
        if self._refused:
            return  # the client has got another answer
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None and not await self._open(start):
            return
        if message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._send(message)

    async def _open(self, start: Message) -> bool:
        """Let the answer begin when it may; False if it must not."""
        held, error = await self._hold()
        if self._gate.fails(error):
            self._refused = True
            await self._refuse()
            return False
        if held:
            mark = (_HEADER, b"no" if error else b"yes")
            start = {**start, "headers": [*start.get("headers", ()), mark]}
        await self._send(start)
        return True

    async def _body(self, message: Message) -> None:
        ends = not message.get("more_body", False)
        if ends and self._parts:
            _, error = await self._hold()
            if self._gate.fails(error):
                # The status is out: all that is left is not to end as if all were well.
                raise error
        self._parts += 1
        await self._send(message)

    async def _hold(self) -> tuple[bool, SQLiteReplicaError | None]:
        """Whether something was waited for, and why it is not durable, if it is not."""
        changed, self._looks = self._gate.changed(self._looks)
        if not changed:
            return False, None
        return True, await self._gate.hold_async(changed)

    async def _refuse(self) -> None:
        headers = [(k.lower().encode(), v.encode()) for k, v in self._gate.refusal]
        start = {"type": "http.response.start", "status": 503, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": BODY})
