"""The output gate around WSGI applications, of every shape that the standard allows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from support.lifetime import write
from support.switchable import SwitchableFileSystem

from sqlitereplica import Replicator, SyncTimeoutError
from sqlitereplica.integrations.gate import BODY, HEADER
from sqlitereplica.integrations.wsgi import DurabilityMiddleware

OK = ("200 OK", [("Content-Type", "text/plain")])


class Served:
    """What one request is answered with, and what was in the store when it began."""

    def __init__(self, app: Any, method: str = "POST", store: Any = ()) -> None:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": ""}
        setup_testing_defaults(environ)
        self.status = ""
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.files_at_start = -1
        self._store = store
        body = app(environ, self._start)
        try:
            self.parts += body
        finally:
            if hasattr(body, "close"):
                body.close()

    def _start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self.status, self.headers = status, dict(headers)
        self.files_at_start = len(self._store)
        return self.parts.append

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)


class Shapes:
    """The ways in which an application may answer; each commits once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.closed = 0

    def returns_a_list(self, environ: Any, start: Any) -> list[bytes]:
        """As most do."""
        write(self._db)
        start(*OK)
        return [b"a", b"b"]

    def is_a_generator(self, environ: Any, start: Any) -> Iterator[bytes]:
        """Nothing happens before the first part is asked for."""
        write(self._db)
        start(*OK)
        yield b"ab"

    def writes(self, environ: Any, start: Any) -> list[bytes]:
        """By the callable of old."""
        tell = start(*OK)
        write(self._db)
        tell(b"a")
        return [b"b"]

    def begins_again(self, environ: Any, start: Any) -> list[bytes]:
        """An error handler replaces what was to be sent."""
        start("500 No", [("Content-Type", "text/html")])
        write(self._db)
        start(*OK, None)
        return [b"ab"]


SHAPES = ["returns_a_list", "is_a_generator", "writes", "begins_again"]


@pytest.mark.parametrize("shape", SHAPES)
def test_answer_waits_for_its_commit(
    replicator: Replicator,
    db: sqlite3.Connection,
    store: SwitchableFileSystem,
    shape: str,
) -> None:
    """When the server hears of an answer, the commit is in the store."""
    before = len(store.store)
    app = DurabilityMiddleware(getattr(Shapes(db), shape), replicator)
    served = Served(app, store=store.store)
    assert (served.status, served.body) == ("200 OK", b"ab")
    assert served.headers[HEADER] == "yes"
    assert served.files_at_start == before + 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("when_away", ["fail", "pass"])
def test_store_that_is_away(
    replicator: Replicator,
    db: sqlite3.Connection,
    store: SwitchableFileSystem,
    shape: str,
    when_away: Any,
) -> None:
    """503 and nothing of the application's, or its answer with a mark."""
    store.hang()
    app = DurabilityMiddleware(
        getattr(Shapes(db), shape), replicator, timeout=0.05, when_away=when_away
    )
    served = Served(app)
    assert served.headers[HEADER] == "no"
    if when_away == "pass":
        assert (served.status, served.body) == ("200 OK", b"ab")
    else:
        assert (served.status[:3], served.body) == ("503", BODY)
        assert served.headers["Retry-After"] == "5"


def test_requests_that_commit_nothing_or_are_safe_go_through(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """The store is not asked, it would not answer."""
    store.hang()

    def reads(environ: Any, start: Any) -> list[bytes]:
        start(*OK)
        return [b"x"]

    served = Served(DurabilityMiddleware(reads, replicator))
    assert (served.status, served.headers) == (OK[0], dict(OK[1]))
    app = DurabilityMiddleware(Shapes(db).returns_a_list, replicator)
    assert HEADER not in Served(app, "GET").headers


def test_end_of_a_streamed_answer_is_held_too(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """It does not end as if all were well when it is not."""

    def streams(environ: Any, start: Any) -> Iterator[bytes]:
        start(*OK)
        yield b"1"
        write(db)
        yield b"2"

    before = len(store.store)
    assert Served(DurabilityMiddleware(streams, replicator)).body == b"12"
    assert len(store.store) == before + 1
    store.hang()
    with pytest.raises(SyncTimeoutError):
        Served(DurabilityMiddleware(streams, replicator, timeout=0.05))


def test_body_is_closed_however_it_ends(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """Frameworks end their requests there; also when the answer was refused."""
    closed = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start: Any) -> Body:
        write(db)
        start(*OK)
        return Body([b"x"])

    Served(DurabilityMiddleware(app, replicator))
    store.hang()
    Served(DurabilityMiddleware(app, replicator, timeout=0.05))
    assert closed == [True, True]


def test_what_the_application_raises_goes_on(
    replicator: Replicator, db: sqlite3.Connection
) -> None:
    """Before the answer and in it."""

    def at_once(environ: Any, start: Any) -> list[bytes]:
        raise KeyError

    def later(environ: Any, start: Any) -> Iterator[bytes]:
        start(*OK)
        yield b"1"
        raise KeyError

    for app in (at_once, later):
        with pytest.raises(KeyError):
            Served(DurabilityMiddleware(app, replicator))


def test_standard_is_kept_on_both_sides(
    replicator: Replicator, db: sqlite3.Connection, store: SwitchableFileSystem
) -> None:
    """The validator of the standard library has nothing to say."""
    shapes = Shapes(db)
    for shape in ("returns_a_list", "is_a_generator"):
        for away in (False, True):
            if away:
                store.hang()
            inner = DurabilityMiddleware(
                validator(getattr(shapes, shape)),
                replicator,
                timeout=0.05 if away else 30,
            )
            assert Served(validator(inner)).parts
            store.heal()
            replicator.sync()


def test_gate_without_a_replicator_is_refused() -> None:
    """When it is made, not with the first request that writes."""
    with pytest.raises(ValueError, match="Replicator"):
        DurabilityMiddleware(lambda environ, start: [], None)  # type: ignore[arg-type]
