"""What SQLite says of a restored database.

The file is opened as immutable: SQLite then takes no lock, looks for no WAL or journal,
even if the header says that there may be one, makes no file and changes no byte. As the
content is untrusted, nothing in its schema may run. (CHECK constraints, which hold the
application's rules, SQLite leaves out where it cannot write.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlitereplica.errors import InvalidFileError

if TYPE_CHECKING:
    import apsw

__all__ = [
    "ForeignKeyViolation",
    "Inspection",
    "Verify",
    "check_database",
    "inspect_database",
]

Verify = Literal["quick", "full"]

_MOST_MESSAGES = 5
_MOST_VIOLATIONS = 20
_TICK = 100_000  # instructions of SQLite's virtual machine
_PRAGMAS = ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0")
_UNKNOWN_FUNCTION = re.compile(r"(?:unknown|no such) function: (\w+)")


def check_database(path: str, verify: Verify, page_size: int) -> None:
    """Run SQLite's own check on a database that nobody else uses.

    ``"quick"`` is ``PRAGMA quick_check``; ``"full"`` is ``PRAGMA integrity_check``, which
    also compares indexes with tables and so needs the functions and collations that
    they use: it fails where the application defines its own.

    Raises:
        InvalidFileError: ``kind`` is ``"integrity"`` if SQLite finds the database
            damaged, ``"page-size"`` if its pages are not those of the replica, and
            ``"unchecked"`` if it cannot be checked like that.
    """
    import apsw

    try:
        with _opened(path) as connection:
            found = connection.pragma("page_size")
            messages = _quick(connection) if verify == "quick" else _full(connection)
    except apsw.SQLError as error:
        raise InvalidFileError(
            f"the restored database cannot be checked: {error}. It needs functions or"
            " collations of the application: pass verify='quick' or verify=None",
            kind="unchecked",
        ) from error
    except apsw.Error as error:
        raise InvalidFileError(
            f"the restored file is no sound SQLite database: {error}. (Pass verify=None"
            " if it is encrypted.)",
            kind="integrity",
        ) from error
    if messages != ["ok"]:
        what = "; ".join(messages)
        raise InvalidFileError(
            f"the restored database is damaged: {what}", kind="integrity"
        )
    if found != page_size:
        raise InvalidFileError(
            f"the restored database has pages of {found} bytes, its replica of"
            f" {page_size}",
            kind="page-size",
        )


@dataclass(frozen=True, slots=True)
class ForeignKeyViolation:
    """A row whose parent is missing: a row of ``PRAGMA foreign_key_check``."""

    table: str
    rowid: int | None
    """None in a table without rowids."""
    parent: str
    constraint: int
    """The number of the foreign key in ``PRAGMA foreign_key_list``."""

    def __str__(self) -> str:
        row = "a row" if self.rowid is None else f"row {self.rowid}"
        return f"{row} of table {self.table!r} has no parent in {self.parent!r}"


class Inspection(NamedTuple):
    """What SQLite says of a database.

    ``check`` is what ran. ``messages`` has what it found, nothing for a sound database,
    ``violations`` the first foreign keys that are violated, and whether there are ``more``.
    ``unchecked`` says what could not run as it should.
    """

    check: Verify
    messages: tuple[str, ...] = ()
    violations: tuple[ForeignKeyViolation, ...] = ()
    more: bool = False
    unchecked: tuple[str, ...] = ()


def inspect_database(
    path: str,
    page_size: int,
    *,
    check: Verify,
    foreign_keys: bool,
    tick: Callable[[], None] = lambda: None,
) -> Inspection:
    """Run SQLite's checks on a database that nobody else uses; raises for nothing it finds.

    Where the full check needs functions of the application, the quick one runs instead.
    ``tick`` is called now and then; what it raises ends the inspection.
    """
    import apsw

    def handler() -> bool:
        tick()
        return False

    try:
        with _opened(path) as connection:
            connection.set_progress_handler(handler, _TICK)
            found = connection.pragma("page_size")
            result = _integrity(connection, check)
            if foreign_keys and not result.messages:
                result = _with_foreign_keys(connection, result)
    except apsw.Error as error:
        return Inspection(check, (f"no sound SQLite database: {error}",))
    if found != page_size:
        what = f"pages of {found} bytes, in the replica of {page_size}"
        result = result._replace(messages=(what, *result.messages))
    return result


@contextmanager
def _opened(path: str) -> Iterator[apsw.Connection]:
    """Open a database that may be anything, so that nothing in it runs."""
    import apsw

    uri = Path(path).as_uri() + "?mode=ro&immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(uri, flags=flags)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        yield connection
    finally:
        connection.close()


def _integrity(connection: apsw.Connection, check: Verify) -> Inspection:
    import apsw

    unchecked: tuple[str, ...] = ()
    if check == "full":
        try:
            return Inspection(check, _found(_full(connection)))
        except apsw.SQLError as error:
            unchecked = (f"the full check cannot run, the quick one did: {error}",)
    return Inspection("quick", _found(_quick(connection)), unchecked=unchecked)


def _found(messages: list[str]) -> tuple[str, ...]:
    return () if messages == ["ok"] else tuple(messages)


def _with_foreign_keys(connection: apsw.Connection, result: Inspection) -> Inspection:
    import apsw

    found: list[ForeignKeyViolation] = []
    try:
        for row in connection.execute("PRAGMA foreign_key_check"):
            if len(found) == _MOST_VIOLATIONS:
                return result._replace(violations=tuple(found), more=True)
            found.append(ForeignKeyViolation(*row))
    except apsw.SQLError as error:  # a key that names no unique columns
        why = f"foreign keys cannot be checked: {error}"
        result = result._replace(unchecked=(*result.unchecked, why))
    return result._replace(violations=tuple(found))


def _full(connection: apsw.Connection) -> list[str]:
    return _messages(connection, "integrity_check")


def _quick(connection: apsw.Connection) -> list[str]:
    """Check all but the contents of indexes.

    For that, what the application's collations and functions return does not matter,
    but SQLite wants them to exist when indexes or generated columns name them.
    """
    import apsw

    def define_collation(connection: apsw.Connection, name: str) -> None:
        connection.create_collation(name, lambda a, b: (a > b) - (a < b))

    def define_function(name: str) -> None:
        flags = apsw.SQLITE_INNOCUOUS
        connection.create_scalar_function(
            name, lambda *_: 0, -1, deterministic=True, flags=flags
        )

    connection.collation_needed(define_collation)
    defined: set[str] = set()
    while True:
        try:
            return _messages(connection, "quick_check")
        except apsw.SQLError as error:
            match = _UNKNOWN_FUNCTION.search(str(error))
            if match is None or match[1] in defined:
                raise
            defined.add(match[1])
            define_function(match[1])


def _messages(connection: apsw.Connection, check: str) -> list[str]:
    rows = connection.execute(f"PRAGMA {check}({_MOST_MESSAGES})")
    return [str(row[0]) for row in rows]
