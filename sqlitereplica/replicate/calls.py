"""The calls of a ``Replicator`` as values, which any process of the host may make.

The elected process performs them (``running.py``), for itself and for its peers. So a call
is what crosses the socket, and ``begin`` is what it does at the other end: it returns at
once, with a ``Pending`` to wait for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import msgspec

from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.replicate.bookmark import Position
from sqlitereplica.replicate.status import Status
from sqlitereplica.store import Pin

if TYPE_CHECKING:
    from sqlitereplica.replicate.running import Running

__all__ = [
    "AnyCall",
    "AwaitTurn",
    "Call",
    "Compact",
    "EnforceRetention",
    "GetPosition",
    "GetStatus",
    "MakePin",
    "Pending",
    "Snapshot",
    "Sync",
]

_MOST_THREADS = threading.BoundedSemaphore(64)

Timeout: TypeAlias = Annotated[float, msgspec.Meta(ge=0)] | None


@dataclass(slots=True)
class Pending:
    """A call under way. ``expired`` raises what to say when it takes too long."""

    future: Future[Any]
    timeout: float | None
    expired: Callable[[], object]

    def wait(self) -> Any:
        """Its result; raises what it raises."""
        try:
            return self.future.result(self.timeout)
        except TimeoutError:
            return self._late()

    async def wait_async(self) -> Any:
        """``wait`` for asyncio; blocks no thread."""
        # Shielded: the wait is shared, a caller that is cancelled must not cancel it.
        waiting = asyncio.shield(asyncio.wrap_future(self.future))
        try:
            return await asyncio.wait_for(waiting, self.timeout)
        except TimeoutError:
            return self._late()

    def _late(self) -> Any:
        # It may have been settled in the last moment, perhaps by a timeout of its own.
        return self.future.result() if self.future.done() else self.expired()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call and its arguments; ``timeout`` in seconds, None for no end."""

    timeout: Timeout = None
    result: ClassVar[Any] = None
    """The type of what it returns."""

    def run(self, running: Running) -> Any:
        """Perform it in this thread; raises what it raises."""
        raise NotImplementedError

    def begin(self, running: Running) -> Pending:
        """Perform it in a thread of its own."""
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(self.run(running))
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)
            finally:
                _MOST_THREADS.release()

        if not _MOST_THREADS.acquire(blocking=False):
            raise DatabaseStateError(
                "too many calls at once", path=running.options.path, kind="busy"
            )
        threading.Thread(target=work, name="sqlitereplica-call", daemon=True).start()
        # It keeps the time itself.
        return Pending(future, None, future.result)


class Sync(Call, frozen=True, tag="sync"):
    """``Replicator.sync``, and ``wait`` if there is a position."""

    need: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many replicas are enough; None for all of them."""
    position: Position | None = None

    def run(self, running: Running) -> Any:
        """Wait in this thread."""
        return self.begin(running).wait()

    def begin(self, running: Running) -> Pending:
        """Take a ticket; no thread is needed."""
        return running.sync(self.timeout, self.need, self.position)


class GetPosition(Call, frozen=True, tag="position"):
    """``Replicator.position``."""

    result: ClassVar[Any] = Position

    def run(self, running: Running) -> Any:
        """Perform it in this thread."""
        return running.position()

    def begin(self, running: Running) -> Pending:
        """It takes no time."""
        return _done(running.position())


class Snapshot(Call, frozen=True, tag="snapshot"):
    """``Replicator.snapshot``."""

    def run(self, running: Running) -> Any:
        """Perform it in this thread."""
        return running.snapshot(self.timeout)


class Compact(Call, frozen=True, tag="compact"):
    """``Replicator.compact``."""

    def run(self, running: Running) -> Any:
        """Perform it in this thread."""
        return running.compact()


class EnforceRetention(Call, frozen=True, tag="retention"):
    """``Replicator.enforce_retention``."""

    def run(self, running: Running) -> Any:
        """Perform it in this thread."""
        for line in running.lines:
            line.enforce_retention()


class MakePin(Call, frozen=True, tag="pin"):
    """``Replicator.pin``."""

    name: Annotated[str, msgspec.Meta(max_length=128)]
    result: ClassVar[Any] = tuple[Pin, ...]

    def run(self, running: Running) -> Any:
        """Perform it in this thread."""
        return running.pin(self.name, self.timeout)


class AwaitTurn(Call, frozen=True, tag="turn"):
    """``Replicator.wait_active``."""

    def run(self, running: Running) -> Any:
        """Wait in this thread."""
        return running.wait_turn(self.timeout)


class GetStatus(Call, frozen=True, tag="status"):
    """``Replicator.status``."""

    result: ClassVar[Any] = Status

    def run(self, running: Running) -> Any:
        """Perform it in this thread."""
        return running.status()

    def begin(self, running: Running) -> Pending:
        """It takes no time."""
        return _done(running.status())


def _done(result: Any) -> Pending:
    future: Future[Any] = Future()
    future.set_result(result)
    return Pending(future, None, future.result)


AnyCall: TypeAlias = (
    Sync
    | GetPosition
    | Snapshot
    | Compact
    | EnforceRetention
    | MakePin
    | AwaitTurn
    | GetStatus
)
