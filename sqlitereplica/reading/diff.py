"""``diff``: which rows changed between two states of a replica."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any

import apsw

from sqlitereplica.reading.changes import Diff, RowChange
from sqlitereplica.reading.comparing import Comparison, Side
from sqlitereplica.reading.connect import open_connection, view_uri
from sqlitereplica.reading.tables import (
    Table,
    find_tables,
    match,
    roots,
    schema_changes,
)
from sqlitereplica.reading.view import View
from sqlitereplica.restore.at import At
from sqlitereplica.restore.choose import Source, open_store
from sqlitereplica.restore.restore import wanted_by

__all__ = ["diff"]

_OLD, _NEW = "old", "main"
"""The schemas under which SQL sees the two states."""
_CACHE_SIZE = 32 << 20


def diff(
    replica: Source,
    from_: At | None = None,
    to: At | None = None,
    *,
    from_txid: int | None = None,
    to_txid: int | None = None,
    tables: Collection[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Diff:
    """Compare two states: what changed in the schema, and which rows.

    Pages that are the same in both are not read, as far as that is known without them.

    Args:
        replica: A URL, a folder, a ``Replica`` or an ``LTXStore``.
        from_: The last state before this time, or of a pin, as for ``restore``.
        to: The same of the other state; the newest by default.
        from_txid: The state after this transaction, instead of ``from_``.
        to_txid: The same instead of ``to``.
        tables: Look at the rows of these tables only.
        storage_options: For the filesystem of a URL.

    Raises:
        NotRestorableError: There is no such state.
        StoreError: The replica cannot be read.
        InvalidFileError: It is damaged, or it is no database.
        ValueError: An argument makes no sense.
    """
    if from_ is None and from_txid is None:
        raise ValueError("from which state? give from_ or from_txid")
    store = open_store(replica, storage_options)
    wanted = wanted_by(from_, from_txid), wanted_by(to, to_txid)
    with ExitStack() as stack:
        views = []
        for each in wanted:
            view = View(store, each, refresh=None, cache_size=_CACHE_SIZE)
            views.append(stack.enter_context(closing(view)))
        old, new = views
        old.share(new)
        connection = stack.enter_context(closing(open_connection(new)))
        connection.execute("ATTACH ? AS old", (view_uri(old),))
        schema = tuple(schema_changes(connection))
        rows = tuple(_changes(connection, old, new, tables))
        return Diff(
            replica=store.name,
            from_txid=old.map.txid,
            from_time=old.time,
            to_txid=new.map.txid,
            to_time=new.time,
            schema=schema,
            rows=rows,
        )


def _changes(
    connection: apsw.Connection, old: View, new: View, names: Collection[str] | None
) -> Iterator[RowChange]:
    """Yield the rows that differ, table by table."""
    before, after = (find_tables(connection, schema) for schema in (_OLD, _NEW))
    if names is not None:
        unknown = set(names) - set(before) - set(after)
        if unknown:
            raise ValueError(f"there is no table {', '.join(sorted(unknown))}")
    comparison = _compare(connection, old, new)
    for name in sorted(set(before) | set(after)):
        if names is not None and name not in names:
            continue
        mine, theirs = before.get(name), after.get(name)
        yield from _rows(connection, comparison, mine, theirs)


def _compare(connection: apsw.Connection, old: View, new: View) -> Comparison | None:
    """Return a comparison of the pages, None if all rows have to be compared."""
    if old.map.page_size != new.map.page_size:
        return None
    sides = [
        Side(view, roots(connection, schema))
        for view, schema in ((old, _OLD), (new, _NEW))
    ]
    comparison = Comparison(*sides)
    return comparison if comparison.is_complete() else None


def _rows(
    connection: apsw.Connection,
    comparison: Comparison | None,
    old: Table | None,
    new: Table | None,
) -> Iterator[RowChange]:
    """Yield the rows of one table that differ."""
    if old is None or new is None:
        before = [] if old is None else list(old.all_rows(connection))
        after = [] if new is None else list(new.all_rows(connection))
    elif comparison is None or old.rowid is None or new.rowid is None:
        before = list(old.rows_but(connection, new))
        after = list(new.rows_but(connection, old))
    else:
        mine, theirs = comparison.leaves(old.root, new.root)
        before = list(old.rows(connection, comparison.old.rowids(mine)))
        after = list(new.rows(connection, comparison.new.rowids(theirs)))
    yield from match(old, new, before, after)
