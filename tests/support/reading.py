"""Reading replicas in place, and what the database must look like there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from sqlitereplica.reading.view import View
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.store import LTXStore

__all__ = ["Clock", "masked", "open_view", "pages_of", "rows"]


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def masked(image: bytes) -> bytes:
    """An image without what a connection on a replica shows otherwise.

    That is the journal mode, the change counter with the number that goes with it, and
    the schema cookie.
    """
    blank = bytearray(image)
    for first, last in ((18, 20), (24, 28), (40, 44), (92, 96)):
        blank[first:last] = bytes(last - first)
    return bytes(blank)


def open_view(store: LTXStore, txid: int | None = None, **options: Any) -> View:
    """A view that looks each time, unless told otherwise."""
    return View(store, Wanted(txid=txid), **{"refresh": 0, **options})


def pages_of(view: View, pgnos: Iterable[int] | None = None) -> bytes:
    """The pages of the state that a view has."""
    numbers = range(1, view.map.commit + 1) if pgnos is None else pgnos
    return b"".join(view.read(pgno) for pgno in numbers)


def rows(connection: apsw.Connection, sql: str) -> list[Any]:
    """All rows of a query."""
    return list(connection.execute(sql))
