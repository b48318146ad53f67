"""``LTXStore``: the files of one replica, on any fsspec filesystem.

What replication builds on, and this module keeps:

* a file that was put is there, whole, and is never replaced by other bytes. Local folders
  and stores with conditional writes (S3 ``If-None-Match``, Azure, Google) refuse an existing
  name themselves; for the rest it is looked up first. When a name is taken, or an answer
  was lost, the file is read back: the same bytes are our own earlier try, others are
  another writer's.
* a listing is what the store says now, whole: never a cache's memory, and never without
  the part that could not be read.
* what comes back is as long as it should be; filesystems that ignore ranges are cut.

``local.py`` and ``remote.py`` do this for the disk and for all other filesystems.

Reads and lists are tried again with pauses; a put is tried again too, since putting the
same bytes twice is the same as once.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from fsspec import AbstractFileSystem

from sqlitereplica.errors import AnotherWriterError, InvalidFileError, StoreError
from sqlitereplica.ltx import HEADER_SIZE, MAX_LEVEL, FileInfo, Header
from sqlitereplica.store import local
from sqlitereplica.store.attempts import Attempts, Sent, size_of
from sqlitereplica.store.credentials import Credentials, Rotation
from sqlitereplica.store.generations import (
    KINDS,
    GenerationFile,
    generation_files,
    generations_root,
    is_generation,
)
from sqlitereplica.store.layout import Layout, layout_for, timestamp_metadata
from sqlitereplica.store.leaseobject import LeaseObject, lease_object
from sqlitereplica.store.location import locate, make_filesystem, root_on
from sqlitereplica.store.reader import StoreReader
from sqlitereplica.store.remote import Entry, Remote
from sqlitereplica.store.retry import RetryPolicy
from sqlitereplica.store.sealedform import is_sealed, needs_keys
from sqlitereplica.store.side import SideFile, side_files, side_key
from sqlitereplica.store.translate import is_conflict

__all__ = ["LTXStore"]

T = TypeVar("T")

_PARALLEL = 16
_COMPARE_BYTES = 4 << 20


class LTXStore:
    """All files of one replica. Thread-safe; opening one makes no request.

    ``name`` is a printable URL without secrets; ``label`` is what people call the replica,
    the same unless it was given a name. ``requests`` counts operations by kind.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        root: str,
        *,
        name: str | None = None,
        label: str | None = None,
        rotation: Rotation | None = None,
        layout: Layout | None = None,
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        rng: Callable[[], float] = random.random,
    ) -> None:
        protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        self._fs, self._root = fs, root.rstrip("/") or "/"
        self._protocol = protocol
        self.is_local = protocol in ("file", "local")
        """True for a folder of this machine, where reading back costs little."""
        self._remote = Remote(fs, protocol)
        self.attempts = Attempts(
            fs,
            protocol,
            rotation=rotation,
            retry=retry or RetryPolicy(),
            sleep=sleep,
            rng=rng,
        )
        self.name = name or f"{protocol}://{self._root}"
        self.label = label or self.name
        self._layout = layout or layout_for(protocol)
        self._prepared: set[Path] = set()
        self._lock = threading.Lock()
        self.folder_mode = 0o777  # of a local folder that is made, less the umask
        self.is_readable = True
        """False where one can only write: it is encrypted, and for others."""

    @classmethod
    def open(
        cls,
        where: str | os.PathLike[str] | AbstractFileSystem,
        *,
        path: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        credentials: Credentials | None = None,
        **settings: Any,
    ) -> Self:
        """A store at a URL, in a folder, or at ``path`` on a filesystem.

        Raises:
            ValueError: a URL that cannot be meant.
            StoreError: a filesystem that fsspec cannot make.
        """
        if isinstance(where, AbstractFileSystem):
            if path is None:
                raise ValueError(
                    "a filesystem needs a folder: pass Replica(filesystem, path=...)"
                )
            if storage_options or credentials:
                raise ValueError("storage_options are for a URL: this has its own")
            return cls(where, root_on(where, path), **settings)
        location = locate(where, storage_options).below(path)
        if credentials is None:
            fs = make_filesystem(location)
        else:
            make = partial(make_filesystem, location)
            rotation = settings["rotation"] = Rotation(credentials, make, location.name)
            fs = rotation.open()
        return cls(fs, location.root, name=location.name, **settings)

    @property
    def requests(self) -> Counter[str]:
        """Operations tried so far, by kind."""
        return self.attempts.requests

    def __repr__(self) -> str:
        return f"LTXStore({self.name!r})"

    # -- listing ---------------------------------------------------------------------

    def list_level(
        self, level: int, *, min_txid: int = 0, accurate: bool = False
    ) -> list[FileInfo]:
        """Files of a level in order of their TXIDs, from ``min_txid`` on.

        ``timestamp`` is the store's time of the file; with ``accurate`` it is read from
        each header, which is exact on every store (one small request a file); where the
        header is damaged it stays the store's.

        Raises:
            StoreError: the store failed.
        """
        folder = self._layout.level_path(self._root, level)
        first = f"{min_txid:016x}"
        found = self._run("list", folder, lambda: self._list_folder(folder, first))
        infos = [f for f in found if f.level == level and f.min_txid >= min_txid]
        return self._finish(infos, accurate)

    def list_all(self, *, accurate: bool = False) -> list[FileInfo]:
        """Files of all levels, by level and TXID, in as few requests as can be."""
        infos = self._run("list", self._root, self._list_everything)
        return self._finish(infos, accurate)

    def _list_everything(self) -> list[FileInfo]:
        levels = range(MAX_LEVEL + 1)
        folders = [self._layout.level_path(self._root, level) for level in levels]
        if self.is_local:
            return [f for folder in folders for f in self._list_folder(folder)]
        return self._parse(self._remote.list_tree(self._root, folders))

    def _list_folder(self, folder: str, first: str = "") -> list[FileInfo]:
        return self._parse(self._list_entries(folder, first))

    def _list_entries(self, folder: str, first: str = "") -> Sequence[Entry]:
        if self.is_local:
            return local.list_folder(folder, first)
        return self._remote.list_level(self._root, folder, first)

    def _parse(self, entries: Iterable[Entry]) -> list[FileInfo]:
        return self._layout.files(self._root, entries)

    def _finish(self, infos: list[FileInfo], accurate: bool) -> list[FileInfo]:
        infos = sorted(infos, key=lambda f: (f.level, f.min_txid, f.max_txid))
        if accurate and infos:
            with self._pool() as pool:
                found = pool.map(self.with_own_time, infos)
                infos = [info for info in found if info is not None]
        return infos

    def with_own_time(self, info: FileInfo) -> FileInfo | None:
        """A file with the time in its header; None when it is gone meanwhile.

        With the time that it came with if the header is damaged.
        """
        try:
            timestamp = Header.unpack(self.get(info, 0, HEADER_SIZE)).timestamp
        except InvalidFileError:
            return info  # who reads the rest of it is told; others are not concerned
        except StoreError as error:
            if error.kind != "missing":
                raise
            return None  # deleted since it was listed
        return FileInfo(info.level, info.min_txid, info.max_txid, info.size, timestamp)

    # -- reading ---------------------------------------------------------------------

    def get(self, info: FileInfo, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``start..end`` of a file.

        Raises:
            StoreError: ``kind`` ``"missing"`` when it is gone, ``"short"`` when the store
                gave fewer bytes than there should be.
        """
        end = info.size if end is None else min(end, info.size)
        key = self._key(info)
        return self._run("get", key, lambda: self._read(key, start, end, info.size))

    def _read(self, key: str, start: int, end: int, size: int) -> bytes:
        """Bytes of the content of a file, of which there are ``size``."""
        data = self._fetch(key, start, end)
        if start == 0 and is_sealed(data):
            raise needs_keys(key)
        return data

    def _fetch(self, key: str, start: int, end: int) -> bytes:
        """Bytes as the store has them."""
        wanted = end - start
        if wanted <= 0:
            return b""  # some filesystems take an empty range for all of the file
        data = self._remote.read(key, start, end)
        if len(data) > wanted and start + wanted <= len(data):
            data = data[start:end]  # the whole file, from one that ignores ranges
        if len(data) != wanted:
            raise StoreError(
                f"get {key}: {len(data)} bytes came back instead of {wanted}",
                operation="get",
                key=key,
                kind="short",
            )
        return data

    def open_file(self, info: FileInfo) -> StoreReader:
        """A sequential reader that fetches ranges ahead of need and resumes on failure."""
        return StoreReader(lambda start, end: self.get(info, start, end), info.size)

    # -- writing ---------------------------------------------------------------------

    def put(
        self,
        level: int,
        min_txid: int,
        max_txid: int,
        data: bytes | Path,
        *,
        timestamp: int,
    ) -> FileInfo:
        """Store a file durably; it exists under its name when this returns.

        ``data`` is its bytes, or a finished local file that nobody changes any more.
        ``timestamp`` (ms, that of its header) becomes its time in listings where the
        store can keep one.

        Raises:
            AnotherWriterError: the name holds other bytes.
            StoreError: the store failed; whether it has the file is unknown, and putting
                it again is right. ``kind`` is ``"source"`` when ``data`` is a file that
                could not be brought to disk: it must be made anew.
        """
        key = self._layout.key(self._root, level, min_txid, max_txid)
        self._run("put", key, lambda: self._put(key, data, timestamp), sent=data)
        return FileInfo(level, min_txid, max_txid, size_of(data), timestamp)

    def copy(self, info: FileInfo, level: int, scratch: Path) -> FileInfo:
        """Store a file at another level as well, durably; raises as ``put``.

        A store that cannot do it by itself costs a fetch to ``scratch`` and a put.
        """
        key = self._layout.key(self._root, level, info.min_txid, info.max_txid)
        if not self._run("put", key, lambda: self._copy(info, key)):
            try:
                with scratch.open("xb") as file:
                    for start in range(0, info.size, _COMPARE_BYTES):
                        file.write(self.get(info, start, start + _COMPARE_BYTES))
                self._run("put", key, lambda: self._put(key, scratch, info.timestamp))
            finally:
                scratch.unlink(missing_ok=True)
        return FileInfo(level, info.min_txid, info.max_txid, info.size, info.timestamp)

    def _copy(self, info: FileInfo, key: str) -> bool:
        """True when the store made the copy, and it is as long as it should be."""
        if self.is_local:
            self._put(key, Path(self._key(info)), info.timestamp)
            return True
        if not self._remote.copy(self._key(info), key):
            return False
        found = self._remote.size(key)
        if found != info.size:
            raise AnotherWriterError(key)
        return True

    def _put(self, key: str, data: bytes | Path, timestamp: int) -> None:
        conflict = None
        try:
            if self._create(key, data, timestamp):
                return
        except Exception as error:
            if not is_conflict(error):
                raise
            conflict = error
        # Twice: one bad read is no reason to stop for good.
        if not self._holds(key, data) and not self._holds(key, data):
            raise AnotherWriterError(key) from conflict
        if self.is_local:
            local.settle(Path(key))

    def _create(self, key: str, data: bytes | Path, timestamp: int) -> bool:
        """Write a file whose name is not taken; False when it has to be read back."""
        if self.is_local:
            self._put_local(Path(key), data, timestamp)
            return True
        metadata = timestamp_metadata(self._protocol, timestamp)
        return self._remote.create(key, data, metadata)

    def _put_local(self, path: Path, data: bytes | Path, timestamp: int) -> None:
        folder = path.parent
        with self._lock:
            known = folder in self._prepared
        if not known or not folder.is_dir():
            local.prepare(folder, Path(self._root), self.folder_mode)
            with self._lock:
                self._prepared.add(folder)
        local.create(path, data, mtime_ms=timestamp)

    def _holds(self, key: str, data: bytes | Path) -> bool:
        """True when the name holds exactly these bytes."""
        size = size_of(data)
        if self._stored_size(key) != size:
            return False
        return self._compare(data, lambda a, b: self._fetch(key, a, b))

    def _stored_size(self, key: str) -> int:
        try:
            return self._remote.size(key)
        except FileNotFoundError as error:
            raise StoreError(
                f"put {key}: the name was taken and is free again",
                operation="put",
                key=key,
            ) from error

    def _compare(self, data: bytes | Path, read: Callable[[int, int], bytes]) -> bool:
        size = size_of(data)
        for start in range(0, size, _COMPARE_BYTES):
            end = min(size, start + _COMPARE_BYTES)
            if read(start, end) != _slice(data, start, end):
                return False
        return True

    def settle(self, info: FileInfo) -> None:
        """Make sure that a file which is there is durable, whoever put it.

        In a folder it may be from a process that was killed before its last fsync. Other
        stores show a file when it is durable.

        Raises:
            StoreError: it cannot be brought to disk; whether it is there is unknown.
        """
        if self.is_local:
            key = self._key(info)
            self._run("put", key, lambda: local.settle(Path(key)))

    def delete(self, infos: Iterable[FileInfo]) -> None:
        """Delete files; one that is gone already is fine.

        In a local folder one after the other in the order given, elsewhere many at once.

        Raises:
            StoreError: the store failed; some may be deleted.
        """
        self._delete_all([self._key(info) for info in infos])

    def _delete_all(self, keys: Sequence[str]) -> None:
        size = self._remote.batch_size
        batches = [keys[at : at + size] for at in range(0, len(keys), size)]
        if len(batches) < 2 or self.is_local:
            for batch in batches:
                self._delete(batch)
            return
        with self._pool() as pool:
            list(pool.map(self._delete, batches))

    def _delete(self, keys: Sequence[str]) -> None:
        self._run("delete", keys[0], partial(self._remote.delete, keys))

    # -- beside the levels -----------------------------------------------------------

    def list_side(self, folder: str) -> list[SideFile]:
        """What is in a folder beside the levels, by name; foreign names are left out.

        Raises:
            StoreError: the store failed.
        """
        path = side_key(self._root, folder)
        found = self._run("list", path, lambda: self._list_entries(path))
        return side_files(self._root, folder, found)

    def get_side(self, file: SideFile, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``start..end`` of a file beside the levels; raises as ``get``."""
        end = file.size if end is None else min(end, file.size)
        key = side_key(self._root, file.folder, file.name)
        return self._run("get", key, lambda: self._read(key, start, end, file.size))

    def put_side(self, folder: str, name: str, data: bytes | Path) -> SideFile:
        """Store a file beside the levels durably, under a name that is not taken.

        Raises:
            ValueError: the folder or the name cannot be a part of a key.
            AnotherWriterError: the name holds other bytes.
            StoreError: as ``put``.
        """
        key = side_key(self._root, folder, name)
        now = time.time_ns() // 1_000_000
        self._run("put", key, lambda: self._put(key, data, now))
        return SideFile(folder, name, size_of(data))

    def delete_side(self, files: Iterable[SideFile]) -> None:
        """Delete files beside the levels; one that is gone already is fine.

        Raises:
            StoreError: the store failed; some may be deleted.
        """
        self._delete_all([side_key(self._root, f.folder, f.name) for f in files])

    def lease_object(self) -> LeaseObject | None:
        """What says who may write here; None where no kind of it can be."""
        return lease_object(self._fs, self._root, self._protocol, self.attempts.secrets)

    # -- Litestream 0.3 --------------------------------------------------------------

    def list_generations(self) -> list[GenerationFile]:
        """Files in the layout of Litestream 0.3, by generation, index and offset.

        Raises:
            StoreError: the store failed.
        """
        folder = generations_root(self._root)
        found = self._run("list", folder, lambda: self._list_generations(folder))
        return generation_files(self._root, found)

    def _list_generations(self, folder: str) -> list[Entry]:
        if self._remote.is_tree:
            return self._remote.list_below(folder)
        tree = local if self.is_local else self._remote
        return [
            entry
            for name in tree.subfolders(folder)
            if is_generation(name)
            for kind in KINDS
            for entry in tree.list_folder(f"{folder}/{name}/{kind}")
        ]

    def get_generation_file(
        self, file: GenerationFile, start: int = 0, end: int | None = None
    ) -> bytes:
        """Bytes ``start..end`` of a file of Litestream 0.3; raises as ``get``."""
        end = file.size if end is None else min(end, file.size)
        key = file.key(self._root)
        return self._run("get", key, lambda: self._fetch(key, start, end))

    # -- all operations --------------------------------------------------------------

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_PARALLEL if self._remote.is_parallel else 1)

    def _key(self, info: FileInfo) -> str:
        return self._layout.key(self._root, info.level, info.min_txid, info.max_txid)

    def _run(
        self, operation: str, key: str, action: Callable[[], T], sent: Sent = b""
    ) -> T:
        return self.attempts.run(operation, key, action, sent)


def _slice(data: bytes | Path, start: int, end: int) -> bytes:
    if isinstance(data, bytes):
        return data[start:end]
    with data.open("rb") as file:
        file.seek(start)
        return file.read(end - start)
