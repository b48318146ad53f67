"""Durable, create-only files in local folders, and listings of them.

A file appears under its name complete and on disk, or not at all: written under a temporary
name, fsynced, given its time, *linked* to its name (which fails if that is taken; rename
would replace it), and then the folder is fsynced.

A failed fsync is never tried again on the same file, since the kernel has forgotten by then
what it could not write and would report success. Whoever retries writes a new file: after a
failure for a folder the name is taken out of it again, and a source for which it failed is
refused (``kind`` ``"source"``). Temporary names that a killed process left are swept when
they are old.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlitereplica.errors import StoreError

__all__ = ["create", "list_folder", "prepare", "settle", "subfolders", "sweep"]

_STALE_AFTER = 3600.0
_COPY_BYTES = 1 << 20


def create(path: Path, data: bytes | Path, *, mtime_ms: int) -> None:
    """Make ``path`` with these bytes and this mtime, durably.

    A ``Path`` as data is a complete file that nobody changes any more; it is linked where
    it is on the same filesystem, else copied.

    Raises:
        FileExistsError: the name is taken; nothing was changed.
        StoreError: ``kind`` ``"source"``: the file that is the data cannot be brought to
            disk, so its content is in doubt: it has to be made anew.
        OSError: as the operating system says; the name is free.
    """
    times = (mtime_ms * 1_000_000, mtime_ms * 1_000_000)
    if not (isinstance(data, Path) and _link_source(data, path, times)):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            _write(temporary, data, times)
            _name(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    try:
        _sync(path.parent)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def settle(path: Path) -> None:
    """Bring a file that is there to disk, and its name too.

    It may be from a process that was killed between the link and the last fsync.
    """
    _sync(path)
    _sync(path.parent)


def prepare(folder: Path, root: Path, mode: int = 0o777) -> None:
    """Make the folder of a level, and finish what an earlier process may have begun.

    That may have died between making a folder and the fsync that keeps it. ``mode`` are
    the permissions of the root and what is below.
    """
    _make_folder(root.parent)
    _make_folder(folder, mode)
    sweep(folder)
    for parent in (folder, *folder.parents):
        _sync(parent)
        if parent == root:
            break
    with suppress(PermissionError):  # whose name is there was not made by us, then
        _sync(root.parent)


def list_folder(folder: str, first: str = "") -> list[dict[str, Any]]:
    """The files in a folder, in fsspec's form; none if there is no folder.

    Only those with the name ``first`` or one behind it.

    Files come and go meanwhile (temporary ones all the time), which must not make the
    folder look empty.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name < first:
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # it is gone: not there any more
                if stat.S_ISREG(status.st_mode):
                    mtime = status.st_mtime_ns / 1e9
                    found.append(
                        {"name": entry.path, "size": status.st_size, "mtime": mtime}
                    )
    except FileNotFoundError:
        return []
    return found


def subfolders(folder: str) -> list[str]:
    """The names of the folders in a folder; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def sweep(folder: Path, now: float | None = None) -> None:
    """Remove temporary files of writers that died long ago."""
    oldest = (time.time() if now is None else now) - _STALE_AFTER
    for path in folder.glob(".*.tmp"):
        try:
            # ctime: mtime is that of the content.
            if path.stat().st_ctime < oldest:
                path.unlink()
        except FileNotFoundError:
            continue  # somebody else swept it


def _make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents; each new name is on disk when this returns."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, mode)
    try:
        folder.mkdir(mode)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file, not a folder") from None
        return  # another thread made it
    try:
        _sync(folder.parent)
    except OSError:
        folder.rmdir()
        raise


def _link_source(source: Path, path: Path, times: tuple[int, int]) -> bool:
    """Give a finished file its second name; False where links do not work."""
    os.utime(source, ns=times)
    try:
        _sync(source)
    except OSError as error:
        # Once more would succeed, and mean nothing: the kernel has given the pages up.
        raise StoreError(
            f"{source} cannot be brought to disk: {error}",
            operation="put",
            key=str(path),
            kind="source",
        ) from error
    try:
        os.link(os.path.realpath(source), path)
    except FileExistsError:
        raise
    except OSError:
        return False  # another filesystem, or one without links: copy instead
    return True


def _write(temporary: Path, data: bytes | Path, times: tuple[int, int]) -> None:
    with temporary.open("xb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            with data.open("rb") as source:
                while block := source.read(_COPY_BYTES):
                    file.write(block)
        file.flush()
        os.utime(file.fileno(), ns=times)
        os.fsync(file.fileno())


def _name(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        # A filesystem without hard links: the check and the rename are two steps there.
        if path.exists():
            raise FileExistsError(str(path)) from error
        temporary.rename(path)


def _sync(path: Path) -> None:
    """Fsync a file, or a folder: the names in it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
