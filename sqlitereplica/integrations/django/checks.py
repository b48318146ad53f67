"""System checks: what in the settings cannot work, or works badly with replication."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Advice
from django.db import connections

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.integrations.configured import destinations_from
from sqlitereplica.integrations.django.databases import (
    description_of,
    descriptions,
    make_replicator,
    path_of,
)
from sqlitereplica.store import Replica

__all__ = ["check_replication"]


def check_replication(
    app_configs: object = None, **options: object
) -> list[CheckMessage]:
    """All checks. Nothing is opened, and no store is asked."""
    if not isinstance(descriptions(), Mapping):
        return [_error(1, "SQLITEREPLICA is not a dictionary of database aliases.")]
    sound = []
    messages: list[CheckMessage] = []
    for alias in descriptions():
        found = list(_check_database(alias))
        messages += found
        if not found:
            sound.append(alias)
    for alias in sound:
        messages += _check_connections(alias)
    messages += _check_places(sound)
    return messages


def _error(number: int, text: str, hint: str | None = None) -> CheckMessage:
    return Error(text, hint=hint, id=f"sqlitereplica.E{number:03}")


def _advice(number: int, text: str, hint: str) -> CheckMessage:
    return Advice(text, hint=hint, id=f"sqlitereplica.W{number:03}")


# -- errors ----------------------------------------------------------------------------


def _check_database(alias: str) -> Iterator[CheckMessage]:
    """What cannot be replicated as it is described; at most one message."""
    if alias not in connections:
        yield _error(2, f"SQLITEREPLICA names {alias!r}, which is not in DATABASES.")
    elif connections[alias].vendor != "sqlite":
        engine = connections[alias].settings_dict["ENGINE"]
        yield _error(3, f"Database {alias!r} is not SQLite but {engine}.")
    elif _is_in_memory(path_of(alias)):
        yield _error(
            4,
            f"Database {alias!r} is no file: {path_of(alias)}.",
            "Databases in memory and file: URIs cannot be replicated.",
        )
    else:
        try:
            make_replicator(alias)
        except (ValueError, SQLiteReplicaError, ImportError) as error:
            yield _error(5, f"SQLITEREPLICA[{alias!r}] makes no sense: {error}")


def _is_in_memory(name: str) -> bool:
    return name in ("", ":memory:") or name.startswith("file:")


def _check_places(aliases: Sequence[str]) -> Iterator[CheckMessage]:
    """Replicas that are shared, or served to everybody."""
    users = defaultdict(list)
    for alias in aliases:
        for place in _places(alias):
            users[place].append(alias)
    for place, found in users.items():
        if len(found) > 1:
            yield _error(
                6,
                f"Databases {' and '.join(map(repr, found))} have the same replica,"
                f" {place}.",
                "Give each a place of its own; {name} in a URL stands for the alias.",
            )
        yield from _check_not_served(place)


def _places(alias: str) -> list[str]:
    """Where its replicas are: URLs without secrets, and absolute paths."""
    return [
        replace(found, name=None).display_name
        if isinstance(found, Replica)
        else found.pattern
        for found in destinations_from(alias, description_of(alias))
    ]


def _check_not_served(place: str) -> Iterator[CheckMessage]:
    for setting in ("MEDIA_ROOT", "STATIC_ROOT"):
        root = getattr(settings, setting, None)
        if root and _is_below(place, os.fspath(root)):
            yield _error(
                7,
                f"The replica {place} is in {setting}: the server may give the whole"
                " database to anybody.",
            )


def _is_below(path: str, folder: str) -> bool:
    folder = os.path.abspath(folder)
    return os.path.isabs(path) and os.path.commonpath([path, folder]) == folder


# -- advice ----------------------------------------------------------------------------


def _check_connections(alias: str) -> Iterable[CheckMessage]:
    """How Django's own connections get along with a Replicator."""
    options: Mapping[str, Any] = connections[alias].settings_dict.get("OPTIONS", {})
    mode = re.search(
        r"journal_mode\s*[=(]\s*['\"]?(\w+)",
        str(options.get("init_command") or ""),
        re.IGNORECASE,
    )
    if mode and mode[1].lower() != "wal":
        yield _advice(
            1,
            f"init_command of database {alias!r} sets the journal mode {mode[1]}.",
            "Replication needs WAL: a connection that sets another mode fails, or ends it.",
        )
    if str(options.get("transaction_mode") or "DEFERRED").upper() == "DEFERRED":
        yield _advice(
            2,
            f"Transactions of database {alias!r} are DEFERRED.",
            "One that reads before it writes fails at once with 'database is locked' if"
            " anybody holds the write lock at that moment, and the Replicator does so for"
            " milliseconds when there is much to write. Set OPTIONS['transaction_mode'] ="
            " 'IMMEDIATE' (Django 5.1).",
        )
    if float(options.get("timeout", 5.0)) < 1.0:
        yield _advice(
            3,
            f"Connections of database {alias!r} wait {options['timeout']} s for a lock.",
            "The Replicator takes the write lock for some milliseconds, and a busy machine"
            " makes them more: set OPTIONS['timeout'] to some seconds.",
        )
