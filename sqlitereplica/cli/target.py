"""What a command is about: a database of the configuration, or a replica given by itself."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlitereplica.cli.arguments import UsageError
from sqlitereplica.config import (
    DEFAULT_PATH,
    Config,
    DatabasePlan,
    build,
    config_path,
    database_path,
    read_config,
    replica_of_url,
)
from sqlitereplica.errors import ConfigError
from sqlitereplica.store import Replica

__all__ = ["Target", "find_target", "load_config", "plan_of", "plans_of", "warn"]


@dataclass(frozen=True, slots=True)
class Target:
    """``database`` is None for a replica given by its URL or folder."""

    database: str | None
    replicas: Sequence[Replica]
    plan: DatabasePlan | None = None


def warn(text: str) -> None:
    """Tell what is only suspicious."""
    print(f"sqlitereplica: warning: {text}", file=sys.stderr)


def load_config(arguments: argparse.Namespace) -> Config:
    """The configuration that a command line means.

    Raises:
        ConfigError: There is none, or it is wrong.
    """
    path = config_path(arguments.config, os.environ)
    if path == DEFAULT_PATH and not arguments.config and not os.path.exists(path):
        raise ConfigError(
            f"there is no configuration at {path}: name one with -config FILE or the"
            " variable LITESTREAM_CONFIG, or give a database or a replica",
            kind="unreadable",
        )
    return read_config(
        path,
        env=None if arguments.no_expand_env else os.environ,
        lenient=arguments.lenient,
        warn=warn,
    )


def plans_of(config: Config) -> list[DatabasePlan]:
    """The databases of a configuration; raises ConfigError."""
    return build(config, os.environ)


def find_target(arguments: argparse.Namespace, text: str) -> Target:
    """A database that the configuration has, or a replica.

    A URL is a replica. Other text is a database if a configuration was named or can be
    found, and has it; else it is the folder of a replica.

    Raises:
        ConfigError: The configuration is wrong.
        UsageError: It is neither.
    """
    if "://" in text and not text.startswith(("sqlite://", "sqlite3://")):
        return Target(None, [replica_of_url(text, os.environ)])
    path = config_path(arguments.config, os.environ)
    if arguments.config or os.path.exists(path):
        plans = plans_of(load_config(arguments))
        plan = plan_of(plans, database_path(text))
        if plan is not None:
            stores = plan.stores_at(_now())
            if not stores:
                raise UsageError(
                    f"{plan.path} has only mirrors: they are databases themselves"
                )
            return Target(plan.path, stores, plan)
        if arguments.config:
            known = ", ".join(plan.path for plan in plans) or "none"
            raise UsageError(f"{text} is not in {path}, whose databases are: {known}")
    if Path(text).is_file():
        raise UsageError(
            f"{text} is a database: give the URL or folder of its replica, or a"
            " configuration with -config"
        )
    return Target(None, [replica_of_url(text, os.environ)])


def plan_of(plans: Sequence[DatabasePlan], path: str) -> DatabasePlan | None:
    """The plan of a database: its own, or that of the folder in which it is."""
    real = os.path.realpath(path)
    for plan in plans:
        if os.path.realpath(plan.path) == real and not plan.is_folder:
            return plan
    found = (plan.below(path) for plan in plans if plan.is_folder)
    return next((plan for plan in found if plan is not None), None)


def _now() -> datetime:
    return datetime.now().astimezone()
