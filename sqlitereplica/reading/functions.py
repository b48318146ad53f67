"""What SQL can ask about the state that it reads: pragmas, and functions of the same names.

| Name | Result |
|---|---|
| ``replica_txid`` | the transaction; ``litestream_txid`` gives it as 16 hexadecimal digits |
| ``replica_time`` | its time in UTC, ISO 8601 with milliseconds |
| ``replica_lag`` | seconds since the replica was last looked at |
| ``replica_hydration_status`` | ``idle``, ``restoring``, ``complete`` or ``failed`` |
| ``replica_hydration_progress`` | 0 to 100 |

``PRAGMA replica_time = X`` goes to another time, ``'latest'`` to the newest state. All of
them are also there under Litestream's names (litestream.md 6), so that what was written for
its VFS works here. A pragma takes the schema before its name, a function as an argument:
``replica_txid('yesterday')``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import apsw

from sqlitereplica.ltx import format_txid
from sqlitereplica.reading.view import View
from sqlitereplica.restore.assemble import Wanted

__all__ = ["add_functions", "answer", "time_text"]

_PREFIXES = ("replica", "litestream")
_LATEST = "latest"


def answer(view: View, pragma: str, value: str | None) -> str | None:
    """Return the answer to a pragma; None if it is none of ours.

    Raises:
        ValueError: It cannot be set, or not to that.
        NotRestorableError: There is no state of that time.
        StoreError: The replica cannot be read.
    """
    prefix, _, name = pragma.lower().partition("_")
    if prefix not in _PREFIXES:
        return None
    if name == "time" and value is not None:
        _travel(view, value)
    elif value is not None:
        raise ValueError(f"PRAGMA {pragma} cannot be set")
    view.look()
    if name == "time":
        return time_text(view.time)
    if name == "lag":
        return str(int(view.lag)) if prefix == "litestream" else f"{view.lag:.3f}"
    if name == "txid":
        txid = view.map.txid
        return format_txid(txid) if prefix == "litestream" else str(txid)
    return _hydration(view, name)


def _hydration(view: View, name: str) -> str | None:
    hydration = view.hydration
    if name == "hydration_status":
        return "idle" if hydration is None else hydration.state
    if name == "hydration_progress":
        return "0" if hydration is None else str(hydration.percent)
    if name == "hydration_file":
        return "" if hydration is None else str(hydration.path)
    return None


def _travel(view: View, value: str) -> None:
    is_latest = value.strip().lower() == _LATEST
    view.travel(Wanted() if is_latest else Wanted.at(value, datetime.now(UTC)))


def time_text(time: datetime) -> str:
    """Return a time as SQLite's own functions read it."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def add_functions(connection: apsw.Connection) -> None:
    """Give a connection the functions; they ask the pragmas of a schema."""

    def ask(name: str, schema: str = "main", value: str | None = None) -> str:
        quoted = schema.replace('"', '""')
        text = f'PRAGMA "{quoted}".{name}'
        if value is not None:
            text += f"={apsw.format_sql_value(value)}"
        found = connection.execute(text).get
        if found is None:
            raise ValueError(f"{schema!r} is no replica")
        return str(found)

    def add(name: str, convert: Callable[[str], Any]) -> None:
        def function(*arguments: Any) -> Any:
            return convert(ask(name, *arguments[:1]))

        connection.create_scalar_function(name, function)

    for name, convert in (("txid", int), ("time", str), ("lag", float)):
        add(f"replica_{name}", convert)
    for name, convert in (("txid", str), ("time", str), ("lag", int)):
        add(f"litestream_{name}", convert)
    for prefix in _PREFIXES:
        add(f"{prefix}_hydration_status", str)
        add(f"{prefix}_hydration_progress", int)

    def set_time(*arguments: Any) -> Any:
        value, schema = (*arguments, "main")[:2]
        return ask("litestream_time", schema, str(value))

    connection.create_scalar_function("litestream_set_time", set_time)
