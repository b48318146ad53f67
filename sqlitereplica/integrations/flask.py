"""A Flask extension: databases are replicated as ``app.config["SQLITEREPLICA"]`` says.

The configuration describes one database, or several by name; ``integrations/configured.py``
has the form, to which ``database`` adds the path, relative to the instance folder::

    app.config["SQLITEREPLICA"] = {"database": "app.db", "replicas": "s3://bucket/app"}

The first request of each process starts replication there: after any ``fork()``, not in the
``flask`` command line, not in the parent of the reloader, and not in tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from flask import Flask, Response, current_app, jsonify
from flask.cli import AppGroup, with_appcontext

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.integrations.commands import (
    Target,
    restore_targets,
    show_status,
    verify_targets,
)
from sqlitereplica.integrations.configured import (
    limits_from,
    replicas_from,
    replicator_from,
)
from sqlitereplica.integrations.named import Replicators
from sqlitereplica.replicate import Replicator

__all__ = ["SQLiteReplica"]

_KEY = "sqlitereplica"


class SQLiteReplica:
    """The extension. One object may serve several applications.

    Example:
        >>> replication = SQLiteReplica()
        >>> def create_app():
        ...     app = Flask(__name__)
        ...     app.config["SQLITEREPLICA"] = {
        ...         "database": "app.db",
        ...         "replicas": "s3://bucket/app",
        ...     }
        ...     replication.init_app(app)
        ...     return app
    """

    def __init__(self, app: Flask | None = None) -> None:
        """With an application: ``init_app`` at once."""
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration; nothing is opened or started.

        Raises:
            ValueError: the configuration makes no sense.
        """
        found = _Databases(app)
        app.extensions[_KEY] = found
        # First, so that whatever else looks at the database finds it restored.
        app.before_request_funcs.setdefault(None, []).insert(0, found.start_once)
        app.cli.add_command(_commands())

    def start(self, app: Flask | None = None) -> None:
        """Replicate from this process, before its first request. Idempotent.

        Raises as ``Replicator.start``.
        """
        _databases_of(app).replicators.start()

    def stop(self, app: Flask | None = None, timeout: float | None = None) -> None:
        """Flush and stop, before the interpreter does. Raises as ``Replicator.stop``."""
        _databases_of(app).replicators.stop(timeout)

    @property
    def replicators(self) -> Replicators:
        """Those of the current application, by name."""
        return _databases_of(None).replicators

    def replicators_of(self, app: Flask) -> Replicators:
        """Those of an application, for what is around it, such as the output gate."""
        return _databases_of(app).replicators

    @property
    def replicator(self) -> Replicator:
        """That of the current application, if it has one database.

        Raises:
            ValueError: it has several, or none.
        """
        replicators = self.replicators
        if not replicators:
            raise ValueError("app.config['SQLITEREPLICA'] names no database")
        if len(replicators) > 1:
            names = ", ".join(replicators)
            raise ValueError(f"there are several, use replicators[...]: {names}")
        return next(iter(replicators.values()))

    def health(self) -> tuple[Response, int]:
        """A view for load balancers: 200 if all is well, else 503.

        Use it as ``app.add_url_rule("/healthz", view_func=replication.health)``. It tells
        names, but neither paths nor places nor errors.
        """
        report = self.replicators.report()
        databases = {name: value["ok"] for name, value in report["databases"].items()}
        answer = jsonify(ok=report["ok"], databases=databases)
        answer.headers["Cache-Control"] = "no-store"
        return answer, 200 if report["ok"] else 503


class _Databases:
    """What one application replicates."""

    def __init__(self, app: Flask) -> None:
        configured = app.config.get("SQLITEREPLICA", {})
        if not isinstance(configured, Mapping):
            raise ValueError("SQLITEREPLICA is a mapping: of one database, or by name")
        if "database" in configured or "replicas" in configured:
            configured = {"default": configured}
        self._app = app
        self.targets: dict[str, Target] = {}
        members, limits = {}, {}
        for name, description in configured.items():
            path, rest = _split(app, name, description)
            members[name] = replicator_from(name, path, rest)
            limits[name] = limits_from(rest)
            self.targets[name] = Target(name, path, replicas_from(name, rest))
        self.replicators = Replicators(members, limits)
        self._started = False

    def start_once(self) -> None:
        """Before each request: start with the first. Tests start what they need."""
        if self._started or self._app.testing:
            return
        self.replicators.start()
        self._started = True


def _split(app: Flask, name: str, description: Any) -> tuple[str, dict[str, Any]]:
    """The path of a database, and how it is replicated."""
    if not isinstance(description, Mapping) or "database" not in description:
        raise ValueError(f"SQLITEREPLICA: {name} is no mapping with the key 'database'")
    rest = dict(description)
    path = os.path.join(app.instance_path, os.fspath(rest.pop("database")))
    return path, rest


def _databases_of(app: Flask | None) -> _Databases:
    found: _Databases | None = (app or current_app).extensions.get(_KEY)
    if found is None:
        raise RuntimeError(
            "this application is not replicated: call init_app(app), or make"
            " SQLiteReplica(app)"
        )
    return found


# -- flask sqlitereplica ---------------------------------------------------------------


def _commands() -> AppGroup:
    group = AppGroup(_KEY, help="Restore, look at or verify replicated databases.")
    for command in (_restore, _status, _verify):
        group.add_command(command)
    return group


_names = click.argument("names", nargs=-1)
_as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.command("restore")
@_names
@click.option("--at", help="A time, '5 minutes ago', or a pin.")
@click.option("--txid", type=int, help="Exactly this transaction.")
@click.option(
    "--if-exists", type=click.Choice(["skip", "error", "replace"]), default="skip"
)
@click.option("--missing", type=click.Choice(["skip", "error"]), default="skip")
@click.option("--keep-old", is_flag=True, help="Keep what is replaced.")
@with_appcontext
def _restore(names: tuple[str, ...], **options: Any) -> None:
    """Restore what is missing, as before the first start."""
    with _reported():
        restore_targets(_chosen(names), click.echo, **options)


@click.command("status")
@_names
@_as_json
@with_appcontext
def _status(names: tuple[str, ...], as_json: bool) -> None:
    """Tell what the replicas can restore."""
    with _reported():
        if not show_status(_chosen(names), click.echo, as_json=as_json):
            raise click.ClickException("not every replica has a backup")


@click.command("verify")
@_names
@click.option(
    "--level",
    type=click.Choice(["listing", "checksums", "restore"]),
    default="checksums",
)
@click.option("--scope", type=click.Choice(["history", "latest"]), default="history")
@_as_json
@with_appcontext
def _verify(names: tuple[str, ...], **options: Any) -> None:
    """Prove that the replicas can be restored."""
    with _reported():
        if not verify_targets(_chosen(names), click.echo, **options):
            raise click.ClickException("not all is as it should be")


def _chosen(names: tuple[str, ...]) -> list[Target]:
    targets = _databases_of(None).targets
    for name in names:
        if name not in targets:
            raise click.ClickException(f"SQLITEREPLICA does not name {name!r}")
    return [targets[name] for name in names or targets]


@contextmanager
def _reported() -> Iterator[None]:
    """What goes wrong is one line and an exit code."""
    try:
        yield
    except (SQLiteReplicaError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
