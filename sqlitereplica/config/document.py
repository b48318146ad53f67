"""From the text of a YAML file to values of the types in ``schema``.

The nodes of the document are walked together with the types, so that every error can name
its line, and so that what a value means depends on the key, not on how YAML would guess it:
``access-key-id: 0123`` is text, ``enabled: ${FLAG}`` a boolean.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, TypeAlias, TypeVar

from sqlitereplica.config.expand import ExpandError, expand
from sqlitereplica.config.schema import NEVER_EMPTY, Secret, Size
from sqlitereplica.durations import parse_duration
from sqlitereplica.errors import ConfigError
from sqlitereplica.sizes import parse_size

__all__ = ["Reader", "parse_nodes"]

T = TypeVar("T")

Node: TypeAlias = Any
"""A node of PyYAML, which is imported late; ``id`` tells which of three kinds it is."""

_TRUE = frozenset({"true", "yes", "on", "y", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "0"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_MOST_BYTES = 8 << 20
_MOST_DEPTH = 20
_MOST_MERGES = 4


def parse_nodes(text: str, name: str) -> Node | None:
    """The root node of a YAML document, None if it is empty.

    Raises:
        ConfigError: It is not YAML; PyYAML is missing.
    """
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"{len(text)} characters are too many", file=name)
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(
            "reading a configuration needs PyYAML: pip install 'sqlitereplica[cli]'",
            file=name,
            kind="missing-package",
        ) from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else None
        raise ConfigError(f"not YAML: {error.problem}", file=name, line=line) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"not YAML: {reason}", file=name) from error


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """Makes values of nodes.

    ``env`` are the variables, None for no expansion; ``warn`` is given what is only
    suspicious; with ``lenient`` an unknown key is that, too.
    """

    name: str
    env: Mapping[str, str] | None
    pid: int
    warn: Callable[[str], None]
    lenient: bool = False

    def read(self, kind: type[T], root: Node | None) -> T:
        """The value of a whole document; raises ConfigError."""
        if root is None or self._is_null(root):
            return kind()
        return typing.cast("T", self._value(root, kind, "", 0))

    def _value(self, node: Node, kind: Any, where: str, depth: int) -> Any:
        """One value of a type; ``where`` is the key, for messages."""
        if depth > _MOST_DEPTH:
            raise self._error(node, "nested too deeply")
        options = _alternatives(kind)
        if self._is_null(node):
            return None
        if dataclasses.is_dataclass(options[-1]) and node.id == "mapping":
            return self._struct(node, options[-1], depth)
        kind = options[0]
        if dataclasses.is_dataclass(kind):
            raise self._error(node, f"{where or 'the file'} is a mapping of keys")
        origin = typing.get_origin(kind)
        if origin is list:
            return self._list(node, typing.get_args(kind)[0], where, depth)
        if origin is dict:
            return self._texts(node, where)
        if node.id != "scalar":
            raise self._error(node, f"{where} is a single value")
        return self._scalar(node, kind, where)

    def _is_null(self, node: Node) -> bool:
        return node.id == "scalar" and node.style is None and node.value in _NULL

    def _struct(self, node: Node, kind: Any, depth: int) -> Any:
        known = _fields(kind)
        given: dict[str, Any] = {}
        for key, value in self._pairs(node):
            if key.value not in known:
                self._unknown(key, known)
                continue
            field, field_kind = known[key.value]
            if field in given:
                raise self._error(key, f"the key {key.value!r} is there twice")
            found = self._value(value, field_kind, key.value, depth + 1)
            if found is not None:
                given[field] = found
            elif field in NEVER_EMPTY:
                raise self._error(key, f"{key.value} must not be empty")
        try:
            return kind(**given)
        except TypeError:
            missing = ", ".join(
                name for name, (field, _) in known.items() if field not in given
            )
            raise self._error(node, f"missing here: {missing}") from None

    def _pairs(self, node: Node, depth: int = 0) -> Iterator[tuple[Node, Node]]:
        """Keys and values, with what ``<<`` merges in behind those of its own."""
        if depth > _MOST_MERGES:
            raise self._error(node, "merged too deeply")
        seen: set[str] = set()
        merged: list[Node] = []
        for key, value in node.value:
            if key.id != "scalar":
                raise self._error(key, "a key is a single word")
            if key.value == "<<" and key.style is None:
                merged += value.value if value.id == "sequence" else [value]
                continue
            seen.add(key.value)
            yield key, value
        for other in merged:
            if other.id != "mapping":
                raise self._error(other, "'<<' merges mappings")
            for key, value in self._pairs(other, depth + 1):
                if key.value not in seen:
                    seen.add(key.value)
                    yield key, value

    def _list(self, node: Node, kind: Any, where: str, depth: int) -> list[Any]:
        if node.id != "sequence":
            raise self._error(node, f"{where} is a list: begin each item with '-'")
        items = node.value
        found = [self._value(item, kind, where, depth + 1) for item in items]
        if None in found:
            raise self._error(items[found.index(None)], f"an item of {where} is empty")
        return found

    def _texts(self, node: Node, where: str) -> dict[str, str]:
        if node.id != "mapping":
            raise self._error(node, f"{where} is a mapping of keys")
        return {
            key.value: self._value(value, str, f"{where}.{key.value}", 1)
            for key, value in self._pairs(node)
        }

    def _scalar(self, node: Node, kind: Any, where: str) -> Any:
        text = node.value
        if self.env is not None:
            try:
                text = expand(text, self.env, pid=self.pid)
            except ExpandError as error:
                raise self._error(node, f"{where}: {error}") from error
        if not text and text != node.value and kind not in (str, Secret):
            return None  # a variable that is not set: as if the key were not there
        shown = "its value" if kind is Secret or text != node.value else repr(text)
        try:
            return _parse(text, kind, where)
        except ValueError as error:
            reason = str(error).replace(repr(text), shown)
            raise self._error(node, reason) from None

    def _unknown(self, key: Node, known: Mapping[str, Any]) -> None:
        near = difflib.get_close_matches(key.value, known, n=1, cutoff=0.6)
        hint = f": did you mean {near[0]!r}?" if near else ""
        error = self._error(key, f"unknown key {key.value!r}{hint}", kind="unknown-key")
        if not self.lenient:
            raise error
        self.warn(str(error))

    def _error(self, node: Node, what: str, kind: str = "value") -> ConfigError:
        line = node.start_mark.line + 1
        return ConfigError(what, file=self.name, line=line, kind=kind)


def _parse(text: str, kind: Any, where: str) -> Any:
    """A value from its text; the message of a ValueError shows the text by repr."""
    if kind in (str, Secret):
        return text
    if kind is bool:
        lowered = text.strip().lower()
        if lowered in _TRUE or lowered in _FALSE:
            return lowered in _TRUE
        raise ValueError(f"{where}={text!r} is not true or false")
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{where}={text!r} is not a whole number") from None
    if kind is Size:
        return parse_size(text, where)
    assert kind is timedelta, kind
    return timedelta(0) if text.strip() == "0" else parse_duration(text, where)


@cache
def _fields(kind: Any) -> Mapping[str, tuple[str, Any]]:
    """The keys of a type: its fields and their types."""
    hints = typing.get_type_hints(kind)
    return {
        field.name.replace("_", "-"): (field.name, hints[field.name])
        for field in dataclasses.fields(kind)
    }


def _alternatives(kind: Any) -> list[Any]:
    """The types that a union names, without None."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return [part for part in typing.get_args(kind) if part is not types.NoneType]
    return [kind]
