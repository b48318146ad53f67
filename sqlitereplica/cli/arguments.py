"""Flags as Litestream takes them: one dash or two, ``-flag=value``, booleans with ``=true``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

__all__ = ["Command", "Parser", "UsageError", "normalized", "parse_txid"]

Command = Callable[[argparse.Namespace], int]

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class UsageError(Exception):
    """A command line that cannot be meant; ``usage`` is how it is written."""

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """A parser that raises, and adds flags under both spellings."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)
        self._is_mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Take flags before, between and behind the other arguments."""
        if self._subparsers is not None or self._is_mixing:
            return super().parse_known_args(args, namespace)
        self._is_mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_mixing = False

    def flag(self, name: str, **options: Any) -> None:
        """Add ``-name`` and ``--name``."""
        options.setdefault("dest", name.replace("-", "_"))
        self.add_argument(f"-{name}", f"--{name}", **options)

    def switch(self, name: str, help: str) -> None:
        """Add a flag without a value."""
        self.flag(name, action="store_true", help=help)

    def config_flags(self) -> None:
        """Add what every command takes that reads a configuration."""
        self.flag("config", metavar="FILE", help="the configuration file")
        self.switch("no-expand-env", "do not replace variables in it")
        self.switch("lenient", "warn of unknown keys instead of refusing them")

    def json_flag(self) -> None:
        """Add the choice of output."""
        self.switch("json", "print JSON")

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """Take no flag for the beginning of a word: ``-outptu`` is not ``-o utptu``."""
        del option_string
        return []

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, with what may have been meant."""
        raise UsageError(message + self._hint(message), self.format_usage().strip())

    def _hint(self, message: str) -> str:
        commands = [c for a in self._actions for c in _choices(a)]
        flags = list(self._option_string_actions)
        for word in re.findall(r"(?<=')[^' ]+(?=')|-[\w-]+", message):
            known = flags if word.startswith("-") else commands
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
            if near and word not in known:
                return f"; did you mean {near[0]}?"
        return ""


def _choices(action: argparse.Action) -> list[str]:
    return list(action.choices) if isinstance(action.choices, dict) else []


def normalized(argv: Sequence[str], switches: frozenset[str]) -> list[str]:
    """Rewrite ``-switch=true`` and ``-switch=false``, which Go knows and argparse does not.

    Nothing behind ``--`` is touched.
    """
    found: list[str] = []
    for index, text in enumerate(argv):
        if text == "--":
            return [*found, *argv[index:]]
        name, equals, value = text.partition("=")
        is_switch = equals and name.startswith("-") and name.lstrip("-") in switches
        if is_switch and value.lower() in _BOOLEANS:
            if _BOOLEANS[value.lower()]:
                found.append(name)
        else:
            found.append(text)
    return found


def parse_txid(text: str | None) -> int | None:
    """A transaction as Litestream writes it, in 16 hex digits, or as a number.

    Raises:
        UsageError: It is neither.
    """
    if text is None:
        return None
    try:
        return int(text, 16) if len(text) == 16 else int(text)
    except ValueError:
        raise UsageError(
            f"-txid {text!r} is no transaction: give 16 hex digits, or a decimal number"
        ) from None
