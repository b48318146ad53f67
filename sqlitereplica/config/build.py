"""From a configuration to what a ``Replicator`` takes. Pure, given the variables.

Nothing is opened here. What is inherited from whom is decided in one place, ``_inherit``:
a key of the replica wins over one of the whole file, as in Litestream.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from sqlitereplica.config.expand import (
    date_format,
    is_dated,
)
from sqlitereplica.config.plan import ANY_DAY, DatabasePlan, DatedReplica
from sqlitereplica.config.s3 import s3_options
from sqlitereplica.config.schema import (
    Config,
    DatabaseConfig,
    ReplicaConfig,
    ReplicaKeys,
    RetentionConfig,
)
from sqlitereplica.durations import parse_duration
from sqlitereplica.errors import ConfigError
from sqlitereplica.policy import Retention
from sqlitereplica.replicate import Mirror, Replicator
from sqlitereplica.sizes import parse_size
from sqlitereplica.store import Encryption, Replica
from sqlitereplica.store.location import locate

__all__ = ["DatabasePlan", "DatedReplica", "build", "check_places", "replica_of_url"]

_OBJECT_STORES = {"gs": "gs", "abs": "abfs", "oss": "oss"}
_REFUSED = {"nats": "there is no fsspec filesystem for NATS object stores"}


def build(config: Config, env: Mapping[str, str]) -> list[DatabasePlan]:
    """Every database of a configuration, in its order.

    Raises:
        ConfigError: something cannot be meant, or not be done.
    """
    plans = [_plan(db, config, env) for db in config.dbs]
    paths = [plan.path for plan in plans]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"the database {path} is there twice", kind="twice")
    check_places(plan for plan in plans if not plan.is_folder)
    return plans


def check_places(plans: Iterable[DatabasePlan]) -> None:
    """Refuse that two databases have one replica: each would take it for its own.

    Raises:
        ConfigError: two do.
    """
    users: dict[object, str] = {}
    for plan in plans:
        for replica in plan.replicas_at(ANY_DAY):
            other = users.setdefault(_place_of(replica), plan.path)
            if other != plan.path:
                raise ConfigError(
                    f"{other} and {plan.path} have the same replica,"
                    f" {replica.display_name}: give each a path of its own",
                    kind="twice",
                )


def _place_of(replica: Replica | Mirror) -> object:
    if isinstance(replica, Mirror):
        return replica.pattern
    assert isinstance(replica.url, str), "all of a configuration are"
    options = locate(replica.url, replica.storage_options).options
    server = options.get("endpoint_url") or options.get("base_url")
    return replica.display_name, server


def replica_of_url(
    url: str, env: Mapping[str, str], config: Config | None = None
) -> Replica:
    """The replica that a URL or folder on a command line means; raises ConfigError."""
    made = _replica(ReplicaConfig(url=url), None, config or Config(), env)
    if isinstance(made, DatedReplica):
        return made.at(datetime.now().astimezone())
    return made


def _plan(db: DatabaseConfig, config: Config, env: Mapping[str, str]) -> DatabasePlan:
    if (db.path is None) == (db.dir is None):
        raise ConfigError("a database has a path, or a dir with a pattern")
    if db.dir is not None and not db.pattern:
        raise ConfigError(f"{db.dir}: a dir needs a pattern, such as '*.db'")
    if db.dir is None and (db.pattern or db.recursive or db.watch or db.meta_dir):
        raise ConfigError(
            f"{db.path}: pattern, recursive, watch and meta-dir belong to a dir"
        )
    if db.dir is not None and (db.meta_path or db.restore_if_db_not_exists):
        raise ConfigError(
            f"{db.dir}: meta-path and restore-if-db-not-exists are for single databases"
        )
    place = db.path if db.path is not None else db.dir
    if not place:
        raise ConfigError("a database has an empty path: is a variable not set?")
    path = database_path(place)
    given = [*db.replicas] if db.replica is None else [db.replica, *db.replicas]
    if not given:
        raise ConfigError(f"{path}: no replica is given")
    try:
        replicas = tuple(_replica_or_mirror(r, db, config, env) for r in given)
        arguments = _arguments(db, given, config, env)
        plan = DatabasePlan(
            config=db, path=path, replicas=replicas, arguments=arguments
        )
        # What it refuses is refused now, not when it is to be started.
        if plan.is_folder:
            plan.group()
        else:
            Replicator(path, plan.replicas_at(ANY_DAY), **arguments)
    except ValueError as error:
        kind = error.kind if isinstance(error, ConfigError) else "value"
        raise ConfigError(f"{path}: {error}", kind=kind) from error
    return plan


def database_path(text: str) -> str:
    """The path of a database as Litestream takes it: ``~``, ``sqlite://`` and relative."""
    for prefix in ("sqlite3://", "sqlite://"):
        text = text.removeprefix(prefix)
    return os.path.abspath(os.path.expanduser(text))


def _arguments(
    db: DatabaseConfig,
    replicas: list[ReplicaConfig],
    config: Config,
    env: Mapping[str, str],
) -> dict[str, Any]:
    """What Replicator is given beside the replicas; what is not said is left out."""
    merged = [_inherit(r, config) for r in replicas]
    intervals = [r.sync_interval for r in merged if r.sync_interval is not None]
    snapshots = [r.snapshot_interval for r in merged if r.snapshot_interval is not None]
    buffer = env.get("LITESTREAM_BUFFER_SIZE")
    found: dict[str, Any] = {
        "sync_interval": min(i.total_seconds() for i in intervals)
        if intervals
        else None,
        "levels": config.levels and tuple(level.interval for level in config.levels),
        "snapshot_interval": db.snapshot.interval
        or config.snapshot.interval
        or (min(snapshots) if snapshots else None),
        "verify_interval": config.verify_interval or config.validation.interval or None,
        "stop_timeout": None
        if config.shutdown_sync_timeout is None
        else config.shutdown_sync_timeout.total_seconds(),
        "buffer_size": config.buffer_size or (buffer and _size_of(buffer)),
        "spool_size": config.spool_size,
        "meta_path": db.meta_path and os.path.abspath(os.path.expanduser(db.meta_path)),
        "retention": _retention(merged[0], db, config, env),
    }
    return {name: value for name, value in found.items() if value is not None}


def _size_of(text: str) -> int:
    try:
        return parse_size(text, "LITESTREAM_BUFFER_SIZE")
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _inherit(replica: ReplicaConfig, config: Config) -> ReplicaConfig:
    """A replica with what the whole file says where it says nothing."""
    general = {
        f.name: getattr(config, f.name)
        for f in fields(ReplicaKeys)
        if getattr(replica, f.name) is None
    }
    return dataclasses.replace(replica, **general)


# -- replicas ----------------------------------------------------------------------------


def _replica_or_mirror(
    given: ReplicaConfig, db: DatabaseConfig, config: Config, env: Mapping[str, str]
) -> Replica | Mirror | DatedReplica:
    if given.type == "mirror":
        return _mirror(given)
    return _replica(given, db, config, env)


def _mirror(given: ReplicaConfig) -> Mirror:
    """A plain SQLite file; its ``$(date +FORMAT)`` are in UTC, as all of a ``Mirror``."""
    if given.encryption is not None:
        raise ConfigError("a mirror is a plain database: it cannot be encrypted")
    path = os.path.expanduser(_needed(given.path, "path", "mirror"))
    keep: int | timedelta | None = given.keep
    if keep is None and isinstance(given.retention, timedelta):
        keep = given.retention
    if is_dated(path):
        path = date_format(path)
    try:
        return Mirror(path, keep=keep, name=given.name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _replica(
    given: ReplicaConfig,
    db: DatabaseConfig | None,
    config: Config,
    env: Mapping[str, str],
) -> Replica | DatedReplica:
    replica = _inherit(given, config)
    if replica.age is not None:
        raise ConfigError(
            "age encryption is not supported, by Litestream 0.5 neither: use encryption"
        )
    kind = replica.type or (_scheme(replica.url) if replica.url else "file")
    if kind in _REFUSED:
        raise ConfigError(f"type {kind} is not supported: {_REFUSED[kind]}")
    place, options = _place(kind, replica, env)
    retention = _retention(replica, db, config, env)

    def make(url: str) -> Replica:
        return Replica(
            url,
            storage_options=options or None,
            retention=retention,
            encryption=encryption,
        )

    try:
        encryption = _encryption(replica)
        if is_dated(place):
            _refuse_rules(retention)
            return DatedReplica(place, make, retention)
        return make(place)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _refuse_rules(retention: Retention) -> None:
    """One place for each day is let go as a whole: it knows nothing of its neighbours."""
    for rule in ("keep_last", "hourly", "daily", "weekly", "monthly"):
        if getattr(retention, rule):
            raise ConfigError(
                "a replica with the date in its path is kept for the window of its"
                f" retention, and {rule.replace('_', '-')} does not go with that: give it"
                " a window of its own, such as 'retention: 30d', or leave out the date"
            )


def _encryption(replica: ReplicaConfig) -> Encryption | None:
    """None if nothing is said; ValueError for keys that cannot be used."""
    given = replica.encryption
    if given is None:
        return None
    return Encryption(
        recipients=given.recipients,
        identities=given.identities,
        key=given.key,
        old_keys=given.old_keys,
    )


def _place(
    kind: str, replica: ReplicaConfig, env: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """The URL of a replica and options for its filesystem."""
    if replica.url and (replica.path or replica.bucket or replica.host):
        raise ConfigError("a replica has a url, or a path with what it needs, not both")
    own = dict(replica.options or {})
    if kind == "file":
        return replica.url or _needed(replica.path, "path", kind), own
    if kind == "s3":
        url = _s3_url(replica)
        return url, {**s3_options(replica, env, url), **own}
    if kind == "sftp":
        if replica.host_key:
            raise ConfigError(
                "host-key is not supported: the key of an SFTP server is not checked, so"
                " leaving it in would promise what is not done"
            )
        return _sftp_url(replica), {**_sftp_options(replica), **own}
    if kind in ("webdav", "webdavs"):
        return _webdav(replica, own)
    if kind in _OBJECT_STORES:
        bucket = (
            replica.bucket if replica.url else _needed(replica.bucket, "bucket", kind)
        )
        url = replica.url or f"{kind}://{bucket}/{(replica.path or '').strip('/')}"
        rest = url.partition("://")[2]
        extra = {"abs": _azure_options, "oss": _oss_options}.get(kind, _no_options)
        return f"{_OBJECT_STORES[kind]}://{rest}", {**extra(replica, env), **own}
    if replica.url is None:
        return f"{kind}://{_needed(replica.path, 'path', kind)}", own
    return replica.url, own


def _s3_url(replica: ReplicaConfig) -> str:
    if replica.url is not None:
        return replica.url
    bucket = _needed(replica.bucket, "bucket", "s3")
    # The path is none of a URL yet; dates are left as they are.
    path = quote((replica.path or "").strip("/"), safe="/$()+% -_.~'\"")
    return f"s3://{bucket}/{path}".rstrip("/")


def _sftp_url(replica: ReplicaConfig) -> str:
    if replica.url is not None:
        return replica.url
    host = _needed(replica.host, "host", "sftp")
    return f"sftp://{host}/{(replica.path or '').lstrip('/')}"


def _sftp_options(replica: ReplicaConfig) -> dict[str, Any]:
    given = {
        "username": replica.user,
        "password": replica.password,
        "key_filename": replica.key_path,
    }
    return {name: value for name, value in given.items() if value}


def _azure_options(replica: ReplicaConfig, env: Mapping[str, str]) -> dict[str, Any]:
    variable = "LITESTREAM_AZURE_"
    given = {
        "account_name": replica.account_name,
        "account_key": replica.account_key or env.get(f"{variable}ACCOUNT_KEY"),
        "sas_token": replica.sas_token or env.get(f"{variable}SAS_TOKEN"),
    }
    return {name: value for name, value in given.items() if value}


def _oss_options(replica: ReplicaConfig, env: Mapping[str, str]) -> dict[str, Any]:
    region = replica.region or "cn-hangzhou"
    given = {
        "key": replica.access_key_id or env.get("LITESTREAM_ACCESS_KEY_ID"),
        "secret": replica.secret_access_key or env.get("LITESTREAM_SECRET_ACCESS_KEY"),
        "token": replica.session_token,
        "endpoint": replica.endpoint or f"https://oss-{region}.aliyuncs.com",
    }
    return {name: value for name, value in given.items() if value}


def _no_options(_: ReplicaConfig, __: Mapping[str, str]) -> dict[str, Any]:
    return {}


def _webdav(replica: ReplicaConfig, own: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    base = _needed(replica.webdav_url or replica.url, "webdav-url", "webdav")
    options: dict[str, Any] = {"base_url": base}
    if replica.webdav_username:
        options["auth"] = (replica.webdav_username, replica.webdav_password or "")
    return f"webdav://{(replica.path or '').lstrip('/')}", {**options, **own}


def _scheme(url: str) -> str:
    scheme = urlsplit(url).scheme if "://" in url else ""
    return scheme or "file"


def _needed(value: str | None, key: str, kind: str) -> str:
    if not value:
        raise ConfigError(f"a replica of type {kind} needs the key {key!r}")
    return value


# -- retention ---------------------------------------------------------------------------


def _retention(
    replica: ReplicaConfig,
    db: DatabaseConfig | None,
    config: Config,
    env: Mapping[str, str],
) -> Retention:
    """What a replica keeps: its own word, else the database's, the file's, the variable."""
    found = replica.retention
    rules: dict[str, Any] = {}
    if isinstance(found, RetentionConfig):
        rules = _rules(found)
    elif found is not None:
        rules = {"window": found}
    general = config.retention
    if isinstance(general, RetentionConfig):
        rules = {**_rules(general), **rules}
    if "window" not in rules:
        rules["window"] = _window(db, config, env)
    if config.l0_retention is not None:
        rules.setdefault("fine", config.l0_retention)
    return Retention(**rules)


def _rules(given: RetentionConfig) -> dict[str, Any]:
    rules = {
        f.name: getattr(given, f.name)
        for f in fields(given)
        if f.name != "enabled" and getattr(given, f.name) is not None
    }
    return rules if given.enabled else {**rules, "delete": False}


def _window(
    db: DatabaseConfig | None, config: Config, env: Mapping[str, str]
) -> timedelta:
    if db is not None and db.snapshot.retention is not None:
        return db.snapshot.retention
    if config.snapshot.retention is not None:
        return config.snapshot.retention
    try:
        return parse_duration(env.get("LITESTREAM_RETENTION") or "24h", "retention")
    except ValueError as error:
        raise ConfigError(f"LITESTREAM_RETENTION: {error}") from error
