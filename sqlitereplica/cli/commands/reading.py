"""``follow`` and ``query``: reading a replica, as a file that keeps up or by SQL in place."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from typing import Any

from sqlitereplica.cli.arguments import Parser, UsageError, parse_txid
from sqlitereplica.cli.output import print_json, print_table, time_text
from sqlitereplica.cli.target import find_target
from sqlitereplica.errors import FollowTimeoutError, TargetExistsError
from sqlitereplica.reading import connect
from sqlitereplica.reading.query import run_query
from sqlitereplica.replicate import Follower
from sqlitereplica.store import Replica

__all__ = ["add", "follow"]

_LOOK_EVERY = 1.0


def add(commands: Any) -> None:
    """Declare the commands."""
    parser: Parser = commands.add_parser(
        "follow",
        help="keep a local file at the newest state of a replica",
        description="Make PATH a SQLite database that follows a replica until SIGINT or"
        " SIGTERM. Any program may read it meanwhile.",
    )
    parser.add_argument("what", metavar="WHAT", help="database, URL or folder")
    parser.add_argument("path", metavar="PATH", help="the file that follows")
    parser.config_flags()
    parser.flag("interval", default="1s", help="how often to look (default: 1s)")
    parser.switch(
        "overwrite", "replace what is there, if it is no state of the replica"
    )
    parser.switch("once", "end when the file has the newest state")
    parser.set_defaults(run=_follow)
    query: Parser = commands.add_parser(
        "query",
        help="run SQL on a replica, without restoring it",
        description="Only the pages that the query needs are fetched.",
    )
    query.add_argument("what", metavar="WHAT", help="database, URL or folder")
    query.add_argument("sql", metavar="SQL", help="one statement or several")
    query.config_flags()
    query.flag("at", metavar="T", help="the last state before this time, or a pin")
    query.flag("txid", metavar="N", help="the state after exactly this transaction")
    query.json_flag()
    query.set_defaults(run=_query)


def _follow(arguments: argparse.Namespace) -> int:
    return follow(
        find_target(arguments, arguments.what).replicas,
        arguments.path,
        arguments.interval,
        overwrite=arguments.overwrite,
        once=arguments.once,
    )


def follow(
    replicas: Sequence[Replica],
    path: str,
    interval: str,
    *,
    overwrite: bool = False,
    once: bool = False,
) -> int:
    """Follow until a signal comes."""
    if len(replicas) != 1:
        raise UsageError("several replicas: give the URL of the one to follow")
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    follower = Follower(replicas[0], path, interval=interval, overwrite=overwrite)
    try:
        return _keep_up(follower, path, stopping, once=once)
    except TargetExistsError as error:
        raise TargetExistsError(
            error.path,
            f"{error.path} exists and is no copy of this replica: choose another path, or"
            " have it replaced with 'follow -overwrite'",
        ) from error


def _keep_up(
    follower: Follower, path: str, stopping: threading.Event, *, once: bool
) -> int:
    told = ""
    with follower:
        while not stopping.is_set():
            try:
                follower.wait(timeout=_LOOK_EVERY)
            except FollowTimeoutError:
                continue  # what is wrong is logged
            status = follower.status()
            state = (
                f"{path}: transaction {status.txid} of {time_text(status.timestamp)}"
            )
            if state != told:
                print(state, flush=True)
                told = state
            if once:
                return 0
            stopping.wait(_LOOK_EVERY)
    return 0


def _query(arguments: argparse.Namespace) -> int:
    replicas = find_target(arguments, arguments.what).replicas
    txid = parse_txid(arguments.txid)
    with closing(
        connect(replicas[0], arguments.at, txid=txid, refresh=None)
    ) as connection:
        columns, rows = run_query(connection, arguments.sql)
    if arguments.json:
        names = _unique(columns)
        print_json([_as_json(names, row) for row in rows])
    elif rows:
        print_table(columns, [[_text(cell) for cell in row] for row in rows])
    elif sys.stdout.isatty():
        print("no rows")
    return 0


def _unique(columns: Sequence[str]) -> list[str]:
    """Names for an object: a second column of one name gets a number, as in SQLite."""
    found: list[str] = []
    for name in columns:
        numbered = (f"{name}:{number}" for number in count(1))
        found.append(
            name if name not in found else next(n for n in numbered if n not in found)
        )
    return found


def _as_json(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    return {
        name: cell.hex() if isinstance(cell, bytes) else cell
        for name, cell in zip(columns, row, strict=True)
    }


def _text(cell: Any) -> str:
    if cell is None:
        return "NULL"
    return f"x'{cell.hex()}'" if isinstance(cell, bytes) else str(cell)
