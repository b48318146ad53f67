"""``verify -all``, ``restore -all`` and ``compact``: all replicas below a place."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from sqlitereplica.cli.arguments import Parser, UsageError
from sqlitereplica.cli.exits import PROBLEMS
from sqlitereplica.cli.output import print_json
from sqlitereplica.cli.target import find_target
from sqlitereplica.config import replica_of_url
from sqlitereplica.fleet import (
    CompactReport,
    Outcome,
    compact_all,
    compact_replica,
    find_replicas,
)
from sqlitereplica.restore import RestoreResult, VerifyReport
from sqlitereplica.sizes import size_text
from sqlitereplica.store import Replica

__all__ = ["add", "all_flags", "below", "print_outcomes"]

_JOBS = 8


def add(commands: Any) -> None:
    """Declare the command."""
    parser: Parser = commands.add_parser(
        "compact",
        help="merge the files of a replica, without its database",
        description="Merge what waits at each level of a replica, as a Replicator does."
        " Nothing is deleted.",
    )
    parser.add_argument("what", metavar="WHAT", help="database, URL or folder")
    parser.config_flags()
    parser.switch("even-if-held", "also if somebody, perhaps dead, has a lease")
    all_flags(parser)
    parser.json_flag()
    parser.set_defaults(run=_compact)


def all_flags(parser: Parser) -> None:
    """Add what commands take that work on many replicas."""
    parser.switch("all", "all replicas at this URL or in this folder, at any depth")
    parser.flag("jobs", metavar="N", type=int, help=f"with -all: at a time ({_JOBS})")


def below(arguments: argparse.Namespace) -> tuple[Iterator[Replica], int]:
    """The replicas that ``-all`` means, and how many are worked on at a time."""
    if arguments.config is not None:
        raise UsageError("-all takes a URL or a folder, and no -config")
    if not arguments.what:
        raise UsageError("-all needs the URL or the folder that the replicas are in")
    jobs = _JOBS if arguments.jobs is None else arguments.jobs
    if jobs < 1:
        raise UsageError(f"-jobs {jobs}: one is the least")
    return find_replicas(replica_of_url(arguments.what, os.environ)), jobs


def print_outcomes(outcomes: Iterator[Outcome[Any]], *, as_json: bool) -> int:
    """Print one line for each replica as it is done; returns the exit code."""
    count = good = 0
    for outcome in outcomes:
        count, good = count + 1, good + outcome.ok
        line = outcome.to_json().decode() if as_json else _line(outcome)
        print(line, flush=True)
    if not as_json:
        print(f"{count:,} replicas, {good:,} ok")
    return 0 if count and good == count else PROBLEMS


def _line(outcome: Outcome[Any]) -> str:
    name, result = outcome.replica.display_name, outcome.result
    if outcome.error is not None:
        return f"failed  {name}: {outcome.error}".replace("\n", " ")
    if isinstance(result, VerifyReport):
        if not result.ok:
            return f"bad     {name}: {'; '.join(result.problems)}"
        return f"ok      {name}: transaction {result.latest_txid or '-'}"
    if isinstance(result, RestoreResult):
        return f"ok      {name}: {result.reason}, {result.path}"
    assert isinstance(result, CompactReport)
    return f"ok      {name}: {_made(result)}"


def _made(report: CompactReport) -> str:
    size = size_text(report.total_bytes)
    return f"{report.files} files made of {report.merged}, {size}"


def _compact(arguments: argparse.Namespace) -> int:
    options = {"even_if_held": arguments.even_if_held}
    if arguments.all:
        replicas, jobs = below(arguments)
        return print_outcomes(
            compact_all(replicas, threads=jobs, **options), as_json=arguments.json
        )
    target = find_target(arguments, arguments.what)
    reports = [compact_replica(replica, **options) for replica in target.replicas]
    if arguments.json:
        print_json(reports[0] if len(reports) == 1 else reports)
    else:
        for report in reports:
            print(f"{report.replica}: {_made(report)}")
    return 0
