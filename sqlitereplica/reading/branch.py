"""``branch``: a writable copy of a state, there at once, fetched as it is used."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import apsw

from sqlitereplica.errors import TargetExistsError
from sqlitereplica.markup import card
from sqlitereplica.reading.branchfile import BRANCH_VFS, MAGIC, BranchFile, BranchVFS
from sqlitereplica.reading.branchmap import BranchMap, Origin, map_path
from sqlitereplica.reading.view import View
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.at import At
from sqlitereplica.restore.choose import Source, open_store
from sqlitereplica.restore.restore import wanted_by
from sqlitereplica.sqlite import descriptors
from sqlitereplica.store import LTXStore

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

__all__ = ["Branch", "branch"]

_CACHE_SIZE = 8 << 20


def branch(
    replica: Source,
    path: str | os.PathLike[str],
    at: At | None = None,
    *,
    txid: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Branch:
    """Make a writable local copy of a state, whose pages are fetched when they are needed.

    If there is a branch at ``path`` already, of that replica and, where one is asked for,
    of that state, it is opened again.

    Args:
        replica: A URL, a folder, a ``Replica`` or an ``LTXStore``.
        path: The local file. Its folder is made if need be.
        at: The last state before this time, or of a pin, instead of the newest.
        txid: The state after exactly this transaction instead.
        storage_options: For the filesystem of a URL.

    Raises:
        TargetExistsError: There is something else at the path.
        NotRestorableError: There is no backup, or not of the state asked for.
        StoreError: The replica cannot be read.
        InvalidFileError: The replica is damaged, or what is at the path.
        OSError: The path cannot be written.
    """
    store = open_store(replica, storage_options)
    wanted = wanted_by(at, txid)
    where = Path(path).absolute()
    if not map_path(where).exists():
        _refuse_database(where)
        with closing(View(store, wanted, refresh=None)) as view:
            _create(where, store, view)
        return Branch(store, where)
    found = Branch(store, where)
    if wanted != Wanted():
        with closing(View(store, wanted, refresh=None)) as view:
            if view.map.txid != found.txid:
                raise TargetExistsError(
                    str(path), f"{path} is a branch of transaction {found.txid}"
                )
    return found


class Branch:
    """A local copy of the state of a transaction, ``txid``, that may be changed.

    A context manager that closes the connections that it made. The local file, ``path``,
    stays, and is opened again by ``branch``.
    """

    def __init__(self, store: LTXStore, path: Path) -> None:
        """Use ``branch``."""
        self.path = path
        self._store = store
        with closing(BranchMap(map_path(path))) as pages:
            if not pages.is_of(store.name):
                raise TargetExistsError(str(path), f"{path} is of another replica")
            self.txid = pages.txid
        self._connections: list[apsw.Connection] = []

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Branch({str(self.path)!r}, txid={self.txid})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        here, total = self.pages
        local = "all: it is a plain database" if self.is_finished else None
        rows = [
            ("replica", self._store.name),
            ("transaction", self.txid),
            ("pages here", local or f"{here:,} of {total:,}"),
        ]
        return card("Branch", self.path, rows)

    def connect(self) -> apsw.Connection:
        """Open a connection to it; as many as you like, in any thread."""
        connection = self._open(_vfs().expect(self._open_view, []))
        connection.set_busy_timeout(5000)
        self._connections.append(connection)
        return connection

    def _open(self, number: str) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        return apsw.Connection(self._uri(number), flags=flags)

    def uri(self) -> str:
        """Return a URI that ``ATTACH`` takes in this process, once."""
        return self._uri(_vfs().expect(self._open_view, []))

    def _uri(self, number: str) -> str:
        return f"file:{quote(str(self.path))}?vfs={BRANCH_VFS}&branch={number}"

    def _open_view(self) -> View:
        wanted = Wanted(txid=self.txid)
        return View(self._store, wanted, refresh=None, cache_size=_CACHE_SIZE)

    @property
    def is_finished(self) -> bool:
        """Whether it is a plain database by now."""
        return not map_path(self.path).exists()

    @property
    def pages(self) -> tuple[int, int]:
        """How many pages of the state are local, or not needed any more; and of how many.

        Pages that were only read count when they are on disk.
        """
        try:
            with closing(BranchMap(map_path(self.path))) as pages:
                return pages.count, pages.commit
        except FileNotFoundError:
            return (0, 0)

    def finish(self, callback: Callback | None = None) -> Path:
        """Fetch all that is missing; from then on it is a plain SQLite database.

        Connections that are open, here or in other processes, can be used meanwhile, and
        afterwards. A Replicator does this by itself if it is given the branch.

        Args:
            callback: Is told the pages to fetch and those fetched.

        Returns:
            The path of the database.

        Raises:
            NotRestorableError: The state went away.
            StoreError: The replica cannot be read.
        """
        if self.is_finished:
            return self.path
        here, total = self.pages
        if callback is not None:
            callback.set_size(total - here)
        opened: list[BranchFile] = []
        with closing(self._open(_vfs().expect(self._open_view, opened))) as connection:
            connection.set_busy_timeout(60_000)  # a busy writer leaves little room
            # What a crash left is put right by SQLite first.
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            for file in opened:
                file.fetch_all(
                    lambda pgno: callback.relative_update(1) if callback else None
                )
                file.finish()
        map_path(self.path).unlink(missing_ok=True)
        return self.path

    def close(self) -> None:
        """Close the connections that ``connect`` made."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse_database(path: Path) -> None:
    """Raise TargetExistsError unless a new branch can be at the path.

    What was left by one that was killed while it was made is in nobody's way.
    """
    for suffix in ("-journal", "-wal"):
        beside = Path(f"{path}{suffix}")
        if beside.exists():
            raise TargetExistsError(
                str(beside),
                f"{beside} is of another database, and would be taken for the branch's:"
                " move it away",
            )
    try:
        fd, key = descriptors.acquire(str(path))  # it may be open in this process
    except FileNotFoundError:
        return
    try:
        begins = os.pread(fd, len(MAGIC), 0)
    finally:
        descriptors.release(key)
    if begins not in (MAGIC, b""):
        raise TargetExistsError(str(path), f"{path} exists: a branch is a new file")
    path.unlink()


def _create(path: Path, store: LTXStore, view: View) -> None:
    """Make the local file and its map; there is a branch as soon as there is the map."""
    header, first = view.map.header, view.read(1)
    origin = Origin(
        header.page_size, header.commit, header.max_txid, header.timestamp, store.name
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(MAGIC + first[len(MAGIC) :])
        file.truncate(header.commit * header.page_size)
        file.flush()
        os.fsync(file.fileno())
    temporary = Path(f"{map_path(path)}.tmp")
    BranchMap.write(temporary, origin)
    temporary.replace(map_path(path))
    with closing(BranchMap(map_path(path))) as pages:
        pages.set(1)
        pages.sync()
    with suppress(OSError):  # folders of some systems cannot be synced
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


_turn = threading.Lock()
_the_vfs: BranchVFS | None = None


def _vfs() -> BranchVFS:
    """Return the VFS of this process; the first call registers it."""
    global _the_vfs
    with _turn:
        if _the_vfs is None:
            _the_vfs = BranchVFS()
        return _the_vfs
