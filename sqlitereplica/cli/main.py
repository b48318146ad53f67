"""Arguments to function calls; errors to one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sqlitereplica.cli.demo import run_demo
from sqlitereplica.errors import SQLiteReplicaError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        return run_demo(arguments.path, seconds=arguments.seconds)
    except (SQLiteReplicaError, OSError) as error:
        print(f"sqlitereplica: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sqlitereplica",
        description="Continuous replication of SQLite databases.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="replicate a database while it is written to, lose it, restore it",
        description="Replicate a database to a local folder while a second process"
        " writes to it, kill that process, delete the database, restore it and prove"
        " that nothing is missing. Works in a temporary folder.",
    )
    demo.add_argument(
        "path", nargs="?", help="a SQLite database to copy and use; it is only read"
    )
    demo.add_argument(
        "--seconds", type=float, default=3.0, help="how long to write (default: 3)"
    )
    return parser
