"""Configuration files: Litestream's ``litestream.yml``, read as drop-in.

``read_config`` makes a ``Config`` of a file, ``build`` what to replicate where of that.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlitereplica.config.build import (
    DatabasePlan,
    DatedReplica,
    build,
    check_places,
    database_path,
    replica_of_url,
)
from sqlitereplica.config.document import Reader, parse_nodes
from sqlitereplica.config.schema import IGNORED, Config, DatabaseConfig
from sqlitereplica.errors import ConfigError

__all__ = [
    "DEFAULT_PATH",
    "IGNORED",
    "Config",
    "DatabaseConfig",
    "DatabasePlan",
    "DatedReplica",
    "build",
    "check_places",
    "config_path",
    "database_path",
    "parse_config",
    "read_config",
    "replica_of_url",
]

DEFAULT_PATH = "/etc/litestream.yml"

logger = logging.getLogger(__name__)


def config_path(given: str | None, env: Mapping[str, str]) -> str:
    """The file that is meant: the one given, ``LITESTREAM_CONFIG``, or Litestream's."""
    return given or env.get("LITESTREAM_CONFIG") or DEFAULT_PATH


def parse_config(
    text: str,
    *,
    name: str = "litestream.yml",
    env: Mapping[str, str] | None = None,
    lenient: bool = False,
    warn: Callable[[str], None] = logger.warning,
) -> Config:
    """Read the text of a file; without ``env`` variables are not expanded.

    With ``lenient`` a key that is not known is given to ``warn`` instead of raised.

    Raises:
        ConfigError: It cannot be meant; the line is named.
    """
    reader = Reader(name=name, env=env, pid=os.getpid(), warn=warn, lenient=lenient)
    return reader.read(Config, parse_nodes(text, name))


def read_config(
    path: str | os.PathLike[str],
    *,
    env: Mapping[str, str] | None = None,
    lenient: bool = False,
    warn: Callable[[str], None] = logger.warning,
) -> Config:
    """Read a file as ``parse_config`` does its text.

    Raises:
        ConfigError: It cannot be read, or not be meant.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"the configuration cannot be read: {reason}",
            file=os.fspath(path),
            kind="unreadable",
        ) from error
    return parse_config(text, name=os.fspath(path), env=env, lenient=lenient, warn=warn)
