"""The databases of the settings, as Replicators of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.db import connections
from django.utils.module_loading import import_string

from sqlitereplica.integrations.commands import Target
from sqlitereplica.integrations.configured import (
    Configuration,
    limits_from,
    replicas_from,
    replicator_from,
)
from sqlitereplica.integrations.named import Replicators
from sqlitereplica.replicate import Replicator

__all__ = [
    "description_of",
    "descriptions",
    "make_replicator",
    "path_of",
    "replicator",
    "replicators",
    "start",
    "start_with_the_first_request",
    "stop",
    "target_of",
]

_lock = threading.Lock()
_made: Replicators | None = None
_at_setup: dict[str, str] = {}
"""Paths when the apps were set up; a test runner changes them afterwards."""


def descriptions() -> Mapping[str, Configuration]:
    """``settings.SQLITEREPLICA``: how each alias is replicated; {} without one."""
    found: Mapping[str, Configuration] = getattr(settings, "SQLITEREPLICA", {})
    return found


def description_of(alias: str) -> Configuration:
    """How an alias is replicated, with a dotted path to ``connect`` resolved.

    Raises:
        KeyError: it is not replicated.
        ImportError: the path leads nowhere.
    """
    found = descriptions()[alias]
    if isinstance(found, Mapping) and isinstance(found.get("connect"), str):
        return {**found, "connect": import_string(found["connect"])}
    return found


def path_of(alias: str) -> str:
    """The file of a database, as the settings had it when the apps were set up."""
    return _at_setup.get(alias) or _path_now(alias)


def _path_now(alias: str) -> str:
    return str(connections[alias].settings_dict["NAME"])


def make_replicator(alias: str) -> Replicator:
    """A Replicator that opens the database by the module of Django's own backend.

    Raises:
        ValueError: the description makes no sense.
        KeyError, ImportError: as ``description_of``.
    """
    connect: Callable[[str], Any] = connections[alias].Database.connect
    return replicator_from(
        alias, path_of(alias), description_of(alias), connect=connect
    )


def target_of(alias: str) -> Target:
    """A database and its replicas, for commands; raises as ``make_replicator``."""
    replicas = replicas_from(alias, description_of(alias))
    return Target(alias, path_of(alias), replicas)


def replicators() -> Replicators:
    """All Replicators of this process by alias.

    Raises:
        ImproperlyConfigured: ``settings.SQLITEREPLICA`` is no dictionary.
        ValueError, ImportError: as ``make_replicator``.
    """
    global _made
    with _lock:
        if _made is None:
            if not isinstance(descriptions(), Mapping):
                raise ImproperlyConfigured(
                    "SQLITEREPLICA is not a dictionary of aliases"
                )
            _made = Replicators(
                {alias: make_replicator(alias) for alias in descriptions()},
                {alias: limits_from(found) for alias, found in descriptions().items()},
            )
        return _made


def replicator(alias: str = "default") -> Replicator:
    """The Replicator of a database.

    Raises:
        KeyError: this alias is not replicated.
    """
    return replicators()[alias]


def start() -> None:
    """Replicate from this process, all databases of the settings. Idempotent.

    Raises as ``replicators`` and as ``Replicator.start``.
    """
    replicators().start()


def stop() -> None:
    """Flush and stop, before the interpreter does. Raises as ``Replicator.stop``."""
    replicators().stop()


# -- where nobody calls start() --------------------------------------------------------


def start_with_the_first_request() -> None:
    """Have it started by the first request that a server of this process answers.

    In the process that serves, after any ``fork()``. Not for the requests of tests: these
    do not come through a server's handler, or find the databases moved.
    """
    # What is no alias is for the checks, and for ``start``, to say.
    aliases = [alias for alias in descriptions() if alias in connections]
    _at_setup.update({alias: _path_now(alias) for alias in aliases})
    request_started.connect(_on_request, dispatch_uid="sqlitereplica")


def _on_request(sender: type, **signal: object) -> None:
    if not issubclass(sender, WSGIHandler | ASGIHandler):
        return
    if any(_path_now(alias) != path for alias, path in _at_setup.items()):
        return
    start()
    request_started.disconnect(dispatch_uid="sqlitereplica")
