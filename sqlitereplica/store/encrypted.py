"""A store whose every object is encrypted before it leaves, and opened when it comes back.

What callers see is content: its bytes, its sizes, in listings too. What the filesystem sees
is the form of ``sealedform.py``. Nothing is ever read that is not encrypted, and nothing is
written plainly but ``lock.json``, which holds no data. Names, times and (nearly) sizes of
objects show as they do without encryption.

* An object is bound to its level and TXIDs: one under another's name cannot be opened. So a
  copy at another level is fetched and encrypted anew, never made by the store itself.
* The randomness of an object is derived from its name, its content and a secret of this
  process. So trying a put again sends the same bytes, and a host that cannot read knows its
  own by them; one that can read compares the content.
* The data keys of objects opened lately are kept. One that does not open what is there is
  looked up once more: a replica may have been deleted and begun anew.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from sqlitereplica.errors import EncryptionError, StoreError, TamperedError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store.attempts import size_of
from sqlitereplica.store.encryption import Encryption
from sqlitereplica.store.generations import GenerationFile
from sqlitereplica.store.sealedform import (
    CHUNK,
    HEADER,
    TAG,
    chunk_count,
    content_size,
    object_size,
)
from sqlitereplica.store.side import SideFile
from sqlitereplica.store.store import LTXStore

if TYPE_CHECKING:
    from sqlitereplica.store.sealing import Sealed

__all__ = ["EncryptedStore"]

_REMEMBERED = 1024
_PIECE = 64 * CHUNK


class EncryptedStore(LTXStore):
    """All files of one replica, encrypted. Thread-safe; opening one makes no request."""

    def __init__(
        self,
        fs: AbstractFileSystem,
        root: str,
        *,
        encryption: Encryption,
        **settings: Any,
    ) -> None:
        """Raise EncryptionError when the package ``cryptography`` is missing."""
        super().__init__(fs, root, **settings)
        self._writers, self._readers = encryption.writers(), encryption.readers()
        self.is_readable = encryption.can_read
        self._secret = secrets.token_bytes(64)
        self._opened: OrderedDict[str, Sealed] = OrderedDict()
        self._opened_lock = threading.Lock()

    # -- listing ---------------------------------------------------------------------

    def _parse(self, entries: Iterable[Mapping[str, Any]]) -> list[FileInfo]:
        found = super()._parse(entries)
        return [replace(info, size=content_size(info.size)) for info in found]

    def list_side(self, folder: str) -> list[SideFile]:
        """What is in a folder beside the levels, by name; foreign names are left out."""
        found = super().list_side(folder)
        return [replace(file, size=content_size(file.size)) for file in found]

    def list_generations(self) -> list[GenerationFile]:
        """Nothing: what Litestream 0.3 wrote is not encrypted."""
        return []

    # -- reading ---------------------------------------------------------------------

    def _read(self, key: str, start: int, end: int, size: int) -> bytes:
        if end <= start and size > 0:
            return b""
        try:
            return self._open(key, start, end, size)
        except TamperedError as error:
            raise TamperedError(f"{key} was changed: {error}") from error
        except EncryptionError as error:
            raise EncryptionError(
                f"{key}: {error}", kind=error.kind, key=key
            ) from error

    def _open(self, key: str, start: int, end: int, size: int) -> bytes:
        sealed = self._remembered(key)
        if sealed is not None:
            try:
                return self._open_chunks(key, sealed, start, end, size)
            except TamperedError:
                self._forget(key)
        return self._open_anew(key, start, end, size)

    def _open_anew(self, key: str, start: int, end: int, size: int) -> bytes:
        """Read the header, along with the chunks if they are the first ones."""
        first, stop = _chunks(start, end, size)
        wanted = _offset(stop, size) if first == 0 else HEADER
        data = self._remote.read(key, 0, wanted)[:wanted]
        if len(data) < HEADER and self._remote.size(key) > len(data):
            raise _short(key, len(data), wanted)  # of its beginning nothing can be said
        sealed = self._unlock(key, data[:HEADER])
        if first > 0:
            return self._open_chunks(key, sealed, start, end, size)
        if len(data) < wanted:
            raise _short(key, len(data), wanted)
        ends = stop == chunk_count(size)
        return sealed.open(0, data[HEADER:], ends=ends)[start:end]

    def _open_chunks(
        self, key: str, sealed: Sealed, start: int, end: int, size: int
    ) -> bytes:
        first, stop = _chunks(start, end, size)
        data = self._fetch(key, _offset(first, size), _offset(stop, size))
        content = sealed.open(first, data, ends=stop == chunk_count(size))
        return content[start - first * CHUNK : end - first * CHUNK]

    def _unlock(self, key: str, header: bytes) -> Sealed:
        from sqlitereplica.store.sealing import open_object

        sealed = open_object(header, self._readers, self._bound_name(key))
        with self._opened_lock:
            self._opened[key] = sealed
            while len(self._opened) > _REMEMBERED:
                self._opened.popitem(last=False)
        return sealed

    def _remembered(self, key: str) -> Sealed | None:
        with self._opened_lock:
            return self._opened.get(key)

    def _forget(self, key: str) -> None:
        with self._opened_lock:
            self._opened.pop(key, None)

    def _bound_name(self, key: str) -> str:
        """What an object is bound to: the same wherever the replica is moved."""
        below = key.removeprefix(self._root).lstrip("/")
        info = self._layout.parse(below, size=0, timestamp=0)
        return f"level {info.level} {info.name}" if info else f"side {below}"

    # -- writing ---------------------------------------------------------------------

    def _create(self, key: str, data: bytes | Path, timestamp: int) -> bool:
        with self._sealed(key, data) as sealed:
            return super()._create(key, sealed, timestamp)

    def _copy(self, info: FileInfo, key: str) -> bool:
        return False

    def _holds(self, key: str, data: bytes | Path) -> bool:
        if not self.is_readable:
            with self._sealed(key, data) as sealed:
                return super()._holds(key, sealed)
        size = size_of(data)
        if self._stored_size(key) != object_size(size):
            return False
        try:
            return self._compare(data, lambda a, b: self._open(key, a, b, size))
        except (EncryptionError, TamperedError):
            return False  # nothing that we wrote

    @contextmanager
    def _sealed(self, key: str, data: bytes | Path) -> Iterator[bytes | Path]:
        """The object for some content: bytes for bytes, a file for as long for a file."""
        from sqlitereplica.store.sealing import new_object

        if not self._writers:
            raise EncryptionError(
                f"put {key}: there are only old keys: pass Encryption(key=...)",
                kind="no-recipient",
                key=key,
            )
        sealed = new_object(self._writers, self._bound_name(key), self._seed(key, data))
        if isinstance(data, bytes):
            yield sealed.header + sealed.seal(0, data, ends=True)
            return
        path = data.with_name(f"{data.name}.{secrets.token_hex(8)}.sealed")
        try:
            _write_sealed(sealed, data, path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _seed(self, key: str, data: bytes | Path) -> bytes:
        digest = hashlib.blake2b(key=self._secret)
        digest.update(key.encode() + b"\0")
        if isinstance(data, bytes):
            digest.update(data)
            return digest.digest()
        with data.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest.digest()


def _short(key: str, came: int, wanted: int) -> StoreError:
    return StoreError(
        f"get {key}: {came} bytes came back instead of {wanted}",
        operation="get",
        key=key,
        kind="short",
    )


def _chunks(start: int, end: int, size: int) -> tuple[int, int]:
    """The chunks that hold a range of the content: the first, and one past the last."""
    first = start // CHUNK
    return first, min(max(first + 1, -(-end // CHUNK)), chunk_count(size))


def _offset(chunk: int, size: int) -> int:
    """Where a chunk begins in an object, or the object ends."""
    return min(HEADER + chunk * (CHUNK + TAG), object_size(size))


def _write_sealed(sealed: Sealed, source: Path, path: Path) -> None:
    """Write the object of a file that nobody changes any more."""
    size = size_of(source)
    with source.open("rb") as file, path.open("xb") as out:
        out.write(sealed.header)
        for at in range(0, max(size, 1), _PIECE):
            piece = file.read(_PIECE)
            ends = at + _PIECE >= size
            out.write(sealed.seal(at // CHUNK, piece, ends=ends))
