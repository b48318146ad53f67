"""What a replica needs of an fsspec filesystem, and the ways in which they differ.

* **Object stores with conditional writes** (S3, Google, Azure): the server refuses a name
  that is taken, and shows an object whole or not at all. A server that does not know such
  requests says so (501), and is one of the last kind from then on.
* **Folders of another machine** (SFTP, SMB, FTP, WebDAV, HDFS): a file can be seen while it
  is written, and stays torn when the connection ends. So it is written under a temporary
  name and renamed. Whether the name is free is looked up before: two requests.
* **Everything else**: whether the name is free is looked up, then the file is written. As
  another writer can come between the two, it is read back (the store does that).

Three conveniences of fsspec are not used, since they hide failures: ``exists`` is False when
the store cannot be asked, ``walk`` (and ``find`` where it is made of it) leaves out folders
that cannot be listed, and ``cat_file`` of some SFTP clients ignores ranges.

Filesystems made of coroutines can be used by several threads; the others take turns.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.store.translate import http_status, is_missing_bucket

__all__ = ["Entry", "Remote"]

logger = logging.getLogger(__name__)

Entry: TypeAlias = Mapping[str, Any]
"""What fsspec says of a file: ``name``, ``size``, ``type`` and some kind of time."""

_S3 = frozenset({"s3", "s3a"})
_OBJECTS = _S3 | {"gs", "gcs", "abfs", "abfss", "az"}
"""Honour ``mode="create"`` by a conditional request, and list a tree in one go."""
_FOLDERS = frozenset(
    {"sftp", "ssh", "smb", "ftp", "webdav", "hdfs", "arrow_hdfs", "webhdfs"}
)
_CARELESS = "obstore"
"""A package with those protocols whose filesystems ignore ``mode`` without a word."""
_PART_BYTES = 8 << 20
_PARTS_IN_FLIGHT = 4
_MOST_PARTS = 10_000
_MEMORY_TURN = threading.RLock()


class Remote:
    """The filesystem of one replica. Keys are full paths on it.

    Foreign exceptions pass through; the store translates them.
    """

    batch_size: int
    """How many files ``delete`` takes at once."""
    is_tree: bool
    """Whether all files below a folder can be listed at once."""

    def __init__(self, fs: AbstractFileSystem, protocol: str) -> None:
        package = type(fs).__module__.partition(".")[0]
        self._fs = fs
        self._is_s3 = protocol in _S3 and package != _CARELESS
        self.is_tree = protocol in _OBJECTS and package != _CARELESS
        self._is_conditional = self.is_tree
        self._renames = protocol in _FOLDERS
        self._turn = _turn_of(fs)
        self.is_parallel = bool(fs.async_impl) or isinstance(fs, LocalFileSystem)
        self._has_calls = hasattr(fs, "call_s3")
        self.batch_size = 1000 if self._has_calls else 1

    # -- writing ---------------------------------------------------------------------

    def create(self, key: str, data: bytes | Path, metadata: Mapping[str, str]) -> bool:
        """Write a file whose name is not taken. False: it has to be read back.

        Raises:
            FileExistsError: the name is taken; or an error with HTTP status 412 behind it.
            Exception: whatever the filesystem raises; whether it was written is unknown.
        """
        with self._turn:
            if self._is_conditional and self._create_on_condition(key, data, metadata):
                return True
            self._refuse_existing(key)
            if self.is_tree:
                self._write(key, data, self._metadata(metadata))
                return False
            folder, _, name = key.rpartition("/")
            self._fs.makedirs(folder, exist_ok=True)
            if self._renames:
                self._write_beside(
                    f"{folder}/.{name}.{secrets.token_hex(8)}.tmp", data, key
                )
            else:
                self._write(key, data, {})
            return False

    def copy(self, key: str, target: str) -> bool:
        """Copy within the store, where it does that itself and shows only whole objects.

        What has the name already is left as it is: who asks knows what it should be.
        """
        if not self.is_tree:
            return False
        with self._turn:
            try:
                self._refuse_existing(target)
            except FileExistsError:
                return True
            self._fs.cp_file(key, target)
        return True

    def _create_on_condition(
        self, key: str, data: bytes | Path, metadata: Mapping[str, str]
    ) -> bool:
        """False when the server does not know conditional requests."""
        if _size(data) >= 2 * _PART_BYTES:
            # The condition is only looked at when all parts have been sent.
            self._refuse_existing(key)
        try:
            self._write(key, data, {"mode": "create", **self._metadata(metadata)})
        except Exception as error:
            if http_status(error) != 501:
                raise
            self._is_conditional = False
            logger.warning(
                "%s: the store knows no conditional writes, names are looked up instead",
                key,
                extra={"action": "store-unconditional"},
            )
            return False
        return True

    def _metadata(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        if not metadata:
            return {}
        return {"Metadata" if self._is_s3 else "metadata": dict(metadata)}

    def _write_beside(self, temporary: str, data: bytes | Path, key: str) -> None:
        try:
            self._write(temporary, data, {})
            self._fs.mv(temporary, key)
        except BaseException:
            # What went wrong is raised; a file that is left under this name harms nobody.
            with contextlib.suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def _write(self, key: str, data: bytes | Path, options: Mapping[str, Any]) -> None:
        if self._is_s3:
            options = {**options, **_parts(_size(data))}
        if not isinstance(data, Path):
            self._fs.pipe_file(key, data, **options)
        elif isinstance(self._fs, MemoryFileSystem):
            # Its put_file shows the file while it grows.
            self._fs.pipe_file(key, data.read_bytes(), **options)
        else:
            self._fs.put_file(str(data), key, **options)

    def _refuse_existing(self, key: str) -> None:
        self._fs.invalidate_cache(self._fs._parent(key))
        try:
            self._fs.info(key)
        except FileNotFoundError:
            return
        raise FileExistsError(key)

    # -- reading ---------------------------------------------------------------------

    def read(self, key: str, start: int, end: int) -> bytes:
        """Bytes ``start..end`` of a file; more or fewer where a filesystem is careless."""
        with self._turn:
            if not self._renames:
                return bytes(self._fs.cat_file(key, start=start, end=end))
            with self._fs.open(key, "rb") as file:
                file.seek(start)
                return bytes(file.read(end - start))

    def size(self, key: str) -> int:
        """Bytes in a file now, whatever a cache remembers; or FileNotFoundError."""
        with self._turn:
            self._fs.invalidate_cache(self._fs._parent(key))
            return int(self._fs.info(key)["size"])

    def list_level(self, root: str, folder: str, first: str = "") -> list[Entry]:
        """What is in the folder of a level, and perhaps more.

        From the name ``first`` on where that saves something: a follower asks every second
        what there is behind its state, and level 0 has thousands of files.
        """
        if not self._is_s3:
            return self.list_folder(folder)
        if first and self._has_calls:
            return self._list_behind(folder, first)
        # ``ls`` lists the parent, too, to find out whether an empty folder exists.
        return self._find(root, prefix=f"{folder.rpartition('/')[2]}/")

    def _list_behind(self, folder: str, name: str) -> list[Entry]:
        """The objects in a folder of S3 whose names are behind one."""
        bucket, key, _ = self._fs.split_path(folder)
        prefix = f"{key}/"
        page = {"StartAfter": prefix + name}
        found: list[Entry] = []
        while page:
            try:
                answer = self._fs.call_s3(
                    "list_objects_v2", Bucket=bucket, Prefix=prefix, **page
                )
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return []
            found += (
                {**entry, "name": f"{bucket}/{entry['Key']}", "size": entry["Size"]}
                for entry in answer.get("Contents", ())
            )
            token = answer.get("NextContinuationToken")
            page = {"ContinuationToken": token} if answer.get("IsTruncated") else {}
        return found

    def list_folder(self, folder: str) -> list[Entry]:
        """What is in a folder now, whatever a cache remembers; nothing if there is none."""
        with self._turn:
            self._fs.invalidate_cache(folder)
            try:
                return list(self._fs.ls(folder, detail=True))
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return []

    def subfolders(self, folder: str) -> list[str]:
        """The names of the folders in a folder; none if there is no folder."""
        entries = self.list_folder(folder)
        return [_base(e["name"]) for e in entries if e.get("type") == "directory"]

    def list_below(self, folder: str) -> list[Entry]:
        """All files below a folder, in one go; only where ``is_tree``."""
        if not self._is_s3:
            return self._find(folder)
        # With a prefix: else s3fs asks again to find out whether nothing is a file.
        parent, _, name = folder.rpartition("/")
        return self._find(parent, prefix=f"{name}/")

    def list_tree(self, root: str, folders: Sequence[str]) -> list[Entry]:
        """What is in the folders, which have one parent: ``root`` or a folder in it."""
        parent = folders[0].rpartition("/")[0]
        if self._is_s3:
            # All folders and nothing else: other replicas may be further below.
            return self._find(root, prefix="000")
        if self.is_tree:
            return self._find(parent)
        present = {_base(entry["name"]) for entry in self.list_folder(parent)}
        wanted = [folder for folder in folders if _base(folder) in present]
        return [entry for folder in wanted for entry in self.list_folder(folder)]

    def _find(self, root: str, **options: str) -> list[Entry]:
        with self._turn:
            self._fs.invalidate_cache()
            try:
                return list(self._fs.find(root, detail=True, **options).values())
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return []

    # -- deleting --------------------------------------------------------------------

    def delete(self, keys: Sequence[str]) -> None:
        """Delete up to ``batch_size`` files; missing ones are fine."""
        if len(keys) > 1 and self._delete_batch(keys):
            return
        with self._turn:
            for key in keys:
                try:
                    self._fs.rm_file(key)
                except FileNotFoundError:
                    continue

    def _delete_batch(self, keys: Sequence[str]) -> bool:
        """One request to S3; False when the server does not take such."""
        paths = [self._fs.split_path(key)[:2] for key in keys]
        objects = [{"Key": name} for _, name in paths]
        try:
            # s3fs's own method does not tell which deletions failed.
            answer = self._fs.call_s3(
                "delete_objects",
                Bucket=paths[0][0],
                Delete={"Objects": objects, "Quiet": True},
            )
        except OSError as error:
            if http_status(error) not in (400, 405, 411, 501):
                raise
            self.batch_size = 1
            return False
        for failure in answer.get("Errors") or []:
            _raise_failure(failure)
        return True


def _raise_failure(failure: Mapping[str, str]) -> None:
    """Raise what one line of the answer to a batch says, unless it is fine."""
    code = failure.get("Code", "")
    text = f"{failure.get('Key')}: {code} {failure.get('Message', '')}"
    if code == "AccessDenied":
        raise PermissionError(errno.EACCES, text)
    if code != "NoSuchKey":
        raise OSError(errno.EIO, text)


def _turn_of(fs: AbstractFileSystem) -> contextlib.AbstractContextManager[object]:
    """What to hold while a filesystem works: nothing where threads may do so together."""
    if isinstance(fs, MemoryFileSystem):
        return _MEMORY_TURN  # its instances share their files
    if fs.async_impl or isinstance(fs, LocalFileSystem):
        return contextlib.nullcontext()
    turn: contextlib.AbstractContextManager[object]
    turn = vars(fs).setdefault("_sqlitereplica_turn", threading.RLock())
    return turn


def _size(data: bytes | Path) -> int:
    return data.stat().st_size if isinstance(data, Path) else len(data)


def _base(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _parts(size: int) -> dict[str, int]:
    """Bound what s3fs holds of a file in memory; it would take 500 MiB by itself."""
    part = max(_PART_BYTES, -(-size // _MOST_PARTS))
    return {"chunksize": part, "max_concurrency": _PARTS_IN_FLIGHT}
