"""``verify`` and ``pin``: what a replica is worth, and what it must keep."""

from __future__ import annotations

import argparse
import os
from typing import Any, get_args

from sqlitereplica.cli.arguments import Parser, UsageError, parse_txid
from sqlitereplica.cli.commands.fleet import all_flags, below, print_outcomes
from sqlitereplica.cli.exits import PROBLEMS
from sqlitereplica.cli.output import print_json, print_table, progress, time_text
from sqlitereplica.cli.target import find_target
from sqlitereplica.fleet import verify_all
from sqlitereplica.restore import VerifyReport, verify
from sqlitereplica.restore.report import Level, Scope
from sqlitereplica.store import Pin, Replica

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the commands."""
    parser: Parser = commands.add_parser(
        "verify",
        help="find out whether a replica can be restored",
        description="Prove a replica; exits with 4 if anything is wrong with it.",
    )
    parser.add_argument("what", metavar="WHAT", help="database, URL or folder")
    parser.config_flags()
    parser.flag("level", choices=get_args(Level), default="checksums", help="how much")
    parser.flag("scope", choices=get_args(Scope), default="history", help="of what")
    parser.flag("timestamp", metavar="T", help="with -level restore: which state")
    parser.flag("txid", metavar="N", help="the same by its transaction")
    parser.flag("at-least", metavar="N", help="a transaction that must be there")
    all_flags(parser)
    parser.json_flag()
    parser.set_defaults(run=_verify)
    pin: Parser = commands.add_parser(
        "pin",
        help="keep a state from retention, under a name",
        description="Pin the newest state or -txid; without NAME list the pins.",
    )
    pin.add_argument("what", metavar="WHAT", help="database, URL or folder")
    pin.add_argument("name", nargs="?", metavar="NAME", help="the name of the pin")
    pin.config_flags()
    pin.flag("txid", metavar="N", help="the state after exactly this transaction")
    pin.switch("delete", "take the pin away")
    pin.json_flag()
    pin.set_defaults(run=_pin)


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.all:
        return _verify_all(arguments)
    reports = []
    for replica in find_target(arguments, arguments.what).replicas:
        bar = progress(os.path.basename(replica.display_name))
        try:
            reports.append(
                verify(
                    replica,
                    arguments.level,
                    scope=arguments.scope,
                    at=arguments.timestamp,
                    txid=parse_txid(arguments.txid),
                    at_least=parse_txid(arguments.at_least),
                    callback=bar,
                )
            )
        finally:
            if bar is not None:
                bar.close()
    if arguments.json:
        import msgspec

        raw = [msgspec.Raw(report.to_json()) for report in reports]
        print_json(raw[0] if len(raw) == 1 else raw)
    else:
        for report in reports:
            _print_report(report)
    return 0 if all(report.ok for report in reports) else PROBLEMS


def _verify_all(arguments: argparse.Namespace) -> int:
    if arguments.txid is not None or arguments.at_least is not None:
        raise UsageError("-txid and -at-least are of one replica, not of all")
    replicas, jobs = below(arguments)
    outcomes = verify_all(
        replicas,
        arguments.level,
        threads=jobs,
        scope=arguments.scope,
        at=arguments.timestamp,
    )
    return print_outcomes(outcomes, as_json=arguments.json)


def _print_report(report: VerifyReport) -> None:
    print(repr(report))


def _pin(arguments: argparse.Namespace) -> int:
    replicas = find_target(arguments, arguments.what).replicas
    if arguments.name is None:
        if arguments.delete or arguments.txid:
            raise UsageError("-delete and -txid need the NAME of a pin")
        return _print_pins([(r, pin) for r in replicas for pin in r.pins()], arguments)
    if arguments.delete:
        for replica in replicas:
            replica.unpin(arguments.name)
        return 0
    txid = parse_txid(arguments.txid)
    made = [(replica, replica.pin(arguments.name, txid=txid)) for replica in replicas]
    return _print_pins(made, arguments)


def _print_pins(pins: list[tuple[Replica, Pin]], arguments: argparse.Namespace) -> int:
    if arguments.json:
        print_json(
            [
                {
                    "replica": replica.display_name,
                    "name": pin.name,
                    "txid": pin.txid,
                    "timestamp": pin.time,
                    "created": pin.created,
                }
                for replica, pin in pins
            ]
        )
        return 0
    print_table(
        ("pin", "txid", "time", "replica"),
        [(p.name, p.txid, time_text(p.time), r.display_name) for r, p in pins],
    )
    return 0
