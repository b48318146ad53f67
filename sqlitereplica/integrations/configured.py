"""Replicators as configuration files and settings describe them.

The frameworks have one form for it. For each database, what to replicate to, or a mapping
with the key ``replicas`` and any other argument of ``Replicator``::

    "s3://bucket/app"
    {"replicas": ["s3://bucket/app", {"url": "/backups/app", "retention": "90d"},
                  {"mirror": "/backups/app.db"}],
     "sync_interval": 0.5, "retention": {"window": "7d", "daily": 30}}

``health`` has the limits of ``Replicator.health``. ``{name}`` in a URL or path stands for the
name of the database, so that one form serves many.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlitereplica.policy import Retention
from sqlitereplica.replicate import Mirror, Replicator
from sqlitereplica.store import Replica

__all__ = [
    "Configuration",
    "Destination",
    "ReplicaEntry",
    "destinations_from",
    "limits_from",
    "replicas_from",
    "replicator_from",
]

Destination: TypeAlias = Replica | Mirror
ReplicaEntry: TypeAlias = str | os.PathLike[str] | Destination | Mapping[str, Any]
Configuration: TypeAlias = ReplicaEntry | Sequence[ReplicaEntry]


def replicator_from(
    name: str,
    database: str | os.PathLike[str],
    configuration: Configuration,
    *,
    connect: Callable[[str], Any] | None = None,
) -> Replicator:
    """The Replicator of a database, not started; ``connect`` unless one is configured.

    Raises:
        ValueError: the configuration makes no sense; it says for which database.
    """
    options = dict(_as_mapping(configuration))
    _refuse_unknown(
        name, options, {*_names_of(Replicator), "replicas", "health"} - {"db"}
    )
    if connect is not None:
        options.setdefault("connect", connect)
    try:
        replicas, health = (
            _replicas(name, options.pop("replicas", ())),
            limits_from(options),
        )
        options.pop("health", None)
        if "retention" in options:
            options["retention"] = _retention(name, options["retention"])
        _refuse_unknown(name, health, _names_of(Replicator.health))
        replicator = Replicator(database, replicas, **options)
        replicator.health(**health)  # limits that make no sense are refused
        return replicator
    except (TypeError, ValueError) as error:
        raise _about(name, error) from error


def _about(name: str, error: Exception) -> ValueError:
    """An error that says for which database it is, once."""
    text, prefix = str(error), f"replication of {name}: "
    return ValueError(text if text.startswith(prefix) else prefix + text)


def _refuse_unknown(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Say which key is none, and what may be meant."""
    known = sorted(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            )
            raise ValueError(f"replication of {name}: unknown key {key!r}; {hint}")


def _names_of(function: Callable[..., Any]) -> list[str]:
    """The names of the parameters of a function or class."""
    names = inspect.signature(function).parameters
    return [name for name in names if name != "self"]


def limits_from(configuration: Configuration) -> dict[str, Any]:
    """The limits of its health."""
    return dict(_as_mapping(configuration).get("health", {}))


def destinations_from(name: str, configuration: Configuration) -> list[Destination]:
    """Only where it goes; raises as ``replicator_from``."""
    try:
        return _replicas(name, _as_mapping(configuration).get("replicas", ()))
    except (TypeError, ValueError) as error:
        raise _about(name, error) from error


def replicas_from(name: str, configuration: Configuration) -> list[Replica]:
    """Those that have a history; raises as ``replicator_from``."""
    found = destinations_from(name, configuration)
    return [replica for replica in found if isinstance(replica, Replica)]


def _as_mapping(configuration: Configuration) -> Mapping[str, Any]:
    if isinstance(configuration, Mapping) and not _is_one(configuration):
        return configuration
    return {"replicas": configuration}


def _is_one(entry: Mapping[str, Any]) -> bool:
    return "url" in entry or "mirror" in entry


def _replicas(name: str, entries: Any) -> list[Destination]:
    if isinstance(entries, str | os.PathLike | Replica | Mirror | Mapping):
        entries = [entries]
    return [_replica(name, entry) for entry in entries]


def _replica(name: str, entry: Any) -> Destination:
    if isinstance(entry, Replica | Mirror):
        return entry
    values = dict(entry) if isinstance(entry, Mapping) else {"url": entry}
    if "mirror" in values:
        _refuse_unknown(name, values, {*_names_of(Mirror), "mirror"} - {"path"})
        return Mirror(_named(values.pop("mirror"), name), **values)
    _refuse_unknown(name, values, _names_of(Replica))
    values["url"] = _named(values.get("url"), name)
    if "retention" in values:
        values["retention"] = _retention(name, values["retention"])
    return Replica(**values)


def _named(place: Any, name: str) -> Any:
    return place.replace("{name}", name) if isinstance(place, str) else place


def _retention(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    _refuse_unknown(name, value, _names_of(Retention))
    return Retention(**value)
