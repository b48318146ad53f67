"""Running SQL that a person wrote, with errors of our own."""

from __future__ import annotations

from typing import Any

import apsw

from sqlitereplica.errors import QueryError, SQLiteReplicaError

__all__ = ["run_query"]


def run_query(
    connection: apsw.Connection, sql: str
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one statement or several; return the names of the columns, and the rows.

    Raises:
        QueryError: SQLite refuses the SQL.
        StoreError, NotRestorableError, InvalidFileError: the replica failed meanwhile.
    """
    columns: list[str] = []

    def note(cursor: apsw.Cursor, row: Any) -> Any:
        columns[:] = [name for name, *_ in cursor.getdescription()]
        return row

    cursor = connection.cursor()
    cursor.setrowtrace(note)
    try:
        return columns, list(cursor.execute(sql))
    except apsw.Error as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, SQLiteReplicaError):
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise QueryError(str(error)) from error
