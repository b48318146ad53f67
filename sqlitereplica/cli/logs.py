"""What the daemon logs and how: text, JSON, or coloured for people (litestream.md 7.1)."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from sqlitereplica.config.schema import LoggingConfig
from sqlitereplica.errors import ConfigError

__all__ = ["make_handler", "set_up_logging"]

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_COLOURS = {
    "DEBUG": "90",
    "INFO": "32",
    "WARNING": "33",
    "ERROR": "31",
    "CRITICAL": "31",
}
_NAMES = {"WARNING": "WARN", "CRITICAL": "ERROR"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def set_up_logging(config: LoggingConfig, level: str | None) -> None:
    """Log to standard output, or error; ``level`` wins over the configuration.

    Raises:
        ConfigError: a level or a type that is none.
    """
    handler, number = make_handler(config, level)
    logger = logging.getLogger("sqlitereplica")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(number)


def make_handler(
    config: LoggingConfig, level: str | None = None
) -> tuple[logging.Handler, int]:
    """What is logged to, and the level; raises as ``set_up_logging``."""
    name = (level or config.level or "info").lower()
    if name not in _LEVELS:
        raise ConfigError(f"the log level {name!r} is none of {', '.join(_LEVELS)}")
    kind = (config.type or "text").lower()
    stream = sys.stderr if config.stderr else sys.stdout
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(kind, stream, with_source=config.source))
    return handler, _LEVELS[name]


def _formatter(kind: str, stream: TextIO, *, with_source: bool) -> logging.Formatter:
    if kind == "json":
        return JSONFormatter(with_source)
    if kind in ("text", ""):
        return TextFormatter(with_source)
    if kind == "pretty":
        return PrettyFormatter(with_source, colours=stream.isatty())
    raise ConfigError(f"the log type {kind!r} is none of text, json, pretty")


class _Formatter(logging.Formatter):
    def __init__(self, with_source: bool) -> None:
        super().__init__()
        self._with_source = with_source

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What a record says, with what was given as ``extra``."""
        found: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": _NAMES.get(record.levelname, record.levelname),
            "msg": record.getMessage(),
        }
        if self._with_source:
            found["source"] = f"{record.pathname}:{record.lineno}"
        extra = vars(record).items()
        found |= {k: v for k, v in extra if k not in _STANDARD and v not in (None, "")}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return found


class JSONFormatter(_Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return json.dumps(self.fields(record), default=str)


class TextFormatter(_Formatter):
    """``key=value`` pairs, as Litestream's text."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return " ".join(f"{k}={_quoted(v)}" for k, v in self.fields(record).items())


class PrettyFormatter(_Formatter):
    """For people: the time, the level in colour, the message."""

    def __init__(self, with_source: bool, *, colours: bool) -> None:
        super().__init__(with_source)
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback if there is one."""
        fields = self.fields(record)
        level = str(fields["level"]).ljust(5)
        if self._colours:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        clock = str(fields["time"])[11:19]
        text = f"{clock} {level} {fields['msg']}"
        if "source" in fields:
            text += f" ({fields['source']})"
        return text + (f"\n{fields['exception']}" if "exception" in fields else "")


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not any(c in ' "=' for c in text)
    return text if plain else json.dumps(text)
