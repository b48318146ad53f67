"""Waiting for durability: what the application calls, whichever process answers it.

A wait is a call, a value (``calls.py``), for the process that replicates.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.replicate.assess import HealthReport, Limits, assess
from sqlitereplica.replicate.bookmark import Position
from sqlitereplica.replicate.calls import Call, GetPosition, Pending, Sync
from sqlitereplica.replicate.status import Status

__all__ = ["Durable", "Require", "Waiting", "quorum", "seconds"]

_POSITION_TIMEOUT = 5.0

Require: TypeAlias = Literal["any", "all"] | int
"""How many replicas must hold a commit: one of them, each of them, or so many."""


def quorum(require: Require, replicas: int) -> int:
    """The number of replicas that must confirm; ValueError for what cannot be."""
    if require == "any":
        return 1
    if require == "all":
        return replicas
    given: object = require
    if isinstance(given, bool) or not isinstance(given, int):
        given = 0
    if not 1 <= given <= replicas:
        raise ValueError(
            f"require must be 'any', 'all' or a number from 1 to {replicas}, which is how"
            f" many replicas there are: {require!r}"
        )
    return require


class Submits(Protocol):
    """What takes calls: a Replicator's role."""

    def submit(self, call: Call) -> Pending:
        """Begin a call; returns at once."""


class Waiting(ABC):
    """The part of a Replicator that waits, and says whether waiting is worth it. Thread-safe."""

    def __init__(self, require: Require, *, replicas: int) -> None:
        quorum(require, replicas)
        self._require, self._replicas = require, replicas

    @abstractmethod
    def _role_now(self) -> Submits:
        """What takes calls at present; raises ReplicatorClosedError when nothing does."""

    @abstractmethod
    def status(self) -> Status:
        """What is going on, as a frozen value."""

    @abstractmethod
    def _observe(self, action: str, **event: Any) -> None:
        """Report an event of this database."""

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Report a wait in the caller's own thread, and trace, when it has ended."""
        began, failure = time.monotonic(), None
        try:
            yield
        except SQLiteReplicaError as error:
            failure = error
            raise
        finally:
            data = {"seconds": time.monotonic() - began}
            self._observe("sync", error=failure, data=data)

    def sync(
        self, timeout: float | None = 30.0, *, require: Require | None = None
    ) -> None:
        """Return when every commit made before the call is durable in the replicas.

        A database that does not exist yet has nothing to be made durable. Callers that
        wait at the same time share one upload.

        Args:
            timeout: Seconds to wait; None for as long as it takes.
            require: In how many of them: ``"all"``, ``"any"``, or a number; by default
                what the Replicator was given.

        Raises:
            SyncTimeoutError: not confirmed in time; whether it was reached is unknown.
            StoreError: replicas failed in ways that waiting will not cure, and the others
                are too few.
            DatabaseStateError: the database cannot be captured.
            ReplicatorClosedError: not running.
            ValueError: ``require`` makes no sense.
        """
        with self._measured():
            self._wait(None, timeout, require).wait()

    async def sync_async(
        self,
        timeout: float | None = 30.0,  # noqa: ASYNC109
        *,
        require: Require | None = None,
    ) -> None:
        """``sync`` for asyncio; blocks no thread. Raises as ``sync``."""
        with self._measured():
            await self._wait(None, timeout, require).wait_async()

    def durable(
        self, timeout: float | None = 30.0, *, require: Require | None = None
    ) -> Durable:
        """A block that ends when its commits are durable, for ``with`` and ``async with``.

        The end of the block waits, and raises, as ``sync``. When the block itself raises
        nothing is waited for: its exception goes on at once.
        """
        self._quorum(require)
        return Durable(self, timeout, require)

    def position(self) -> Position:
        """Everything committed before this call, as a value to hand to another worker.

        Asks no store; where another process replicates, that one is asked. ``wait``
        returns when it is durable.

        Raises:
            ReplicatorClosedError: not running.
            SyncTimeoutError: no process that replicates has answered in five seconds.
        """
        call = GetPosition(timeout=_POSITION_TIMEOUT)
        found: Position = self._role_now().submit(call).wait()
        return found

    async def position_async(self) -> Position:
        """``position`` for asyncio; blocks no thread."""
        call = GetPosition(timeout=_POSITION_TIMEOUT)
        found: Position = await self._role_now().submit(call).wait_async()
        return found

    def wait(
        self,
        position: Position | str,
        timeout: float | None = 30.0,
        *,
        require: Require | None = None,
    ) -> None:
        """Return when everything committed before ``position`` is durable.

        At once when it is already; otherwise waits as ``sync``, and for no later commit
        than need be. ``position`` may be its text. One that was taken before a restart of
        the Replicator is waited for with all that is committed now.

        Raises:
            PosMismatchError: ``kind`` ``"position"``: it is not of this database, or its
                metadata folder was deleted since.
            ValueError: a text that is no position.
            SyncTimeoutError, StoreError, DatabaseStateError, ReplicatorClosedError: as
                ``sync``.
        """
        with self._measured():
            self._wait(_position(position), timeout, require).wait()

    async def wait_async(
        self,
        position: Position | str,
        timeout: float | None = 30.0,  # noqa: ASYNC109
        *,
        require: Require | None = None,
    ) -> None:
        """``wait`` for asyncio; blocks no thread."""
        with self._measured():
            await self._wait(_position(position), timeout, require).wait_async()

    def health(
        self,
        *,
        max_lag: float = 60.0,
        max_spool_bytes: int | None = None,
        max_verify_age: float | None = None,
        require: Require | None = None,
    ) -> HealthReport:
        """Whether all is well enough, for a load balancer: ``status``, judged.

        Args:
            max_lag: Seconds that a replica may be behind.
            max_spool_bytes: Bytes that may wait for a replica.
            max_verify_age: Seconds since its last good drill (``verify_interval``).
            require: How many replicas must be within these limits; by default what the
                Replicator was given.

        Raises:
            ValueError: a limit makes no sense.
        """
        limits = Limits(
            max_lag=max_lag,
            max_spool_bytes=max_spool_bytes,
            max_verify_age=max_verify_age,
            need=self._quorum(require),
        )
        return assess(self.status(), limits, datetime.now(UTC))

    def _quorum(self, require: Require | None) -> int:
        return quorum(self._require if require is None else require, self._replicas)

    def _wait(
        self, position: Position | None, timeout: float | None, require: Require | None
    ) -> Pending:
        needed = self._quorum(require)
        need = None if needed == self._replicas else needed
        call = Sync(timeout=seconds(timeout), need=need, position=position)
        return self._role_now().submit(call)


def seconds(timeout: float | None) -> float | None:
    """A timeout as the calls take it: never below 0."""
    return None if timeout is None else max(0.0, float(timeout))


def _position(position: Position | str) -> Position:
    return Position.parse(position) if isinstance(position, str) else position


class Durable:
    """A block whose commits are durable when it has ended: ``with`` or ``async with``.

    When the block raises, its exception goes on at once and nothing is waited for: what it
    committed before is shipped like every commit, and nobody is told that it is durable.
    """

    def __init__(
        self, replicator: Waiting, timeout: float | None, require: Require | None
    ) -> None:
        self._replicator = replicator
        self._timeout, self._require = timeout, require

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._replicator.sync(self._timeout, require=self._require)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self._replicator.sync_async(self._timeout, require=self._require)
