"""What changed between two states of a database, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal, overload

from sqlitereplica.markup import card, moment_text, table, text

__all__ = ["Diff", "RowChange", "SchemaChange"]

Kind = Literal["insert", "update", "delete"]
_SIGNS = {"insert": "+", "update": "~", "delete": "-"}
_LONGEST = 60
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that is new, another one, or gone.

    Attributes:
        table: The name of its table.
        kind: ``"insert"``, ``"update"`` or ``"delete"``.
        key: What it is known by: its primary key, or its ``rowid``.
        old: The row as it was, by column; None if it is new.
        new: The row as it is, by column; None if it is gone.
    """

    table: str
    kind: Kind
    key: Mapping[str, Any]
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose values changed; of a row that is new or gone all of them."""
        old, new = self.old or {}, self.new or {}
        names = dict.fromkeys((*old, *new))
        return tuple(
            name
            for name in names
            if not self.old or not self.new or not same(old.get(name), new.get(name))
        )

    def __str__(self) -> str:
        sign, key, values = _SIGNS[self.kind], self._key_text(), self._values_text()
        return f"{sign} {self.table}({key}) {values}".rstrip()

    def _key_text(self) -> str:
        return ", ".join(f"{name}={_text(value)}" for name, value in self.key.items())

    def _values_text(self) -> str:
        return ", ".join(self._change(n) for n in self.columns if n not in self.key)

    def _change(self, name: str) -> str:
        old, new = (self.old or {}).get(name), (self.new or {}).get(name)
        if self.kind == "update":
            return f"{name}: {_text(old)} -> {_text(new)}"
        return f"{name}: {_text(new if self.new is not None else old)}"


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A table, index, view or trigger that is new, another one, or gone.

    Attributes:
        type: ``"table"``, ``"index"``, ``"view"`` or ``"trigger"``.
        name: Its name.
        old: The statement that made it before; None if it is new.
        new: The statement that makes it now; None if it is gone.
    """

    type: str
    name: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.new}"
        if self.new is None:
            return f"- {self.old}"
        return f"~ {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Diff(Sequence[RowChange]):
    """What changed between two states: a sequence of rows, table by table.

    Attributes:
        replica: The name of the replica.
        from_txid: The transaction of the first state.
        from_time: Its time; aware, UTC.
        to_txid: The transaction of the second state.
        to_time: Its time.
        schema: What changed in the schema.
        rows: The rows that changed.
    """

    replica: str
    from_txid: int
    from_time: datetime
    to_txid: int
    to_time: datetime
    schema: tuple[SchemaChange, ...]
    rows: tuple[RowChange, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> RowChange: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RowChange, ...]: ...

    def __getitem__(self, index: int | slice) -> RowChange | tuple[RowChange, ...]:
        return self.rows[index]

    def __bool__(self) -> bool:
        """Whether anything changed, the schema included."""
        return bool(self.rows or self.schema)

    @property
    def tables(self) -> dict[str, dict[Kind, int]]:
        """How many rows were inserted, updated and deleted, by table."""
        found: dict[str, Counter[Kind]] = {}
        for row in self.rows:
            found.setdefault(row.table, Counter())[row.kind] += 1
        return {table: dict(counts) for table, counts in found.items()}

    def __str__(self) -> str:
        lines = [repr(self)]
        lines += [f"  {change}" for change in self.schema]
        lines += [f"  {row}" for row in self.rows[:_MOST_SHOWN]]
        if len(self.rows) > _MOST_SHOWN:
            lines.append(f"  and {len(self.rows) - _MOST_SHOWN} more rows")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"Diff of {self.replica}, transactions {self.from_txid} to {self.to_txid}:"
            f" {len(self.rows)} rows, {len(self.schema)} changes of the schema"
        )

    def _repr_html_(self) -> str:
        """For notebooks: what changed, and how many rows in each table."""
        rows = [
            (row.table, row.kind, row._key_text(), row._values_text())
            for row in self.rows[:_MOST_SHOWN]
        ]
        counts = [
            (name, ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()))
            for name, kinds in islice(self.tables.items(), _MOST_SHOWN)
        ]
        schema = [*map(str, self.schema[:_MOST_SHOWN])]
        return card(
            f"{len(self.rows):,} rows changed",
            f"in {self.replica}",
            [
                ("from", f"{self.from_txid}, {moment_text(self.from_time)}"),
                ("to", f"{self.to_txid}, {moment_text(self.to_time)}"),
                *counts,
            ],
            lines=[*schema, *_more(len(self.schema), "changes of the schema")],
            below=(table(rows, ("table", "", "key", "values")) if rows else "")
            + "".join(map(text, _more(len(self.rows), "rows"))),
        )


def same(old: Any, new: Any) -> bool:
    """Whether two values are the same in SQLite: 1 is not 1.0."""
    return type(old) is type(new) and old == new


def _more(count: int, what: str) -> list[str]:
    """What to say of those that are not shown."""
    return [f"and {count - _MOST_SHOWN:,} more {what}"] if count > _MOST_SHOWN else []


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
