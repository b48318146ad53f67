"""Tables of two states of a database, as SQL sees them, and their rows compared.

A row is read as the values that are stored, each with its type: text as bytes, so that text
that is no text is no failure, and so that collations and affinities make nothing equal that
is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import apsw

from sqlitereplica.reading.changes import RowChange, SchemaChange

__all__ = ["Row", "Table", "find_tables", "match", "roots", "schema_changes"]

_ROWIDS = ("rowid", "_rowid_", "oid")
_HIDDEN = {1, 2}
"""Columns of virtual tables, and generated ones that are not stored."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row; ``stored`` has types and values, ``rowid`` is None where there is none."""

    rowid: int | None
    stored: dict[str, tuple[str, Any]]
    values: dict[str, Any]

    def content(self, columns: Iterable[str]) -> tuple[object, ...]:
        """What is stored in some columns."""
        return tuple(self.stored[name] for name in columns)


@dataclass(frozen=True, slots=True)
class Table:
    """A table in one of the schemas; ``rowid`` is a name for that, None without one."""

    schema: str
    name: str
    root: int
    columns: tuple[str, ...]
    key: tuple[str, ...]
    rowid: str | None
    encoding: str

    def all_rows(self, connection: apsw.Connection) -> Iterator[Row]:
        """Yield all rows."""
        yield from self._read(connection, self._select())

    def rows(self, connection: apsw.Connection, rowids: Iterable[int]) -> Iterator[Row]:
        """Yield the rows with these rowids."""
        text = f"{self._select()} WHERE {self.rowid} = ?"
        for rowid in rowids:
            yield from self._read(connection, text, rowid)

    def rows_but(self, connection: apsw.Connection, other: Table) -> Iterator[Row]:
        """Yield the rows that the same table does not have in another schema."""
        if other.columns != self.columns or other.rowid != self.rowid:
            yield from self.all_rows(connection)
            return
        text = f"{self._select()} EXCEPT {other._select()}"
        yield from self._read(connection, text)

    def _select(self) -> str:
        wanted = [self.rowid or "NULL"]
        for column in self.columns:
            name = _quoted(column)
            kind, text = f"typeof({name})", f"CAST({name} AS BLOB)"
            wanted += [kind, f"CASE {kind} WHEN 'text' THEN {text} ELSE {name} END"]
        where = f"{_quoted(self.schema)}.{_quoted(self.name)}"
        return f"SELECT {', '.join(wanted)} FROM {where}"

    def _read(
        self, connection: apsw.Connection, text: str, *values: int
    ) -> Iterator[Row]:
        for rowid, *stored in connection.execute(text, values):
            pairs = zip(stored[::2], stored[1::2], strict=True)
            named: dict[str, Any] = dict(zip(self.columns, pairs, strict=True))
            shown = {
                name: value.decode(*self._codec) if kind == "text" else value
                for name, (kind, value) in named.items()
            }
            yield Row(rowid, named, shown)

    @property
    def _codec(self) -> tuple[str, str]:
        """How text is decoded: what is no text survives in UTF-8."""
        return self.encoding, (
            "surrogateescape" if self.encoding == "UTF-8" else "replace"
        )


def find_tables(connection: apsw.Connection, schema: str) -> dict[str, Table]:
    """Return the tables of a schema by name, but those of SQLite itself."""
    encoding = str(connection.execute("PRAGMA encoding").get)
    found = {}
    listed = connection.execute(
        f"SELECT name, rootpage FROM {_quoted(schema)}.sqlite_schema"
        " WHERE type = 'table' AND rootpage > 0 AND name NOT GLOB 'sqlite_*'"
    ).fetchall()
    listing = connection.execute(f"PRAGMA {_quoted(schema)}.table_list")
    without = {str(row[1]) for row in listing if row[4]}
    for name, root in ((str(name), int(str(root))) for name, root in listed):
        columns, key = _columns(connection, schema, name)
        free = [n for n in _ROWIDS if n not in {c.lower() for c in columns}]
        rowid = free[0] if free and name not in without else None
        found[name] = Table(schema, name, root, columns, key, rowid, encoding)
    return found


def _columns(
    connection: apsw.Connection, schema: str, table: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns that are stored, and those of the primary key in its order."""
    columns, key = [], []
    text = f"PRAGMA {_quoted(schema)}.table_xinfo({_quoted(table)})"
    for _, name, _, _, _, place, hidden in connection.execute(text):
        if hidden not in _HIDDEN:
            columns.append(name)
            if place:
                key.append((place, name))
    return tuple(columns), tuple(name for _, name in sorted(key))


def roots(connection: apsw.Connection, schema: str) -> list[int]:
    """Return the root pages of all tables and indexes of a schema."""
    text = f"SELECT rootpage FROM {_quoted(schema)}.sqlite_schema WHERE rootpage > 0"
    return [root for (root,) in connection.execute(text)]


def schema_changes(connection: apsw.Connection) -> Iterator[SchemaChange]:
    """Yield what changed from the schema ``old`` to ``main``."""
    old, new = (_definitions(connection, schema) for schema in ("old", "main"))
    for kind, name in sorted(old | new):
        before, after = old.get((kind, name)), new.get((kind, name))
        if before != after:
            yield SchemaChange(kind, name, before, after)


def _definitions(
    connection: apsw.Connection, schema: str
) -> dict[tuple[str, str], str]:
    text = f"SELECT type, name, sql FROM {_quoted(schema)}.sqlite_schema WHERE sql > ''"
    return {(kind, name): sql for kind, name, sql in connection.execute(text)}


def match(
    old: Table | None, new: Table | None, before: Iterable[Row], after: Iterable[Row]
) -> Iterator[RowChange]:
    """Pair the rows of one table in two states and yield those that differ.

    Rows that have a primary key are known by it. Others are known by their rowid; but as a
    VACUUM numbers them anew, rows with the same values are the same whatever their rowid.
    Columns that only one of the states has make no difference.
    """
    table = new or old
    assert table is not None, "it is in one of the states"
    columns = table.columns
    if old is not None and new is not None:
        columns = tuple(name for name in old.columns if name in new.columns)
    gone, come = _cancel(before, after, lambda row: (row.rowid, *row.content(columns)))
    if not table.key:
        gone, come = _cancel(gone, come, lambda row: row.content(columns))
    known = {_key(table, row): row for row in come}
    for row in gone:
        key = _key(table, row)
        other = known.pop(key, None)
        if other is None:
            yield RowChange(table.name, "delete", dict(key), row.values, None)
        elif other.content(columns) != row.content(columns):
            yield RowChange(table.name, "update", dict(key), row.values, other.values)
    for key, row in known.items():
        yield RowChange(table.name, "insert", dict(key), None, row.values)


_What: TypeAlias = Callable[[Row], tuple[object, ...]]


def _cancel(
    old: Iterable[Row], new: Iterable[Row], what: _What
) -> tuple[list[Row], list[Row]]:
    """Leave out rows that both have."""
    gone, come = list(old), list(new)
    both = Counter(map(what, gone)) & Counter(map(what, come))
    return _without(gone, both.copy(), what), _without(come, both, what)


def _without(rows: list[Row], left_out: Counter[Any], what: _What) -> list[Row]:
    kept = []
    for row in rows:
        name = what(row)
        if left_out[name]:
            left_out[name] -= 1
        else:
            kept.append(row)
    return kept


def _key(table: Table, row: Row) -> tuple[tuple[str, Any], ...]:
    """Return what a row is known by."""
    if table.key and all(name in row.values for name in table.key):
        return tuple((name, row.values[name]) for name in table.key)
    if row.rowid is not None:
        return (("rowid", row.rowid),)
    return tuple(row.values.items())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
