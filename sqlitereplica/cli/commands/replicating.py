"""``replicate``: the daemon, or one pass of it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from sqlitereplica.cli.arguments import Parser, UsageError
from sqlitereplica.cli.daemon import Daemon
from sqlitereplica.cli.logs import set_up_logging
from sqlitereplica.cli.target import load_config, plans_of
from sqlitereplica.config import Config, DatabaseConfig
from sqlitereplica.config.schema import ReplicaConfig

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the command."""
    parser: Parser = commands.add_parser(
        "replicate",
        help="replicate databases until stopped",
        description="Replicate the databases of the configuration, or DB to the URLs. Ends"
        " at SIGINT or SIGTERM, when all is durable; a second signal does not wait for"
        " that.",
    )
    parser.add_argument("db", nargs="?", metavar="DB", help="a database")
    parser.add_argument(
        "urls", nargs="*", metavar="URL", help="where to replicate it to"
    )
    parser.config_flags()
    parser.flag("exec", metavar="CMD", help="run this; end when it ends, with its code")
    parser.switch("once", "replicate what there is, and end")
    parser.switch("force-snapshot", "with -once: store a full snapshot")
    parser.switch("enforce-retention", "with -once: delete what need not stay")
    parser.switch("restore-if-db-not-exists", "restore first what is not there")
    parser.flag("log-level", metavar="LEVEL", help="trace, debug, info, warn or error")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    level = arguments.log_level or os.environ.get("LOG_LEVEL")
    set_up_logging(config.logging, level)
    once = arguments.once
    if not once and (arguments.force_snapshot or arguments.enforce_retention):
        raise UsageError("-force-snapshot and -enforce-retention go with -once")
    command = arguments.exec or config.exec
    if once and command:
        raise UsageError("-once and -exec exclude each other")
    plans = plans_of(config)
    daemon = Daemon(config, plans, restore_all=arguments.restore_if_db_not_exists)
    if once:
        return daemon.run_once(
            snapshot=arguments.force_snapshot, retention=arguments.enforce_retention
        )
    return daemon.run(command)


def _config(arguments: argparse.Namespace) -> Config:
    if arguments.db is None:
        return load_config(arguments)
    if arguments.config is not None:
        raise UsageError("give a database and its replicas, or -config, not both")
    if not arguments.urls:
        raise UsageError(f"where is {arguments.db} to be replicated to? give a URL")
    replicas = [ReplicaConfig(url=url) for url in arguments.urls]
    return Config(dbs=[DatabaseConfig(path=arguments.db, replicas=replicas)])
