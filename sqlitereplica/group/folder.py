"""Which databases a folder has: names only, nothing is opened.

A file is one by its name: it matches the pattern, does not begin with a dot (such are ours,
and other programs' temporary ones) and is none of SQLite's ``-wal``, ``-shm``, ``-journal``.
Whether there is a database in it SQLite tells when it is opened. Links to files count,
links to folders are not followed. A folder whose own time has not changed since it was
listed is not listed again; unless that was so recently that the time may stay the same.
"""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlitereplica.errors import DatabaseStateError

__all__ = ["Folder", "Listing"]

_SIDECARS = ("-wal", "-shm", "-journal")
_FRESH = 2_500_000_000


@dataclass(slots=True)
class Listing:
    """What one look found."""

    names: list[str] = field(default_factory=list)
    """Paths below the folder, of folders that were listed now."""
    errors: dict[str, Exception] = field(default_factory=dict)
    """What cannot be looked at, and why."""


class Folder:
    """Lists a folder again and again. One thread at a time."""

    def __init__(
        self,
        path: str,
        pattern: str,
        *,
        recursive: bool,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path, self._recursive, self._now = path, recursive, now
        # Litestream's patterns negate by "^", as regular expressions do.
        translated = fnmatch.translate(pattern.replace("[^", "[!"))
        self._matches = re.compile(translated).match
        self._listed: dict[str, int] = {}
        """The times of folders that need not be listed again; '' is the folder itself."""
        self._below: dict[str, list[str]] = {}
        self._seen: list[str] = []

    def has_name(self, rel: str) -> bool:
        """Whether a file of that path below the folder would be one of its databases."""
        *folders, name = rel.split("/")
        if any(part.startswith(".") for part in (*folders, name)):
            return False
        return self._is_name(name) and (self._recursive or not folders)

    def _is_name(self, name: str) -> bool:
        return self._matches(name) is not None and not name.endswith(_SIDECARS)

    @property
    def folders(self) -> list[str]:
        """All folders that the last look went through, by their paths below this one.

        Another list after each look; the same one is never changed.
        """
        return self._seen

    def look(self) -> Listing:
        """The databases of all folders that changed since the last look."""
        found = Listing()
        waiting, seen = [""], list[str]()
        while waiting:
            rel = waiting.pop()
            seen.append(rel)
            try:
                waiting += self._one(rel, found)
            except FileNotFoundError as error:
                self._forget(rel)
                if not rel:
                    found.errors[rel] = error
            except OSError as error:
                self._forget(rel)
                found.errors[rel] = error
        self._seen = seen
        return found

    def _forget(self, rel: str) -> None:
        self._listed.pop(rel, None)
        self._below.pop(rel, None)

    def _one(self, rel: str, found: Listing) -> list[str]:
        """List one folder, if need be; returns those in it."""
        path = f"{self._path}/{rel}" if rel else self._path
        mtime = os.stat(path).st_mtime_ns
        if self._listed.get(rel) == mtime:
            return self._below[rel]
        now, errors = self._now(), len(found.errors)
        below = list(self._entries(rel, path, found))
        self._forget(rel)
        if now - mtime > _FRESH and len(found.errors) == errors:
            self._listed[rel], self._below[rel] = mtime, below
        return below

    def _entries(self, rel: str, path: str, found: Listing) -> Iterator[str]:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = f"{rel}/{entry.name}" if rel else entry.name
                if self._recursive and entry.is_dir(follow_symlinks=False):
                    yield name
                elif self._is_name(entry.name):
                    self._file(entry, name, found)

    def _file(self, entry: os.DirEntry[str], name: str, found: Listing) -> None:
        try:
            if entry.is_file():
                found.names.append(name)
            elif entry.is_symlink() and not entry.is_dir():
                found.errors[name] = DatabaseStateError(
                    f"{entry.path} is a link to nothing", path=entry.path, kind="link"
                )
        except OSError as error:  # a link that leads around in a circle
            found.errors[name] = error
