"""Where a restored database goes: a temporary file, and its way to its name.

Invariants, at any instant and after a crash at any instant:

* Under the name there is nothing, the old database with its own WAL and journal, or the
  new one whole, on disk and alone. A new database beside an old WAL would be
  corrupted by the first connection, which replays the WAL into it.
* What was not to be overwritten is not, even if it comes into being meanwhile: several
  workers of one application may restore at the same time, and the one that is first
  may already write. Hence a hard link, which fails where a rename would overwrite.
* No descriptor of the new file is closed once it has its name: that would drop the locks
  of a connection that this process has opened in between.
* An old database that is to be kept is whole at any instant, under one name (``aside``).

A temporary file that a killed restore left is removed by the next one to that path. A
living one holds a ``flock``; as the lock ends shortly before the file gets its name,
files changed in the last minute count as living too.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from array import array
from datetime import UTC, datetime
from io import FileIO
from itertools import count
from typing import Literal, Self, TypeAlias

from sqlitereplica.errors import TargetExistsError
from sqlitereplica.restore.aside import (
    NO_HARD_LINKS,
    Aside,
    refuse_taken,
    sync_directory,
)
from sqlitereplica.restore.busy import SIDECARS, refuse_if_open
from sqlitereplica.restore.mark import write_mark
from sqlitereplica.restore.oldcopy import OldCopy, page_sums
from sqlitereplica.restore.pagefile import PageFile, try_lock
from sqlitereplica.store import Writeback

__all__ = ["IfExists", "KeepOld", "Scratch", "Target"]

IfExists = Literal["error", "skip", "replace"]
KeepOld: TypeAlias = bool | str | os.PathLike[str]

_STALE_SECONDS = 60


class Target:
    """The path to restore to. An empty file there counts as none, as for Litestream."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        if_exists: IfExists,
        keep_old: KeepOld = False,
    ) -> None:
        """Follow symbolic links: SQLite keeps a database's WAL beside the real file.

        Raises:
            ValueError: ``keep_old`` makes no sense with these, or the path is none.
        """
        text = os.fspath(path)
        if not isinstance(text, str):
            raise ValueError(f"path must be text, not bytes: {text!r}")
        if text in ("", ":memory:") or text.startswith("file:"):
            raise ValueError(f"path must be that of a database file: {text!r}")
        self.path = os.path.realpath(path)
        self.directory, self.name = os.path.split(self.path)
        self.if_exists = if_exists
        self.kept: str | None = None
        """Where the replaced database is, once it is."""
        self._keep = keep_old is not False
        self._keep_as = None if isinstance(keep_old, bool) else _absolute(keep_old)
        if self._keep and if_exists != "replace":
            raise ValueError("keep_old is for if_exists='replace'")
        own = (self.path, *(self.path + suffix for suffix in SIDECARS))
        if self._keep_as in own:
            raise ValueError(f"keep_old={self._keep_as!r} is the database itself")

    def is_kept(self) -> bool:
        """Tell whether the existing database stays, for ``if_exists="skip"``.

        Raises:
            TargetExistsError: Something is there that may not be replaced.
            DatabaseStateError: What would be replaced is in use.
        """
        if self._has_database() and self.if_exists == "skip":
            return True
        if self.if_exists == "error":
            self._refuse_existing()
        else:
            refuse_if_open(self.path)
            self._refuse_keeping()
        return False

    def old_copy(self) -> OldCopy | None:
        """Return the database that is to be replaced, opened to be read, if there is one.

        Raises:
            UnfitCopyError: It cannot be opened.
        """
        replaced = self.if_exists == "replace" and self._has_database()
        return OldCopy(self.path) if replaced else None

    def is_alone(self) -> bool:
        """Tell whether the database has no sidecars; it is not open then.

        Raises:
            DatabaseStateError: It has been opened.
        """
        refuse_if_open(self.path)
        return not self._sidecars()

    def scratch(self, mode: int = 0o666) -> Scratch:
        """Return a new temporary file beside the path; its folder is made if needed.

        ``mode`` are its permissions where it replaces nothing, less the umask.
        """
        _make_directory(self.directory)
        stale = re.compile(rf"\.{re.escape(self.name)}\.[0-9a-f]{{16}}\.tmp")
        second = re.compile(rf"(\.{re.escape(self.name)}\.[0-9a-f]{{16}}\.old)-[a-z]+")
        entries = set(os.listdir(self.directory))
        for entry in entries:
            path = os.path.join(self.directory, entry)
            if stale.fullmatch(entry):
                _remove_if_stale(path)
            elif (match := second.fullmatch(entry)) and match[1] not in entries:
                _remove_second_name(path)
        old = self._old_status()
        # Never readable by more users than the database that it replaces.
        mode = mode if old is None else stat.S_IMODE(old.st_mode)
        try:
            return Scratch(self.directory, self.name, mode)
        except PermissionError as error:
            why = "this user may not make a file in the folder"
            raise PermissionError(error.errno, why, self.directory) from error

    def publish(self, scratch: Scratch) -> bool:
        """Give a finished file its name; False if ``"skip"`` finds a database there.

        Raises:
            TargetExistsError: Something came into being that may not be replaced.
            DatabaseStateError: What would be replaced has been opened.
        """
        if self.if_exists == "replace":
            refuse_if_open(self.path)
            old = self._old_status()
            if old is not None:
                scratch.adopt(old)
            scratch.close()
            self._replace(scratch)
            return True
        if self.if_exists == "error":
            self._refuse_existing()
        scratch.close()
        return self._create(scratch)

    def _has_database(self) -> bool:
        """Tell whether a file with content is there."""
        status = self._old_status()
        if status is None:
            return False
        if not stat.S_ISREG(status.st_mode):
            raise TargetExistsError(self.path, f"{self.path} is not a regular file")
        return status.st_size > 0

    def _refuse_existing(self) -> None:
        if self._has_database():
            raise TargetExistsError(self.path)
        for sidecar in self._sidecars():
            raise TargetExistsError(
                sidecar,
                f"{sidecar} is left of a database that was {self.name}: it would corrupt"
                " the restored one. Pass if_exists='replace' to remove it.",
            )

    def _sidecars(self) -> list[str]:
        paths = [self.path + suffix for suffix in SIDECARS]
        return [path for path in paths if os.path.lexists(path)]

    def _create(self, scratch: Scratch) -> bool:
        """Name the file unless a database is there."""
        if self.if_exists == "skip":
            # Listed before the look at the database: only what has lost it, and what
            # SQLite itself would delete, not the WAL of one that was just made.
            orphans = self._sidecars()
            if self._has_database():
                return False
            for orphan in orphans:
                os.unlink(orphan)
            sync_directory(self.directory)
        try:
            os.link(scratch.path, self.path)
            os.unlink(scratch.path)
        except FileExistsError:
            if self._has_database():
                if self.if_exists == "skip":
                    return False
                raise TargetExistsError(self.path) from None
            refuse_if_open(self.path)
            os.replace(scratch.path, self.path)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            os.replace(scratch.path, self.path)
        sync_directory(self.directory)
        return True

    def _replace(self, scratch: Scratch) -> None:
        """Put the file in the place of the old database and its sidecars.

        Without sidecars one rename does it. With them no order of renames does, as a WAL
        belongs to whatever file has the name. Removing the WAL first would for a moment
        show the old database without its last transactions, or torn, if a checkpoint
        was interrupted. So the old database goes first, and with it what makes the WAL
        dangerous: a WAL without a database SQLite deletes. It gets a name under which it
        remains a valid database until the new one is in place, and longer if it is kept;
        after a crash in between it stays there, being all there is of it.
        """
        keep = self._keep and self._has_database()
        if not keep and not self._sidecars():
            os.replace(scratch.path, self.path)
            sync_directory(self.directory)
            return
        aside = Aside(self.path, scratch.path.removesuffix(".tmp") + ".old")
        try:
            if keep:
                aside = self._claim_name()
            aside.move()
            os.replace(scratch.path, self.path)
        except BaseException:
            if os.path.lexists(scratch.path):  # the new one is not in place
                aside.back()
            raise
        sync_directory(self.directory)
        if keep:
            self.kept = aside.away
        else:
            aside.drop()

    def _claim_name(self) -> Aside:
        """Find a name for a database that is kept, and take it."""
        if self._keep_as is not None:
            _make_directory(os.path.dirname(self._keep_as))
            aside = Aside(self.path, self._keep_as)
            aside.claim()
            return aside
        name = f"{self.path}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        for number in count(1):
            aside = Aside(self.path, name if number == 1 else f"{name}-{number}")
            try:
                aside.claim()
            except TargetExistsError:
                continue
            return aside
        raise AssertionError("numbers do not end")

    def _refuse_keeping(self) -> None:
        """Refuse a name for the old database that is taken, or on another disk."""
        if self._keep_as is None or not self._has_database():
            return
        refuse_taken(self._keep_as)
        folder = os.path.dirname(self._keep_as)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        if os.stat(folder).st_dev != os.stat(self.directory).st_dev:
            raise ValueError(
                f"keep_old={self._keep_as!r} is not on the filesystem of {self.path}: the"
                " old database is renamed, not copied"
            )

    def _old_status(self) -> os.stat_result | None:
        try:
            return os.stat(self.path)
        except FileNotFoundError:
            return None


class Scratch(PageFile):
    """A temporary file that becomes a database; a context manager that removes it."""

    def __init__(self, directory: str, name: str, mode: int) -> None:
        """Create the file, with these permissions but for the umask."""
        path = os.path.join(directory, f".{name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, flag, 0)
        super().__init__(path, FileIO(os.open(path, flags, mode), "r+"))
        self._writeback = Writeback(self._file.fileno())
        try_lock(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writeback.wait()
        self._file.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass  # it has become the database

    def write(self, offset: int, pages: list[bytes]) -> None:
        """Write neighbouring pages."""
        self._writeback.wrote(sum(map(len, pages)))
        super().write(offset, pages)

    def copy(self, old: OldCopy, size: int) -> None:
        """Begin with the first ``size`` bytes of another file, or all that it has.

        Raises:
            UnfitCopyError: It cannot be read.
        """
        old.copy_into(self._file.fileno(), size, self._writeback.wrote)

    def has_pages(self, page_size: int, sums: array[int]) -> bool:
        """Tell whether the pages that were written have these checksums."""
        at = 0
        for block in page_sums(self._file.fileno(), page_size, len(sums)):
            if block != sums[at : at + len(block)]:
                return False
            at += len(block)
        return at == len(sums)

    def mark(self, mark: bytes) -> None:
        """Note on the file what it is, where that can be done."""
        write_mark(self._file.fileno(), mark)

    def finish(self, size: int) -> None:
        """Make the file ``size`` bytes long and durable."""
        self.resize(size)
        self._writeback.finish()

    def adopt(self, status: os.stat_result) -> None:
        """Take over the permissions of another file, and its owner if we may."""
        if hasattr(os, "fchmod"):
            os.fchmod(self._file.fileno(), stat.S_IMODE(status.st_mode))
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            os.fchown(self._file.fileno(), status.st_uid, status.st_gid)

    def close(self) -> None:
        """Close the file, which is about to get its name."""
        os.utime(self.path)
        self._file.close()


def _remove_if_stale(path: str) -> None:
    """Remove a temporary file of a restore that was killed."""
    try:
        status = os.lstat(path)
        age = time.time() - status.st_mtime
        if age < _STALE_SECONDS or not stat.S_ISREG(status.st_mode):
            return
        # With two links it has become a database, which we must not open and close.
        if status.st_nlink == 1:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if not try_lock(fd):
                    return
            finally:
                os.close(fd)
        os.unlink(path)
    except (FileNotFoundError, PermissionError):
        return  # its restore has ended meanwhile, or is another user's


def _remove_second_name(path: str) -> None:
    """Remove what a killed restore left: a second name of a WAL that is in its place."""
    try:
        status = os.lstat(path)
        # A new name is a change of the file, so that this is the age of the name.
        if time.time() - max(status.st_mtime, status.st_ctime) >= _STALE_SECONDS:
            os.unlink(path)
    except (FileNotFoundError, PermissionError):
        return  # its restore has ended meanwhile, or is another user's


def _make_directory(directory: str) -> None:
    """Make a folder and those above it, durably."""
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    _make_directory(parent)
    os.makedirs(directory, exist_ok=True)
    sync_directory(parent)


def _absolute(path: str | os.PathLike[str]) -> str:
    """Return the path with the links of its folder followed, not its own."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)
