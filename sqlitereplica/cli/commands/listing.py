"""``databases``, ``ltx``, ``points``: what there is."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from sqlitereplica.cli.arguments import Parser, UsageError
from sqlitereplica.cli.output import print_json, print_table, time_text
from sqlitereplica.cli.target import find_target, load_config, plans_of
from sqlitereplica.ltx import MAX_LEVEL, FileInfo, format_txid
from sqlitereplica.restore import restore_points
from sqlitereplica.sizes import size_text
from sqlitereplica.store.reach import to_datetime

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    databases: Parser = commands.add_parser(
        "databases", help="list the databases of the configuration and their replicas"
    )
    databases.config_flags()
    databases.json_flag()
    databases.set_defaults(run=_databases)
    for name in ("ltx", "wal"):
        ltx: Parser = commands.add_parser(
            name,
            **({"help": "list the LTX files of a replica"} if name == "ltx" else {}),
            description="List the LTX files of a replica.",
        )
        ltx.add_argument("what", metavar="WHAT", help="database, URL or folder")
        ltx.config_flags()
        ltx.flag("level", default="0", help="0 to 9, or 'all' (default: 0)")
        ltx.json_flag()
        ltx.set_defaults(run=_ltx)
    points: Parser = commands.add_parser("points", help="list what can be restored")
    points.add_argument("what", metavar="WHAT", help="database, URL or folder")
    points.config_flags()
    points.json_flag()
    points.set_defaults(run=_points)


def _databases(arguments: argparse.Namespace) -> int:
    now = datetime.now().astimezone()
    plans = plans_of(load_config(arguments))
    rows = [
        {
            "path": plan.path,
            "pattern": plan.config.pattern if plan.is_folder else None,
            "replicas": [replica.display_name for replica in plan.replicas_at(now)],
        }
        for plan in plans
    ]
    if arguments.json:
        print_json(rows)
        return 0
    print_table(
        ("database", "replica"),
        [
            (
                f"{row['path']}/{row['pattern']}" if row["pattern"] else row["path"],
                replica,
            )
            for row in rows
            for replica in row["replicas"] or ()
        ],
    )
    return 0


def _ltx(arguments: argparse.Namespace) -> int:
    levels = _levels(arguments.level)
    rows: list[tuple[str, FileInfo]] = []
    for replica in find_target(arguments, arguments.what).replicas:
        store = replica.open()
        listed = store.list_all() if len(levels) > 1 else store.list_level(levels[0])
        rows += [(store.name, file) for file in listed]
    if arguments.json:
        print_json([{"replica": name, **_file_json(file)} for name, file in rows])
        return 0
    print_table(
        ("level", "min_txid", "max_txid", "size", "created"),
        [
            (
                file.level,
                format_txid(file.min_txid),
                format_txid(file.max_txid),
                file.size,
                time_text(to_datetime(file.timestamp)),
            )
            for _, file in rows
        ],
    )
    return 0


def _levels(text: str) -> list[int]:
    if text == "all":
        return list(range(MAX_LEVEL + 1))
    if text.isdigit() and int(text) <= MAX_LEVEL:
        return [int(text)]
    raise UsageError(f"-level {text!r} is none: give 0 to {MAX_LEVEL}, or 'all'")


def _file_json(file: FileInfo) -> dict[str, object]:
    return {
        "level": file.level,
        "min_txid": format_txid(file.min_txid),
        "max_txid": format_txid(file.max_txid),
        "size": file.size,
        "timestamp": to_datetime(file.timestamp),
    }


def _points(arguments: argparse.Namespace) -> int:
    found = [restore_points(r) for r in find_target(arguments, arguments.what).replicas]
    if arguments.json:
        import msgspec

        raw = [msgspec.Raw(points.to_json()) for points in found]
        print_json(raw[0] if len(raw) == 1 else raw)
        return 0
    for points in found:
        print(points.replica)
        if not points:
            print("nothing can be restored: there is no backup")
            continue
        print_table(
            ("txid", "time", "level", "files", "to fetch", "pins"),
            [
                (
                    point.txid,
                    time_text(point.time),
                    point.level,
                    point.files,
                    size_text(point.bytes_to_fetch),
                    ", ".join(point.pins),
                )
                for point in points
            ],
        )
    return 0
