"""``status``, ``reset``, ``version``, ``config check``: what is on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sqlitereplica.cli.arguments import Parser, UsageError
from sqlitereplica.cli.daemon import check_settings
from sqlitereplica.cli.exits import PROBLEMS
from sqlitereplica.cli.output import print_json, print_table, time_text
from sqlitereplica.cli.target import find_target, load_config, plan_of, plans_of
from sqlitereplica.config import IGNORED, DatabasePlan, config_path, database_path
from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.replicate import forget_metadata
from sqlitereplica.sizes import size_text
from sqlitereplica.store import Replica
from sqlitereplica.store.reach import to_datetime

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    status: Parser = commands.add_parser(
        "status",
        help="say how databases and their replicas are",
        description="Look at the databases of the configuration, and ask their replicas"
        " for their newest transaction. Exits with 4 if a replica does not answer.",
    )
    status.add_argument("what", nargs="?", metavar="DB", help="one database")
    status.config_flags()
    status.json_flag()
    status.set_defaults(run=_status)
    reset: Parser = commands.add_parser(
        "reset",
        help="forget the local metadata of a database",
        description="Delete the metadata folder beside a database. The next start"
        " compares with the replicas instead; nothing is lost.",
    )
    reset.add_argument("what", metavar="DB", help="the database")
    reset.config_flags()
    reset.switch("dry-run", "only say what would be deleted")
    reset.json_flag()
    reset.set_defaults(run=_reset)
    parser: Parser = commands.add_parser("version", help="print the version")
    parser.switch("verbose", "also of what it is made with")
    parser.json_flag()
    parser.set_defaults(run=_version)
    config: Parser = commands.add_parser("config", help="work on the configuration")
    actions = config.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=Parser
    )
    check: Parser = actions.add_parser("check", help="read it and say what is wrong")
    check.config_flags()
    check.json_flag()
    check.set_defaults(run=_check)


# -- status ------------------------------------------------------------------------------


def _status(arguments: argparse.Namespace) -> int:
    if arguments.what is None:
        plans = [p for p in plans_of(load_config(arguments)) if not p.is_folder]
    else:
        plan = find_target(arguments, arguments.what).plan
        if plan is None:
            raise UsageError(f"{arguments.what} is no database of the configuration")
        plans = [plan]
    rows = [_status_of(plan) for plan in plans]
    if arguments.json:
        print_json(rows)
    else:
        _print_status(rows)
    failed = any(replica["error"] for row in rows for replica in row["replicas"])
    return PROBLEMS if failed else 0


def _status_of(plan: DatabasePlan) -> dict[str, Any]:
    size, wal = _size(plan.path), _size(f"{plan.path}-wal")
    meta = plan.arguments.get("meta_path")
    now = datetime.now().astimezone()
    return {
        "path": plan.path,
        "status": "no database"
        if size is None
        else "ok"
        if os.path.isdir(meta or _default_meta(plan.path))
        else "not initialized",
        "size": size,
        "wal_size": wal or 0,
        "replicas": [_replica_status(r) for r in plan.stores_at(now)],
    }


def _default_meta(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}-sqlitereplica")


def _replica_status(replica: Replica) -> dict[str, Any]:
    try:
        files = replica.open().list_all()
    except SQLiteReplicaError as error:
        found: dict[str, Any] = {"txid": None, "timestamp": None, "bytes": None}
        return {"name": replica.display_name, **found, "error": str(error)}
    last = max(files, key=lambda f: (f.max_txid, -f.level), default=None)
    return {
        "name": replica.display_name,
        "txid": last and last.max_txid,
        "timestamp": last and to_datetime(last.timestamp),
        "bytes": sum(file.size for file in files),
        "error": None,
    }


_NO_REPLICA = {"name": "-", "txid": None, "timestamp": None, "bytes": 0, "error": None}
"""Of a database that has only mirrors."""


def _print_status(rows: Sequence[dict[str, Any]]) -> None:
    print_table(
        ("database", "status", "wal", "replica", "txid", "time", "size"),
        [
            (
                row["path"],
                row["status"],
                size_text(row["wal_size"]),
                replica["name"],
                replica["error"] or replica["txid"] or "-",
                time_text(replica["timestamp"]),
                size_text(replica["bytes"] or 0),
            )
            for row in rows
            for replica in row["replicas"] or [_NO_REPLICA]
        ],
    )


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


# -- the rest ----------------------------------------------------------------------------


def _reset(arguments: argparse.Namespace) -> int:
    path, meta = arguments.what, None
    if os.path.exists(config_path(arguments.config, os.environ)) or arguments.config:
        plan = plan_of(plans_of(load_config(arguments)), database_path(path))
        if plan is not None:
            path, meta = plan.path, plan.arguments.get("meta_path")
    folder, removed = forget_metadata(path, meta_path=meta, dry_run=arguments.dry_run)
    if arguments.json:
        print_json({"path": path, "folder": str(folder), "removed": removed})
    elif not removed:
        print(f"{folder}: not there, nothing to forget")
    else:
        print(f"{folder}: {'would be deleted' if arguments.dry_run else 'deleted'}")
    return 0


def _version(arguments: argparse.Namespace) -> int:
    found = {"sqlitereplica": version("sqlitereplica")}
    if arguments.verbose:
        found |= {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "apsw": version("apsw"),
            "fsspec": version("fsspec"),
        }
    if arguments.json:
        print_json(found)
    elif arguments.verbose:
        for name, text in found.items():
            print(f"{name} {text}")
    else:
        print(found["sqlitereplica"])
    return 0


def _check(arguments: argparse.Namespace) -> int:
    path = config_path(arguments.config, os.environ)
    config = load_config(arguments)
    plans = plans_of(config)
    check_settings(config)
    notes = sorted(_ignored(config))
    if arguments.json:
        print_json(
            {
                "file": path,
                "checked": datetime.now(UTC),
                "databases": len(plans),
                "ignored": [{"key": key, "why": IGNORED[key]} for key in notes],
            }
        )
        return 0
    for key in notes:
        print(f"{path}: {key} changes nothing: {IGNORED[key]}")
    print(f"{path}: ok, {len(plans)} databases")
    return 0


def _ignored(value: Any) -> set[str]:
    """The keys that are set somewhere and change nothing."""
    import dataclasses

    found: set[str] = set()
    for field in dataclasses.fields(value):
        item, key = getattr(value, field.name), field.name.replace("_", "-")
        if key in IGNORED and item not in (None, False):
            found.add(key)
        for part in item if isinstance(item, list) else [item]:
            if dataclasses.is_dataclass(part):
                found |= _ignored(part)
    return found
