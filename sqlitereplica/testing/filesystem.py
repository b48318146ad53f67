"""``FaultyFileSystem``: a real filesystem that fails and lies as planned.

It wraps any fsspec filesystem, writes down every operation, and asks its plan what is to go
wrong with it. Operations happen one at a time, so that numbers mean the same in every run.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.callbacks import NoOpCallback

from sqlitereplica.testing.faults import Fault, Kind, Operation, Plan

__all__ = ["FaultyFileSystem", "InjectedError", "Record"]

T = TypeVar("T")

_FOREIGN = (
    "notes.txt",
    "0000000000000001-0000000000000002.ltx.tmp",
    "../../escape.ltx",
)


class InjectedError(ConnectionError):
    """The failure of an operation, because the plan said so."""


@dataclass(frozen=True, slots=True)
class Record:
    """One operation as it went.

    ``digest`` is the SHA-256 of what was written, "" for other operations; ``size`` the
    number of bytes written or given back.
    """

    operation: Operation
    fault: Fault | None
    size: int = 0
    digest: str = ""


class FaultyFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A filesystem around another one, with faults.

    Set ``plan`` at any time; None heals it. ``log`` has what was done. ``overwritten``
    names the files that ever held two contents: a replica has none.

    Example:
        >>> from fsspec.implementations.memory import MemoryFileSystem
        >>> fs = FaultyFileSystem(MemoryFileSystem(), plan=at(3, Fault.AFTER))
        >>> store = LTXStore.open(fs, path="replica")

    Args:
        fs: The filesystem that does the work.
        plan: What goes wrong.
        protocol: What it claims to be; by default what ``fs`` is. Local files are always
            claimed to be remote, since a store goes to the disk by itself otherwise.
    """

    cachable = False
    protocol = "faulty"

    def __init__(
        self,
        fs: AbstractFileSystem,
        *,
        plan: Plan | None = None,
        protocol: str | None = None,
    ) -> None:
        super().__init__(use_listings_cache=False)
        inner = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        self.protocol = protocol or ("faulty" if inner in ("file", "local") else inner)
        self.root_marker = fs.root_marker
        self.fs = fs
        self.plan = plan
        self.log: list[Record] = []
        self.contents: dict[str, list[str]] = {}
        self._now: dict[str, str] = {}
        self._count = 0
        self._turn = threading.RLock()
        self._strip_protocol = fs._strip_protocol

    def heal(self) -> None:
        """Let everything succeed from now on."""
        self.plan = None

    @property
    def count(self) -> int:
        """The number of operations until now."""
        return self._count

    @property
    def overwritten(self) -> set[str]:
        """Names under which two different contents have been, even one after another."""
        return {path for path, digests in self.contents.items() if len(digests) > 1}

    # -- the operations --------------------------------------------------------------

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """List a folder."""
        options.pop("refresh", None)

        def list_it() -> list[Mapping[str, Any]]:
            self.fs.invalidate_cache()
            return list(self.fs.ls(path, detail=True))

        entries = self._list(path, list_it)
        return entries if detail else [entry["name"] for entry in entries]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **options: Any,
    ) -> Any:
        """List everything below a folder. In order, without repetition: it is a dict."""

        def list_it() -> list[Mapping[str, Any]]:
            self.fs.invalidate_cache()
            settings = {"maxdepth": maxdepth, "withdirs": withdirs, **options}
            return list(self.fs.find(path, detail=True, **settings).values())

        found = {str(e["name"]): e for e in self._list(path, list_it)}
        return found if detail else list(found)

    def info(self, path: str, **options: Any) -> Any:
        """Describe one file."""
        return self._do("info", path, lambda _: self.fs.info(path, **options))

    def cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        **options: Any,
    ) -> bytes:
        """Read a file or a range of it."""

        def read(fault: Fault | None) -> bytes:
            source = self._other_than(path) if fault is Fault.OTHER else path
            data = bytes(self.fs.cat_file(source, start=start, end=end, **options))
            return _damaged(data, fault)

        return self._do("read", path, read, size=len)

    def pipe_file(
        self, path: str, value: bytes, mode: str = "overwrite", **options: Any
    ) -> Any:
        """Write a file."""

        def write(fault: Fault | None) -> Any:
            data = value[: len(value) // 2] if fault is Fault.TORN else bytes(value)
            done = self.fs.pipe_file(path, data, mode=mode, **options)
            self._wrote(path, data)
            return done

        return self._do("write", path, write, data=bytes(value))

    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Any = None,
        mode: str = "overwrite",
        **options: Any,
    ) -> None:
        """Write a file that is a local one."""
        data = Path(lpath).read_bytes()

        def write(fault: Fault | None) -> None:
            if fault is Fault.TORN:
                self.fs.pipe_file(rpath, data[: len(data) // 2], mode=mode)
                self._wrote(rpath, data[: len(data) // 2])
                return
            options["callback"] = callback or NoOpCallback()
            self.fs.put_file(lpath, rpath, mode=mode, **options)
            self._wrote(rpath, data)

        self._do("write", rpath, write, data=data)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy a file: a write, of what the other one holds."""
        data = bytes(self.fs.cat_file(path1))

        def write(fault: Fault | None) -> None:
            part = data[: len(data) // 2] if fault is Fault.TORN else data
            self.fs.pipe_file(path2, part)
            self._wrote(path2, part)

        self._do("write", path2, write, data=data)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        """Rename a file."""

        def rename(_: Fault | None) -> None:
            self.fs.mv(path1, path2, **options)
            self._holds(path2, self._now.pop(self._strip_protocol(path1), "?"))

        self._do("rename", path2, rename)

    def rm_file(self, path: str) -> None:
        """Delete a file."""

        def delete(_: Fault | None) -> None:
            self.fs.rm_file(path)
            self._now.pop(self._strip_protocol(path), None)

        self._do("delete", path, delete)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder and its parents."""
        self._do("folder", path, lambda _: self.fs.makedirs(path, exist_ok=exist_ok))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        if mode != "rb":
            raise ValueError("files of a FaultyFileSystem are written by pipe_file")
        return io.BytesIO(self.cat_file(path))

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget listings; not an operation, since nothing is asked."""
        self.fs.invalidate_cache(path)

    # -- faults ----------------------------------------------------------------------

    def _do(
        self,
        kind: Kind,
        path: str,
        action: Callable[[Fault | None], T],
        *,
        size: Callable[[T], int] | None = None,
        data: bytes | None = None,
    ) -> T:
        """Do an operation as planned, and write it down however it goes."""
        with self._turn:
            self._count += 1
            operation = Operation(self._count, kind, self._strip_protocol(path))
            fault = self.plan(operation) if self.plan is not None else None
            digest = "" if data is None else hashlib.sha256(data).hexdigest()
            count = 0 if data is None else len(data)
            try:
                if fault is Fault.BEFORE:
                    raise InjectedError(
                        f"{kind} {path}: not done (operation {self._count})"
                    )
                result = action(fault)
                count = count if size is None else size(result)
                if fault is Fault.AFTER or (fault is Fault.TORN and kind == "write"):
                    raise InjectedError(f"{kind} {path}: {fault.value} ({self._count})")
                return result
            finally:
                self.log.append(Record(operation, fault, count, digest))

    def _list(
        self, path: str, action: Callable[[], Iterable[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]]:
        def list_it(fault: Fault | None) -> list[Mapping[str, Any]]:
            return _distorted(list(action()), fault)

        return self._do("list", path, list_it, size=len)

    def _other_than(self, path: str) -> str:
        own = self._strip_protocol(path)
        return next((other for other in reversed(self._now) if other != own), path)

    def _wrote(self, path: str, data: bytes) -> None:
        self._holds(path, hashlib.sha256(data).hexdigest())

    def _holds(self, path: str, digest: str) -> None:
        path = self._strip_protocol(path)
        self._now[path] = digest
        known = self.contents.setdefault(path, [])
        if digest not in known:
            known.append(digest)


def _damaged(data: bytes, fault: Fault | None) -> bytes:
    match fault:
        case Fault.SHORT:
            return data[: len(data) // 2]
        case Fault.EMPTY:
            return b""
        case Fault.FLIPPED if data:
            middle = len(data) // 2
            return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        case _:
            return data


def _distorted(
    entries: list[Mapping[str, Any]], fault: Fault | None
) -> list[Mapping[str, Any]]:
    entries = sorted(entries, key=lambda entry: str(entry["name"]))
    match fault:
        case Fault.OMITTED:
            files = [e for e in entries if e["type"] == "file"]
            return [e for e in entries if not files or e is not files[-1]]
        case Fault.EMPTY:
            return []
        case Fault.DUPLICATED:
            return [*entries, *entries]
        case Fault.REVERSED:
            return entries[::-1]
        case Fault.FOREIGN if entries:
            folder = str(entries[0]["name"]).rpartition("/")[0]
            strange = [f"{folder}/{name}" for name in _FOREIGN]
            return [*entries, *({**entries[0], "name": name} for name in strange)]
        case _:
            return entries
