"""The output gate around a WSGI application; ``gate.py`` has its theory.

An application may call ``start_response`` when it is called or when its first part is asked
for, and commit up to then. So its first part is taken before the server hears of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeAlias

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.integrations.gate import (
    BODY,
    HEADER,
    SAFE_METHODS,
    Gate,
    Looks,
    OneOrSeveral,
    WhenAway,
    several,
)
from sqlitereplica.replicate import Require

__all__ = ["DurabilityMiddleware"]

Environ: TypeAlias = dict[str, Any]
Write: TypeAlias = Callable[[bytes], object]
StartResponse: TypeAlias = Callable[..., Write]
WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]


class DurabilityMiddleware:
    """Holds the answers of requests that wrote until what they wrote is durable.

    Example:
        >>> application = DurabilityMiddleware(application, replicator)  # doctest: +SKIP
    """

    def __init__(
        self,
        app: WSGIApp,
        replicator: OneOrSeveral,
        *,
        timeout: float = 5.0,
        require: Require | None = None,
        when_away: WhenAway = "fail",
        retry_after: int = 5,
        safe_methods: Collection[str] = SAFE_METHODS,
    ) -> None:
        """Wrap ``app``.

        Args:
            app: The application.
            replicator: The Replicator, or several.
            timeout: Seconds that one answer is held at most.
            require: How many replicas must confirm, if not what the Replicator says.
            when_away: What if they do not: ``"fail"`` answers with 503 and
                ``Retry-After``; ``"pass"`` lets the answer go with a header that says so.
            retry_after: Seconds, for the 503.
            safe_methods: Requests by these methods are never held.

        Raises:
            ValueError: an argument that cannot be meant.
        """
        if replicator is None:
            raise ValueError("the Replicator to wait for is needed, and this is None")
        self.app, self._replicator = app, replicator
        self._gate = Gate(
            timeout=timeout,
            require=require,
            when_away=when_away,
            retry_after=retry_after,
            safe_methods=safe_methods,
        )

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request."""
        gate = self._gate
        if environ["REQUEST_METHOD"] in gate.safe_methods:
            return self.app(environ, start_response)
        looks = gate.look(several(self._replicator))
        answer = _Answer(gate, looks, start_response)
        answer.take(self.app(environ, answer.start_response))
        return answer


class _Answer:
    """One answer on its way out: what the server iterates over and closes."""

    def __init__(self, gate: Gate, looks: Looks, start_response: StartResponse) -> None:
        self._gate, self._looks, self._start = gate, looks, start_response
        self._arguments: tuple[Any, ...] | None = None
        self._write: Write | None = None
        self._source: Iterable[bytes] = ()
        self._parts: Iterator[bytes] = iter(())
        self._first: list[bytes] = []
        self._count = 0
        self._refused = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Write:
        """What the application calls; the server is told later."""
        if self._write is not None:  # too late, unless it is an error: the server knows
            return self._start(status, headers, exc_info)
        self._arguments = (status, headers, exc_info)
        return self._written

    def _written(self, data: bytes) -> None:
        """The old way: data by calls, before the application returns."""
        self._open()
        if self._refused:
            return
        assert self._write is not None
        self._count += 1
        self._write(data)

    def take(self, source: Iterable[bytes]) -> None:
        """Take the first part of the body, and let the answer begin."""
        self._source = source
        try:
            parts = iter(source)
            first = [part for part in (next(parts, None),) if part is not None]
            if not self._refused:
                self._parts, self._first = parts, first
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Begin the answer once it may; later calls do nothing."""
        if self._write is not None or self._refused:
            return
        if self._arguments is None:
            raise RuntimeError("the application has not called start_response")
        held, error = self._hold()
        if self._gate.fails(error):
            self._refuse()
            return
        status, headers, exc_info = self._arguments
        if held:
            headers = [*headers, (HEADER, "no" if error else "yes")]
        self._write = self._start(status, headers, *([exc_info] if exc_info else []))

    def _hold(self) -> tuple[bool, SQLiteReplicaError | None]:
        """Whether something was waited for, and why it is not durable, if it is not."""
        changed, self._looks = self._gate.changed(self._looks)
        if not changed:
            return False, None
        return True, self._gate.hold(changed)

    def _refuse(self) -> None:
        self._refused = True
        self._parts, self._first = iter(()), [BODY]
        self._start("503 Service Unavailable", self._gate.refusal)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first:
            self._count += 1
            return self._first.pop()
        part = next(self._parts, None)
        if part is None:
            self._end()
            raise StopIteration
        self._count += 1
        return part

    def _end(self) -> None:
        if self._count < 2 or self._refused:
            return
        _, error = self._hold()
        if self._gate.fails(error):
            # The status is out: all that is left is not to end as if all were well.
            raise error

    def close(self) -> None:
        """The server has done, whatever came of it."""
        close = getattr(self._source, "close", None)
        if close is not None:
            close()
