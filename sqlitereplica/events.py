"""What the library reports, apart from errors that it raises.

Everything worth knowing about a running Replicator is one frozen ``Event`` given to one
observer. The default one writes it to ``logging`` under ``sqlitereplica``; metrics and tests
pass their own. An observer is called in the thread where the event happened and must not
block.

Some events are only good for measuring: each operation on a store, each increment, each
``sync``, checkpoints, the status every few seconds. Only an observer that has ``detailed =
True`` is given them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "DETAILS",
    "Event",
    "Observer",
    "Observers",
    "Reporter",
    "Ungauged",
    "guarded",
    "log_event",
    "refuse_in_observer",
]

logger = logging.getLogger("sqlitereplica")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one database.

    ``action`` is a stable word: ``attach``, ``capture-error``, ``upload``,
    ``delta``, ``snapshot``, ``behind``, ``replica-error``, ``replica-ok``, ``fenced``,
    ``table-error``, ``checkpoint-error``, ``replica-damaged``, ``exit-flush-failed``,
    ``peer``, ``election-error``, ``desk-error``, ``boot``, ``parked``, ``removed``,
    ``group-error``; in detail ``operation``, ``checkpoint``, ``increment``, ``sync``,
    ``status``.
    """

    action: str
    database: str
    level: int = logging.DEBUG
    replica: str = ""
    error: BaseException | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Observer(Protocol):
    """Is given every event: a function, or an object that can be called.

    With an attribute ``detailed`` that is true, also those that are for measuring; with
    ``gauges`` that is false, all of these but ``status``.
    """

    def __call__(self, event: Event, /) -> None:
        """Take an event; must not block."""


class Observers:
    """Several observers as one. Each is given what it wants; none disturbs the others.

    Example:
        >>> observer = Observers(log_event, print)
    """

    def __init__(self, *observers: Observer) -> None:
        """Give every event to these, in this order."""
        self._all = [guarded(observer) for observer in observers]
        self.detailed = any(observer.detailed for observer in self._all)
        self.gauges = any(observer.gauges for observer in self._all)

    def __call__(self, event: Event, /) -> None:
        """Pass it on."""
        for observer in self._all:
            observer(event)


_here = threading.local()


def refuse_in_observer(what: str) -> None:
    """Raise RuntimeError in a thread that is in an observer: it would wait for itself."""
    if getattr(_here, "depth", 0):
        raise RuntimeError(
            f"{what} waits for threads that report events, so an observer cannot call it:"
            " let another thread do that"
        )


DETAILS = frozenset({"checkpoint", "increment", "operation", "status", "sync"})


class guarded:  # noqa: N801  (used like a function)
    """The observer, without the power to stop replication by raising."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.detailed = bool(getattr(observer, "detailed", False))
        """Whether it wants the events that are for measuring."""
        self.gauges = self.detailed and bool(getattr(observer, "gauges", True))
        """Whether it wants the status of each database every few seconds."""

    def __call__(self, event: Event, /) -> None:
        """Pass it on, if it is wanted."""
        if event.action in DETAILS and not self.detailed:
            return
        _here.depth = getattr(_here, "depth", 0) + 1
        try:
            self._observer(event)
        except BaseException:
            logger.exception("the observer failed", extra={"action": "observer-error"})
        finally:
            _here.depth -= 1


class Reporter:
    """Tells an observer what happens to one database, or to one replica of it."""

    def __init__(self, observer: Observer, database: str, replica: str = "") -> None:
        self._observer, self._database, self._replica = observer, database, replica

    def __call__(
        self,
        action: str,
        level: int = logging.DEBUG,
        error: BaseException | None = None,
        **data: object,
    ) -> None:
        """Report it."""
        event = Event(
            action=action,
            database=self._database,
            replica=self._replica,
            level=level,
            error=error,
            data=data,
        )
        self._observer(event)

    def of(self, replica: str) -> Reporter:
        """The same for one replica."""
        return Reporter(self._observer, self._database, replica)


class Ungauged:
    """The observer, for each of very many databases: their status is not told all the time."""

    gauges = False

    def __init__(self, observer: guarded) -> None:
        self._observer, self.detailed = observer, observer.detailed

    def __call__(self, event: Event, /) -> None:
        """Pass it on."""
        self._observer(event)


def log_event(event: Event, /) -> None:
    """Write an event to the log, with its fields as attributes of the record."""
    parts = [event.action, event.database]
    if event.replica:
        parts.append(f"-> {event.replica}")
    parts += [f"{key}={value}" for key, value in event.data.items()]
    if event.error is not None:
        parts.append(f"{type(event.error).__name__}: {event.error}")
    extra = {
        "action": event.action,
        "database": event.database,
        "replica": event.replica,
        **{f"event_{key}": value for key, value in event.data.items()},
    }
    if event.error is not None:
        extra["event_error"] = type(event.error).__name__
        extra["event_kind"] = getattr(event.error, "kind", "")
    logger.log(event.level, " ".join(parts), extra=extra)
