"""``connect``: SQL on a replica in place, at any of its times."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import apsw

from sqlitereplica.reading.diskcache import DiskCache
from sqlitereplica.reading.functions import add_functions
from sqlitereplica.reading.vfs import VFS_NAME, Parameters, the_vfs
from sqlitereplica.reading.view import View
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.at import At
from sqlitereplica.restore.choose import Source, open_store
from sqlitereplica.restore.restore import wanted_by
from sqlitereplica.store import LTXStore, Replica

__all__ = ["connect", "open_connection", "replica_uri", "view_uri"]

_CACHE_SIZE = 32 << 20
_CACHE_DIR_SIZE = 1 << 30
_REFRESH = 1.0


@dataclass(frozen=True, slots=True)
class _Settings:
    """How a replica is read; the fields are also the parameters of a URI."""

    refresh: float | None = _REFRESH
    cache_size: int = _CACHE_SIZE
    cache_dir: str | os.PathLike[str] | None = None
    cache_dir_size: int = _CACHE_DIR_SIZE
    hydrate: bool | str | os.PathLike[str] = False

    def __post_init__(self) -> None:
        if self.refresh is not None and not self.refresh >= 0:
            raise ValueError(f"refresh={self.refresh!r}: give seconds, or None")
        for name in ("cache_size", "cache_dir_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: give bytes")

    def open(self, store: LTXStore, wanted: Wanted) -> View:
        """A view of a state."""
        get = None
        if self.cache_dir is not None:
            cache = DiskCache(
                self.cache_dir, self.cache_dir_size, store.name, store.get
            )
            get = cache.get
        view = View(
            store, wanted, refresh=self.refresh, cache_size=self.cache_size, get=get
        )
        if self.hydrate:
            view.hydrate(None if self.hydrate is True else self.hydrate)
        return view


def connect(
    replica: Source,
    at: At | None = None,
    *,
    txid: int | None = None,
    refresh: float | None = _REFRESH,
    cache_size: int = _CACHE_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_dir_size: int = _CACHE_DIR_SIZE,
    hydrate: bool | str | os.PathLike[str] = False,
    storage_options: Mapping[str, Any] | None = None,
) -> apsw.Connection:
    """Open a read-only connection straight on a replica, without a download.

    Only what queries need is fetched. A read transaction sees one state from its
    begin to its end; the next one sees the newest state, or always the one asked for.

    Args:
        replica: A URL, a folder, a ``Replica`` or an ``LTXStore``.
        at: Stay at the last state before this time, or of a pin; as for ``restore``.
        txid: Stay at the state after exactly this transaction instead.
        refresh: The replica is looked at when a transaction begins and the last look
            was this many seconds ago; None: never, the state stays.
        cache_size: Bytes of pages to keep in memory.
        cache_dir: A folder where what is fetched is kept for later connections, and for
            those of other processes.
        cache_dir_size: Bytes to keep there.
        hydrate: Restore the state to a local file in the background, and read from that
            as soon as it is there. A path: keep it there, so that the next time only what
            differs is fetched.
        storage_options: For the filesystem of a URL.

    Raises:
        NotRestorableError: There is no backup, or not of the state asked for.
        StoreError: The replica cannot be read.
        InvalidFileError: The replica is damaged.
        ValueError: An argument makes no sense.
    """
    settings = _Settings(refresh, cache_size, cache_dir, cache_dir_size, hydrate)
    store = open_store(replica, storage_options)
    view = settings.open(store, wanted_by(at, txid))
    return open_connection(view)


def open_connection(view: View) -> apsw.Connection:
    """Open a connection to a view, which is closed with it."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    try:
        connection = apsw.Connection(view_uri(view), flags=flags)
    except BaseException:
        view.close()
        raise
    add_functions(connection)
    return connection


def view_uri(view: View) -> str:
    """Return a URI that stands for a view, and can be opened once."""
    number = the_vfs(_open_uri).expect(view)
    return f"file:{quote(view.store.name)}?vfs={VFS_NAME}&view={number}"


def replica_uri(
    replica: Source,
    at: At | None = None,
    *,
    txid: int | None = None,
    refresh: float | None = _REFRESH,
    cache_size: int = _CACHE_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_dir_size: int = _CACHE_DIR_SIZE,
    hydrate: bool | str | os.PathLike[str] = False,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Return a URI that ``ATTACH`` takes, for the same as ``connect``.

    It is good in this process, for any connection of apsw that was opened with
    ``SQLITE_OPEN_URI``. Storage options are not in it: it has a number that stands for
    them.
    """
    settings = _Settings(refresh, cache_size, cache_dir, cache_dir_size, hydrate)
    wanted = wanted_by(at, txid)
    the_vfs(_open_uri)
    number = str(next(_numbers))
    _registered[number] = open_store(replica, storage_options), wanted, settings
    return (
        f"file:{quote(_registered[number][0].name)}?vfs={VFS_NAME}&registered={number}"
    )


_numbers = itertools.count(1)
_registered: dict[str, tuple[LTXStore, Wanted, _Settings]] = {}


def _open_uri(parameters: Parameters) -> View:
    """Open what the parameters of a URI say."""
    number = parameters.get("registered")
    if number is not None:
        if number not in _registered:
            raise ValueError(f"registered={number!r} is of another process")
        store, wanted, settings = _registered[number]
        return settings.open(store, wanted)
    if "replica" not in parameters:
        raise ValueError(
            "a URI with vfs=sqlitereplica needs &replica=; a file of this machine"
            f" needs &vfs={apsw.vfs_names()[0]}"
        )
    refresh = parameters.get("refresh", str(_REFRESH))
    settings = _Settings(
        None if refresh == "none" else float(refresh),
        int(parameters.get("cache_size", _CACHE_SIZE)),
        parameters.get("cache_dir"),
        int(parameters.get("cache_dir_size", _CACHE_DIR_SIZE)),
        parameters.get("hydrate", False),
    )
    txid = parameters.get("txid")
    wanted = wanted_by(_time(parameters.get("at")), int(txid) if txid else None)
    return settings.open(Replica(parameters["replica"]).open(), wanted)


def _time(text: str | None) -> At | None:
    """Read a time in a URI, where seconds since 1970 are text as well."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
