"""The output gate around ASGI applications."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from support.lifetime import write
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replicator, ReplicatorClosedError, SyncTimeoutError
from sqlitereplica.integrations.asgi import DurabilityMiddleware
from sqlitereplica.integrations.gate import BODY, HEADER

Sent = list[dict[str, Any]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
YES = (HEADER.lower().encode(), b"yes")
NO = (HEADER.lower().encode(), b"no")


def app_of(*steps: Callable[[], object] | dict[str, Any]) -> Any:
    """An application that does these things and sends these messages, in turn."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if callable(step):
                step()
            else:
                await send(step)

    return app


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    """A part of a body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def serve(
    app: Any, method: str = "POST", *, sent: Sent | None = None, **scope: Any
) -> Sent:
    """What one request is answered with."""
    found: Sent = [] if sent is None else sent

    async def send(message: dict[str, Any]) -> None:
        found.append(message)

    full = {"type": "http", "method": method, **scope}
    asyncio.run(app(full, None, send))
    return found


def test_answer_waits_for_its_commit(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """When the start goes out, the file that holds the commit is in the store."""
    files: list[int] = []

    class Spy(list[dict[str, Any]]):
        def append(self, message: dict[str, Any]) -> None:
            files.append(len(store.store))
            super().append(message)

    before = len(store.store)
    app = DurabilityMiddleware(app_of(lambda: write(db), START, body(b"x")), replicator)
    start, end = serve(app, sent=Spy())
    assert files == [before + 1, before + 1]
    assert start == {**START, "headers": [(b"a", b"b"), YES]}
    assert end == body(b"x")


def test_commit_behind_the_start_is_waited_for(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """An answer in one part is as good as one in several: nothing of it goes out before."""
    app = app_of(START, lambda: write(db), body(b"x"))
    before = len(store.store)
    start, _ = serve(DurabilityMiddleware(app, replicator))
    assert YES in start["headers"] and len(store.store) == before + 1
    store.hang()
    start, end = serve(DurabilityMiddleware(app, replicator, timeout=0.05))
    assert (start["status"], end["body"]) == (503, BODY)


def test_messages_of_extensions_keep_their_place(replicator: Replicator) -> None:
    """Behind the start, or before it."""
    early, trailers, path = (
        {"type": f"http.response.{name}"}
        for name in ("early_hint", "trailers", "pathsend")
    )
    for messages in ([early, START, body(b"x"), trailers], [START, path]):
        assert serve(DurabilityMiddleware(app_of(*messages), replicator)) == messages


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_request_that_commits_nothing_goes_through_as_it_is(
    replicator: Replicator, store: SwitchableFileSystem, method: str
) -> None:
    """Whatever its method; the store is not asked, it would not answer."""
    store.hang()
    app = DurabilityMiddleware(app_of(START, body(b"x")), replicator)
    assert serve(app, method) == [START, body(b"x")]


def test_safe_request_does_not_wait_for_what_others_commit(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """Unless it is told to be looked at, too."""
    store.hang()
    app = app_of(lambda: write(db), START, body(b"x"))
    assert serve(DurabilityMiddleware(app, replicator), "GET")[0] == START
    strict = DurabilityMiddleware(app, replicator, safe_methods=(), timeout=0.05)
    assert serve(strict, "GET")[0]["status"] == 503


def test_store_that_is_away_fails_the_request(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """503 with Retry-After instead of the answer, whatever the application still sends."""
    store.hang()
    app = app_of(lambda: write(db), START, body(b"x", True), body(b"y"))
    gate = DurabilityMiddleware(app, replicator, timeout=0.05, retry_after=7)
    start, end = serve(gate)
    assert (start["status"], end["body"]) == (503, BODY)
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"7" and NO in start["headers"]
    assert headers[b"content-length"] == str(len(BODY)).encode()


def test_store_that_is_away_may_be_passed(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """The answer is the application's, with a header that says what it is worth."""
    store.hang()
    app = app_of(lambda: write(db), START, body(b"x"))
    gate = DurabilityMiddleware(app, replicator, timeout=0.05, when_away="pass")
    start, end = serve(gate)
    assert start == {**START, "headers": [(b"a", b"b"), NO]}
    assert end == body(b"x")


def test_end_of_a_streamed_answer_is_held_too(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """What is written while it is sent: the last part waits, and never comes if it must."""
    app = app_of(START, body(b"1", True), lambda: write(db), body(b"2"))
    gate = DurabilityMiddleware(app, replicator, timeout=30)
    before = len(store.store)
    assert [m.get("body") for m in serve(gate)] == [None, b"1", b"2"]
    assert len(store.store) == before + 1
    store.hang()
    sent: Sent = []
    gate = DurabilityMiddleware(app, replicator, timeout=0.05)
    with pytest.raises(SyncTimeoutError):
        serve(gate, sent=sent)
    assert [m.get("body") for m in sent] == [None, b"1"]


def test_replicator_is_that_of_the_lifespan_or_several(
    replicator: Replicator, db: sqlite3.Connection
) -> None:
    """``scope["state"]``, one, a list, a mapping; without any the request fails."""
    app = app_of(lambda: write(db), START, body(b"x"))
    state = {"replicator": replicator}
    assert YES in serve(DurabilityMiddleware(app), state=state)[0]["headers"]
    for given in ([replicator], {"default": replicator}):
        answer = serve(DurabilityMiddleware(app, given))  # type: ignore[arg-type]
        assert YES in answer[0]["headers"]
    with pytest.raises(ReplicatorClosedError, match="lifespan"):
        serve(DurabilityMiddleware(app))


def test_replicator_that_is_not_running_confirms_nothing(
    replicator: Replicator, db: sqlite3.Connection
) -> None:
    """Nobody knows then whether the commit is durable."""
    replicator.stop()
    app = app_of(lambda: write(db), START, body(b"x"))
    assert serve(DurabilityMiddleware(app, replicator))[0]["status"] == 503


def test_other_connections_pass(replicator: Replicator) -> None:
    """Websockets, and the lifespan."""
    for kind in ("websocket", "lifespan"):
        message = {"type": f"{kind}.something"}
        app = DurabilityMiddleware(app_of(message), replicator)
        sent: Sent = []

        async def send(message: dict[str, Any], to: Sent = sent) -> None:
            to.append(message)

        asyncio.run(app({"type": kind}, None, send))  # type: ignore[arg-type]
        assert sent == [message]


@pytest.mark.parametrize(
    "settings", [{"when_away": "wait"}, {"timeout": 0}, {"safe_methods": "GET"}]
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]) -> None:
    """At once, not with the first request."""
    with pytest.raises(ValueError):
        DurabilityMiddleware(app_of(), **settings)
