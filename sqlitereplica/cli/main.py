"""Arguments to function calls; errors to one line, a hint and an exit code."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from sqlitereplica.cli import exits
from sqlitereplica.cli.arguments import Parser, UsageError, normalized
from sqlitereplica.cli.commands import (
    controlling,
    demo,
    fleet,
    listing,
    local,
    proving,
    reading,
    replicating,
    restoring,
)
from sqlitereplica.cli.output import printable
from sqlitereplica.errors import (
    ConfigError,
    NotRestorableError,
    SQLiteReplicaError,
)

__all__ = ["main"]

_MODULES = (
    replicating,
    restoring,
    reading,
    listing,
    proving,
    fleet,
    local,
    controlling,
    demo,
)


_ALIASES = {
    "-version": "version",
    "--version": "version",
    "help": "--help",
    "-help": "--help",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser, switches = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return exits.USAGE
    given[0] = _ALIASES.get(given[0], given[0])
    try:
        arguments, rest = parser.parse_known_args(normalized(given, switches))
        if rest:
            arguments.parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return int(arguments.run(arguments))
    except UsageError as error:
        _complain(error)
        if error.usage:
            print(error.usage, file=sys.stderr)
        return exits.USAGE
    except ConfigError as error:
        _complain(error)
        return exits.USAGE
    except (SQLiteReplicaError, OSError) as error:
        return _failed(error)
    except ValueError as error:  # the library's word for an argument without sense
        _complain(error)
        return exits.USAGE
    except KeyboardInterrupt:
        return exits.INTERRUPTED


def _failed(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        # Who read us has ended, as ``head`` does; there is nobody to complain to.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        return exits.FAILED
    _complain(error)
    if isinstance(error, NotRestorableError):
        return exits.NOT_RESTORABLE
    return exits.FAILED


def _complain(error: Exception) -> None:
    print(f"sqlitereplica: {_line(error)}", file=sys.stderr)
    for note in getattr(error, "__notes__", ()):
        print(f"  {_line(note)}", file=sys.stderr)


def _line(text: object) -> str:
    return printable(" ".join(str(text).split("\n")))


def _parser() -> tuple[Parser, frozenset[str]]:
    """The parser, and the names of all flags without a value."""
    parser = Parser(
        prog="sqlitereplica",
        description="Continuous replication of SQLite databases, in Litestream's format.",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    for module in _MODULES:
        module.add(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser, frozenset(_switches(commands))


def _switches(commands: argparse._SubParsersAction[Parser]) -> set[str]:
    return {
        option.lstrip("-")
        for parser in commands.choices.values()
        for action in parser._actions
        if action.nargs == 0
        for option in action.option_strings
    }
