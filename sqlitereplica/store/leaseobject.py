"""The object of the lease on real stores: read it, replace it under a condition, probe.

Two ways, by what a store can do:

* **S3** replaces ``lock.json`` with ``If-Match``, and makes it with ``If-None-Match``, as
  Litestream's leaser does. The tag is the ETag. Some servers (radosgw 16) compare it without
  the quotes it is given with; the probe finds out.
* **Stores that can only refuse a name that is taken** (local folders, by a hard link; Google
  and Azure by a condition; memory) get a row of objects, ``lock/<number>.json``. The highest
  number counts, and is the tag. To replace object n is to create n + 1. Who is held up until
  the names after n have been tidied away creates one of them all the same, looks, sees
  higher ones and was refused. No file lock is held, so a stopped process blocks nobody.

A store that does neither, or says it does and does not, holds no lease. That is found out by
trying (``probe``), on an object of its own: servers that ignore conditions answer 200.

Nothing is tried again here and nothing waits longer than it is told to: a request that got
no answer may still come through, and what then is the protocol's business (``lease.py``).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.store import local
from sqlitereplica.store.lease import LEASE_NAME, MOST_BYTES, Record, Seen
from sqlitereplica.store.remote import Remote
from sqlitereplica.store.translate import (
    http_status,
    is_missing_bucket,
    translated,
)

__all__ = ["LeaseObject", "RefusedError", "lease_object"]

T = TypeVar("T")

_FOLDER = "lock"
_REFUSED = frozenset({404, 412})
_UNKNOWN = frozenset({400, 405, 501})
_NUMBER = re.compile(r"([0-9]{16})\.json")
_NO_LINKS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
)
_KEEP = 16
"""How many numbers are left standing, the highest included."""
_TIMEOUT = 10.0


class RefusedError(Exception):
    """The condition of a write does not hold: the object is not what was expected."""


class LeaseObject(Protocol):
    """The object of one replica. All methods raise StoreError when the store fails."""

    timeout: float
    """Seconds that one request may take, where that can be said."""

    def probe(self) -> str | None:
        """Try the store; why it cannot hold a lease, or None when it can."""

    def read(self) -> Seen:
        """What the object is now."""

    def write(self, record: Record, expect: str | None) -> str:
        """Replace the object if its tag is ``expect``, or make it; returns the new tag.

        Raises:
            RefusedError: It has another tag, or there is one already.
        """


@contextmanager
def _refused_or_translated(
    operation: str, key: str, hidden: Collection[str]
) -> Iterator[None]:
    """Let a refusal through, which is an answer; all else is a StoreError."""
    refused = None
    with translated(operation, key, hidden):
        try:
            yield
        except RefusedError as error:
            refused = error
    if refused is not None:
        raise refused


def lease_object(
    fs: AbstractFileSystem, root: str, protocol: str, hidden: Collection[str]
) -> LeaseObject | None:
    """The object of the replica at ``root``; None where no kind of it can be.

    ``hidden`` are secrets that no message may show.
    """
    remote = Remote(fs, protocol)
    if hasattr(fs, "call_s3"):
        return _Matched(fs, root, hidden)
    if protocol in ("file", "local"):
        return _Numbered(_Folder(root), root, hidden)
    if remote.is_tree or isinstance(fs, MemoryFileSystem):
        return _Numbered(_Names(remote, root), root, hidden)
    return None


# -- S3 ----------------------------------------------------------------------------------


class _Matched:
    """``lock.json``, replaced by its ETag."""

    def __init__(self, fs: Any, root: str, hidden: Collection[str]) -> None:
        self._fs, self._root, self._hidden = fs, root, hidden
        self._path = f"{root}/{LEASE_NAME}"
        self._is_quoted = True
        self.timeout = _TIMEOUT

    def probe(self) -> str | None:
        path = f"{self._root}/lock-probe-{secrets.token_hex(8)}"
        with translated("put", path, self._hidden):
            try:
                return self._probe(path)
            except Exception as error:
                if http_status(error) not in _UNKNOWN:
                    raise
                return f"it refuses conditional writes ({error})"
            finally:
                self._call("delete_object", path)

    def _probe(self, path: str) -> str | None:
        tag = self._put(path, b"1", None)
        if not self._is_refused(path, None):
            return "it ignores If-None-Match"
        for self._is_quoted in (True, False):
            try:
                stale, tag = tag, self._put(path, b"2", tag)
            except RefusedError:
                continue
            return None if self._is_refused(path, stale) else "it ignores If-Match"
        return "it refuses If-Match with the ETag that it gave"

    def _is_refused(self, path: str, expect: str | None) -> bool:
        try:
            self._put(path, b"3", expect)
        except RefusedError:
            return True
        return False

    def read(self) -> Seen:
        with translated("get", self._path, self._hidden):
            try:
                data, tag = self._within(self._fetch)
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return Seen(None, None)
        return Seen(Record.from_bytes(data), tag)

    async def _fetch(self) -> tuple[bytes, str]:
        answer = await self._fs._call_s3("get_object", **self._where(self._path))
        async with answer["Body"] as body:
            is_small = answer["ContentLength"] <= MOST_BYTES
            return (await body.read() if is_small else b""), str(answer["ETag"])

    def write(self, record: Record, expect: str | None) -> str:
        with _refused_or_translated("put", self._path, self._hidden):
            return self._put(self._path, record.to_bytes(), expect)

    def _put(self, path: str, data: bytes, expect: str | None) -> str:
        condition = {"IfNoneMatch": "*"}
        if expect is not None:
            condition = {"IfMatch": expect if self._is_quoted else expect.strip('"')}
        try:
            answer = self._call("put_object", path, Body=data, **condition)
        except Exception as error:
            if http_status(error) not in _REFUSED or is_missing_bucket(error):
                raise
            raise RefusedError(path) from error
        return str(answer["ETag"])

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self._within(
            lambda: self._fs._call_s3(method, **self._where(path), **options)
        )

    def _within(self, request: Callable[[], Awaitable[T]]) -> T:
        done: T = sync(self._fs.loop, request, timeout=self.timeout)
        return done

    def _where(self, path: str) -> dict[str, str]:
        bucket, key = self._fs.split_path(path)[:2]
        return {"Bucket": bucket, "Key": key}


# -- stores that refuse a name that is taken ---------------------------------------------


class _Files(Protocol):
    """The names in one folder of a store."""

    def probe(self) -> str | None:
        """Why ``create`` cannot be relied on; None if it can."""

    def create(self, name: str, data: bytes) -> None:
        """Make a file; FileExistsError, or an error with HTTP status 412, if it is there."""

    def list(self) -> list[str]:
        """The names that there are now."""

    def read(self, name: str) -> bytes:
        """A file, or the beginning of a large one; FileNotFoundError if it is gone."""

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone is fine."""


class _Numbered:
    """``lock/<number>.json``; the highest number counts."""

    def __init__(self, files: _Files, root: str, hidden: Collection[str]) -> None:
        self._files, self._hidden = files, hidden
        self._where = f"{root}/{_FOLDER}"
        self.timeout = _TIMEOUT

    def probe(self) -> str | None:
        with translated("put", self._where, self._hidden):
            return self._files.probe()

    def read(self) -> Seen:
        with translated("get", self._where, self._hidden):
            while number := max(self._numbers(), default=0):
                try:
                    data = self._files.read(_name(number))
                except FileNotFoundError:
                    continue  # replaced and tidied away meanwhile
                return Seen(Record.from_bytes(data), str(number))
        return Seen(None, None)

    def write(self, record: Record, expect: str | None) -> str:
        number = int(expect or 0) + 1
        with _refused_or_translated("put", self._where, self._hidden):
            _create(self._files, _name(number), record.to_bytes())
            numbers = self._numbers()
            if max(numbers) > number:
                # The name was free since it is long past: nobody has seen this one.
                self._files.delete(_name(number))
                raise RefusedError(_name(number))
            for old in numbers:
                if old <= number - _KEEP:
                    self._files.delete(_name(old))
        return str(number)

    def _numbers(self) -> list[int]:
        matches = map(_NUMBER.fullmatch, self._files.list())
        return [int(match[1]) for match in matches if match]


def _name(number: int) -> str:
    return f"{number:016d}.json"


def _create(files: _Files, name: str, data: bytes) -> None:
    try:
        files.create(name, data)
    except Exception as error:
        if not isinstance(error, FileExistsError) and http_status(error) != 412:
            raise
        raise RefusedError(name) from error


class _Folder:
    """A local folder, by hard links."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._path = self._root / _FOLDER

    def probe(self) -> str | None:
        """Without hard links a name is looked up and then taken: two steps."""
        local.prepare(self._path, self._root)
        here = self._path / f".{secrets.token_hex(8)}.tmp"
        there = here.with_suffix(".link.tmp")
        here.touch(exist_ok=False)
        try:
            os.link(here, there)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return f"its filesystem has no hard links ({error.strerror})"
        finally:
            here.unlink()
            there.unlink(missing_ok=True)
        return None

    def create(self, name: str, data: bytes) -> None:
        if not self._path.is_dir():
            local.prepare(self._path, self._root)
        now = time.time_ns() // 1_000_000
        local.create(self._path / name, data, mtime_ms=now)

    def list(self) -> list[str]:
        return [os.path.basename(e["name"]) for e in local.list_folder(str(self._path))]

    def read(self, name: str) -> bytes:
        with (self._path / name).open("rb") as file:
            return file.read(MOST_BYTES + 1)

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class _Names:
    """Object stores that create on condition, and memory."""

    def __init__(self, remote: Remote, root: str) -> None:
        self._remote, self._path = remote, f"{root}/{_FOLDER}"

    def probe(self) -> str | None:
        name = f"probe-{secrets.token_hex(8)}"
        try:
            self.create(name, b"1")
            _create(self, name, b"2")
        except RefusedError:
            return None
        finally:
            self.delete(name)
        return "it does not refuse a name that is taken"

    def create(self, name: str, data: bytes) -> None:
        self._remote.create(f"{self._path}/{name}", data, {})

    def list(self) -> list[str]:
        entries = self._remote.list_folder(self._path)
        return [str(entry["name"]).rpartition("/")[2] for entry in entries]

    def read(self, name: str) -> bytes:
        return self._remote.read(f"{self._path}/{name}", 0, MOST_BYTES + 1)

    def delete(self, name: str) -> None:
        self._remote.delete([f"{self._path}/{name}"])
