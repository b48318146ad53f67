"""The output gate: an answer goes out only when what it speaks of is durable.

Theory of operation. A request that may write is looked at twice, when it begins and when
its answer begins (``CommitWatch``: one ``pread``, the database is not opened). Are the looks
equal, nothing was committed meanwhile by anybody, and the answer goes out at once. Otherwise
``sync`` is waited for: it covers all that is committed by then. Commits of other requests at
the same time make no difference to that but the wait, which all of them share.

    Invariant: no answer to a request that is looked at leaves before the commits that were
    made between its two looks are durable, unless ``when_away="pass"``, and then it says so.

Requests by methods that are safe (RFC 9110: GET, HEAD, OPTIONS, TRACE) are not looked at:
on a busy server something is committed during every one of them.

An answer that is streamed is held at its first part and once more before its end, for what was
committed in between. ``asgigate.py`` and ``wsgi.py`` put this around applications.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.replicate import Require
from sqlitereplica.sqlite import CommitWatch, Look

__all__ = [
    "BODY",
    "HEADER",
    "SAFE_METHODS",
    "Gate",
    "Looks",
    "OneOrSeveral",
    "Syncs",
    "WhenAway",
    "several",
]

logger = logging.getLogger("sqlitereplica")

HEADER = "X-SQLiteReplica-Durable"
"""``yes`` or ``no`` on each answer that was waited for."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
BODY = b"The change was made, but is not confirmed durable yet. Look before you repeat it.\n"
WhenAway: TypeAlias = Literal["fail", "pass"]


class Syncs(Protocol):
    """What is waited for: a Replicator."""

    @property
    def database(self) -> str:
        """Absolute path of the database."""

    def sync(
        self, timeout: float | None = ..., *, require: Require | None = ...
    ) -> None:
        """Return when what is committed now is durable."""

    async def sync_async(
        self,
        timeout: float | None = ...,  # noqa: ASYNC109
        *,
        require: Require | None = ...,
    ) -> None:
        """The same for asyncio."""


Looks: TypeAlias = Sequence[tuple[Syncs, Look | None]]
OneOrSeveral: TypeAlias = Syncs | Iterable[Syncs] | Mapping[Any, Syncs]
"""One Replicator, some, or a mapping of them, such as Django's ``replicators``."""


def several(found: OneOrSeveral) -> list[Syncs]:
    """All of them as a list."""
    if isinstance(found, Mapping):
        return list(found.values())
    return list(found) if isinstance(found, Iterable) else [found]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The settings, and the two looks. Thread-safe."""

    timeout: float = 5.0
    """Seconds that one answer is held, in all."""
    require: Require | None = None
    """How many replicas must confirm; by default what the Replicator was given."""
    when_away: WhenAway = "fail"
    """When they do not: ``"fail"`` answers 503, ``"pass"`` lets the answer go, marked."""
    retry_after: int = 5
    """Seconds, for the 503."""
    safe_methods: Collection[str] = SAFE_METHODS
    """Requests that are never held."""
    _watches: dict[str, CommitWatch] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.when_away not in ("fail", "pass"):
            raise ValueError(f"when_away must be 'fail' or 'pass': {self.when_away!r}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds: {self.timeout!r}")
        if isinstance(self.safe_methods, str):
            raise ValueError(
                f"safe_methods must be several methods: {self.safe_methods!r}"
            )

    def look(self, replicators: Iterable[Syncs]) -> Looks:
        """How the databases are now."""
        return [(r, self._watch(r.database).look()) for r in replicators]

    def _watch(self, database: str) -> CommitWatch:
        watch = self._watches.get(database)
        return watch or self._watches.setdefault(database, CommitWatch(database))

    def changed(self, before: Looks) -> tuple[list[Syncs], Looks]:
        """Where something may have been committed since, and how it is now."""
        now = self.look(replicator for replicator, _ in before)
        pairs = zip(before, now, strict=True)
        return [r for (r, old), (_, new) in pairs if old is None or old != new], now

    def hold(self, changed: Iterable[Syncs]) -> SQLiteReplicaError | None:
        """Wait until all is durable; the error when that is not confirmed in time."""
        left = self._clock()
        for replicator in changed:
            try:
                replicator.sync(left(), require=self.require)
            except SQLiteReplicaError as error:
                self._report(replicator, error)
                return error
        return None

    async def hold_async(self, changed: Iterable[Syncs]) -> SQLiteReplicaError | None:
        """``hold`` for asyncio; blocks no thread."""
        left = self._clock()
        for replicator in changed:
            try:
                await replicator.sync_async(left(), require=self.require)
            except SQLiteReplicaError as error:
                self._report(replicator, error)
                return error
        return None

    def fails(self, error: SQLiteReplicaError | None) -> TypeGuard[SQLiteReplicaError]:
        """Whether an answer must not go on as if all were well."""
        return error is not None and self.when_away == "fail"

    @property
    def refusal(self) -> list[tuple[str, str]]:
        """The headers of the 503 whose body is ``BODY``."""
        return [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(BODY))),
            ("Cache-Control", "no-store"),
            ("Retry-After", str(self.retry_after)),
            (HEADER, "no"),
        ]

    def _clock(self) -> Callable[[], float]:
        end = time.monotonic() + self.timeout
        return lambda: max(0.0, end - time.monotonic())

    def _report(self, replicator: Syncs, error: SQLiteReplicaError) -> None:
        logger.warning(
            "an answer is not durable (%s): %s",
            self.when_away,
            error,
            extra={"action": "not-durable", "database": replicator.database},
        )
