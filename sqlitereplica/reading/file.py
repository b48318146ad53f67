"""A state of a replica as SQLite reads it: a file that is never written.

The first page is shown with three changes:

* The format versions say rollback journal. In WAL mode SQLite would look for a WAL beside
  the file, and there is none.
* The change counter tells how often the state has moved. SQLite reads it when it takes a
  lock and drops its page cache when it is another one than before. What the database has
  there is of no use: in WAL mode it does not count transactions.
* The schema cookie is raised by 65536 with each move, for it decides whether prepared
  statements and the schema in memory are still good. The database's own cookie rises with
  each change of the schema, but if a database was restored to an earlier state and went
  on from there, the same cookie stands for two schemas.

A transaction begins with the lock SHARED and ends when SQLite lets it go.
"""

from __future__ import annotations

import apsw

from sqlitereplica.reading.functions import answer
from sqlitereplica.reading.view import View

__all__ = ["ReplicaFile"]

_HEADER_SIZE = 100
_COOKIE_STEP = 1 << 16


class ReplicaFile:
    """What SQLite calls; see https://sqlite.org/c3ref/io_methods.html."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._first: tuple[int, bytes] | None = None

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        """Bytes of the state; less behind its end."""
        size = self._view.map.page_size
        end = min(offset + amount, self.xFileSize())
        found = b""
        while offset < end:
            number, start = divmod(offset, size)
            page = self._page(number + 1)
            part = (
                page[start : start + end - offset]
                if start or end - offset < size
                else page
            )
            found = found + part if found else part
            offset += len(part)
        return found

    def _page(self, pgno: int) -> bytes:
        page = self._view.read(pgno)
        return self._patched(page) if pgno == 1 else page

    def _patched(self, page: bytes) -> bytes:
        """The first page, as it is shown."""
        if self._first is None or self._first[0] != self._view.moves:
            self._first = self._view.moves, patch(page, self._view.moves)
        return self._first[1]

    def xFileSize(self) -> int:  # noqa: N802
        """Bytes of the database."""
        return self._view.map.commit * self._view.map.page_size

    def xLock(self, level: int) -> None:  # noqa: N802
        """Begin a transaction."""
        if level == apsw.SQLITE_LOCK_SHARED:
            self._view.begin()

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """End it."""
        if level == apsw.SQLITE_LOCK_NONE:
            self._view.end()

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        """Answer pragmas of ours; others are SQLite's."""
        if op != apsw.SQLITE_FCNTL_PRAGMA:
            return False
        pragma = apsw.VFSFcntlPragma(pointer)
        result = answer(self._view, pragma.name, pragma.value)
        if result is None:
            return False
        pragma.result = result
        return True

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        """Nobody writes."""
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        """The default."""
        return 0

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        """Nothing special."""
        return 0

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Refuse; SQLite does so before."""
        raise apsw.ReadOnlyError("a replica is read-only")

    def xTruncate(self, size: int) -> None:  # noqa: N802
        """Refuse."""
        raise apsw.ReadOnlyError("a replica is read-only")

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Do nothing: nothing was written."""

    def xClose(self) -> None:  # noqa: N802
        """Let go of everything."""
        self._view.close()


def patch(page: bytes, moves: int) -> bytes:
    """Return the first page of a state as it is shown after so many moves."""
    counter = (moves + 1 & 0xFFFFFFFF).to_bytes(4, "big")
    cookie = int.from_bytes(page[40:44], "big") + moves * _COOKIE_STEP & 0xFFFFFFFF
    shown = bytearray(page)
    shown[18:20] = b"\1\1"
    # The size in the header only counts if these two are the same.
    is_size_valid = page[24:28] == page[92:96]
    shown[24:28] = counter
    shown[92:96] = counter if is_size_valid else bytes(4)
    shown[40:44] = cookie.to_bytes(4, "big")
    return bytes(shown)
