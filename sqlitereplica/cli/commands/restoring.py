"""``restore``: bring one database back, or all of a configuration."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlitereplica.cli.arguments import Parser, UsageError, parse_txid
from sqlitereplica.cli.commands.fleet import all_flags, below, print_outcomes
from sqlitereplica.cli.commands.reading import follow
from sqlitereplica.cli.output import print_json, print_table, progress, time_text
from sqlitereplica.cli.target import Target, find_target, load_config, plans_of
from sqlitereplica.errors import SQLiteReplicaError, TargetExistsError
from sqlitereplica.fleet import restore_all
from sqlitereplica.restore import RestoreResult, preview_restore, restore
from sqlitereplica.sizes import size_text

__all__ = ["add"]

_CHECKS = {"none": None, "quick": "quick", "full": "full"}


def add(commands: Any) -> None:
    """Declare the command."""
    parser: Parser = commands.add_parser(
        "restore",
        help="bring a database back, as it is now or as it was",
        description="Restore a database. WHAT is a database of the configuration, or the"
        " URL or folder of a replica, with -o. Without WHAT all databases of the"
        " configuration are restored.",
    )
    parser.add_argument(
        "what", nargs="?", metavar="WHAT", help="database, URL or folder"
    )
    parser.flag(
        "o",
        metavar="PATH",
        dest="output",
        help="where to restore to; with -all: 'out/{name}.db'",
    )
    parser.config_flags()
    parser.flag(
        "timestamp",
        metavar="T",
        help="the last state before this time: RFC 3339, '5 minutes ago', or a pin",
    )
    parser.flag("txid", metavar="N", help="a transaction: 16 hex digits, or a number")
    parser.switch("if-db-not-exists", "do nothing if there is a database")
    parser.switch("if-replica-exists", "do nothing if there is no backup")
    parser.switch("force", "replace a database that is there")
    parser.flag(
        "keep-old", metavar="PATH", help="with -force: keep what is replaced here"
    )
    parser.switch("dry-run", "print what would be fetched")
    parser.flag(
        "integrity-check",
        choices=sorted(_CHECKS),
        default="quick",
        help="what SQLite checks in the end (default: quick)",
    )
    parser.switch("f", "go on following the replica, until a signal")
    parser.flag("follow-interval", default="1s", help="with -f: how often to look")
    all_flags(parser)
    parser.flag("parallelism", type=int, help="accepted for Litestream; not needed")
    parser.json_flag()
    parser.set_defaults(run=_run)


@dataclass(frozen=True, slots=True)
class _Job:
    target: Target
    output: str


def _jobs(arguments: argparse.Namespace) -> Sequence[_Job]:
    if arguments.what is None:
        if arguments.output is not None:
            raise UsageError("-o needs the replica or the database to restore from")
        plans = [
            plan for plan in plans_of(load_config(arguments)) if not plan.is_folder
        ]
        if not plans:
            raise UsageError("the configuration names no single database")
        targets = [find_target(arguments, plan.path) for plan in plans]
    else:
        targets = [find_target(arguments, arguments.what)]
    jobs = []
    for target in targets:
        output = arguments.output or target.database
        if output is None:
            raise UsageError("-o PATH is needed: where to restore to")
        jobs.append(_Job(target, output))
    return jobs


def _run(arguments: argparse.Namespace) -> int:
    if arguments.timestamp is not None and arguments.txid is not None:
        raise UsageError("give -timestamp or -txid, not both")
    if arguments.all:
        return _restore_all(arguments)
    txid = parse_txid(arguments.txid)
    if arguments.keep_old is not None and not arguments.force:
        raise UsageError("-keep-old goes with -force")
    jobs = _jobs(arguments)
    if arguments.f:
        if arguments.timestamp is not None or txid is not None or len(jobs) != 1:
            raise UsageError("-f follows one database, and always its newest state")
        return follow(
            jobs[0].target.replicas, jobs[0].output, arguments.follow_interval
        )
    if arguments.dry_run:
        return _preview(jobs, arguments, txid)
    results, failures = _restore_each(jobs, arguments, txid)
    if arguments.json and (results or not arguments.what):
        found = [_as_json(result, seconds) for result, seconds in results]
        print_json(found[0] if arguments.what else found)
    else:
        for result, seconds in results:
            print(_sentence(result, seconds))
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"also: {other}")
        raise failures[0]
    return 0


def _restore_each(
    jobs: Sequence[_Job], arguments: argparse.Namespace, txid: int | None
) -> tuple[list[tuple[RestoreResult, float]], list[Exception]]:
    """Restore each; one that fails keeps no other from it."""
    results, failures = [], list[Exception]()
    for job in jobs:
        try:
            results.append(_restore(job, arguments, txid))
        except (SQLiteReplicaError, OSError) as error:
            failures.append(error)
    return results, failures


def _restore(
    job: _Job, arguments: argparse.Namespace, txid: int | None
) -> tuple[RestoreResult, float]:
    bar = progress(os.path.basename(job.output))
    began = time.monotonic()
    try:
        result = restore(
            job.target.replicas,
            job.output,
            at=arguments.timestamp,
            txid=txid,
            keep_old=arguments.keep_old or False,
            callback=bar,
            **_options(arguments),
        )
    except TargetExistsError as error:
        raise _in_flags(error, job) from error
    finally:
        if bar is not None:
            bar.close()
    return result, time.monotonic() - began


def _in_flags(error: TargetExistsError, job: _Job) -> TargetExistsError:
    """The same error, with the flags of this command where they help."""
    if not os.path.isfile(error.path):
        return error
    hint = "exists: -if-db-not-exists keeps it, -force replaces it"
    if error.path != os.path.realpath(job.output):
        hint = "is in the way: move it, or pass -force"
    return TargetExistsError(error.path, f"{error.path} {hint}")


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    keeps = arguments.if_db_not_exists
    return {
        "if_exists": "skip" if keeps else "replace" if arguments.force else "error",
        "missing": "skip" if arguments.if_replica_exists else "error",
        "verify": _CHECKS[arguments.integrity_check],
    }


def _restore_all(arguments: argparse.Namespace) -> int:
    if arguments.f or arguments.dry_run or arguments.txid or arguments.keep_old:
        raise UsageError("-f, -dry-run, -txid and -keep-old are of one replica")
    if arguments.output is None:
        raise UsageError("-o is needed: where to restore to, such as 'out/{name}.db'")
    replicas, jobs = below(arguments)
    outcomes = restore_all(
        replicas,
        arguments.output,
        threads=jobs,
        at=arguments.timestamp,
        **_options(arguments),
    )
    return print_outcomes(outcomes, as_json=arguments.json)


def _sentence(result: RestoreResult, seconds: float) -> str:
    if result.reason == "exists":
        return f"{result.path}: there already, left as it is"
    if result.reason == "missing":
        return f"{result.path}: no backup, nothing restored"
    state = f"transaction {result.txid}" if result.txid else "the state"
    text = (
        f"{result.path}: {state} of {time_text(result.timestamp)} from {result.source}"
    )
    if result.reason == "unchanged":
        return f"{text}, which it was already"
    fetched = size_text(result.bytes_fetched)
    rate = size_text(round(result.bytes_fetched / max(seconds, 1e-9)))
    return f"{text}, {fetched} in {seconds:.1f} s ({rate}/s)"


def _as_json(result: RestoreResult, seconds: float) -> dict[str, object]:
    return {
        "path": str(result.path),
        "result": result.reason,
        "replica": result.source,
        "txid": result.txid,
        "timestamp": result.timestamp,
        "page_size": result.page_size,
        "pages": result.commit,
        "files": result.files,
        "bytes_fetched": result.bytes_fetched,
        "pages_reused": result.pages_reused,
        "duration_seconds": round(seconds, 3),
    }


def _preview(
    jobs: Sequence[_Job], arguments: argparse.Namespace, txid: int | None
) -> int:
    found = [
        (job, preview_restore(job.target.replicas, at=arguments.timestamp, txid=txid))
        for job in jobs
    ]
    if arguments.json:
        rows = [
            {
                "path": job.output,
                "replica": preview.source,
                "txid": preview.txid,
                "timestamp": preview.timestamp,
                "bytes": preview.bytes,
                "files": [
                    {"level": f.level, "name": f.name, "size": f.size}
                    for f in preview.files
                ],
            }
            for job, preview in found
        ]
        print_json(rows[0] if arguments.what else rows)
        return 0
    for job, preview in found:
        print(
            f"{job.output}: would restore transaction {preview.txid or '-'} of"
            f" {time_text(preview.timestamp)} from {preview.source},"
            f" {size_text(preview.bytes)} in {len(preview.files)} files"
        )
        print_table(
            ("level", "file", "size"),
            [(f.level, f.name, f.size) for f in preview.files],
        )
    return 0
