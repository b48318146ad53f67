"""What the library reports, apart from errors that it raises.

Everything worth knowing about a running Replicator is one frozen ``Event`` given to one
function. The default observer writes it to ``logging`` under ``sqlitereplica``; metrics and
tests pass their own. An observer is called in the thread where the event happened and must
not block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Event", "Observer", "guarded", "log_event"]

logger = logging.getLogger("sqlitereplica")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one database.

    ``action`` is a stable word: ``attach``, ``capture-error``, ``upload``,
    ``delta``, ``snapshot``, ``behind``, ``replica-error``, ``replica-ok``, ``fenced``,
    ``table-error``, ``checkpoint-error``, ``replica-damaged``, ``exit-flush-failed``,
    ``peer``, ``election-error``, ``desk-error``, ``boot``.
    """

    action: str
    database: str
    level: int = logging.DEBUG
    replica: str = ""
    error: BaseException | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


Observer = Callable[[Event], None]


def guarded(observer: Observer) -> Observer:
    """The observer, without the power to stop replication by raising."""

    def observe(event: Event) -> None:
        try:
            observer(event)
        except BaseException:
            logger.exception("the observer failed", extra={"action": "observer-error"})

    return observe


def log_event(event: Event) -> None:
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
    logger.log(event.level, " ".join(parts), extra=extra)
