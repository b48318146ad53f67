"""Which replicas there are below a place: by listing folders, not files.

A fleet may have a hundred thousand replicas with thousands of files each, so only names of
folders are asked for, several folders at a time: one request for each folder on the way,
and one or two more to be sure of a replica. What tells it is a folder of a level, with a
file of ours in it where the name alone could be anything (``0001`` on S3, where also an
application may have numbered its databases).

Below a replica it goes on, except in folders that belong to it: a replica at the top of a
bucket may have others beside its levels. Names are hostile: what is no part of a path is
passed over. Links in local folders may lead in a circle, so no folder is looked at twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlitereplica.ltx import MAX_LEVEL
from sqlitereplica.store import local
from sqlitereplica.store.generations import is_generation
from sqlitereplica.store.replica import Replica
from sqlitereplica.store.store import LTXStore

__all__ = ["find_replicas"]

_AT_ONCE = 16
_OF_A_REPLICA = frozenset({"generations", "lock", "ltx", "pins", "sums"})


def find_replicas(
    where: str | os.PathLike[str] | Replica,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Replica]:
    """Find the replicas at a place and below it; those of Litestream 0.3 as well.

    They come while it is being listed, in no order to rely on. Each has the options,
    credentials and encryption of ``where``; no key is needed to find them.

    Args:
        where: A URL, a folder, or a ``Replica`` that stands for a prefix.
        storage_options: For the filesystem of a URL.

    Raises:
        StoreError: A folder cannot be listed; what is in it is not known.
        ValueError: That cannot be a place.
    """
    if not isinstance(where, Replica):
        where = Replica(where, storage_options=storage_options)
    elif storage_options is not None:
        raise ValueError("storage_options are for a URL: a Replica has its own")
    tree = _Tree.open(
        where.url,
        path=where.path,
        storage_options=where.storage_options,
        credentials=where.credentials,
    )
    return (_below(where, folder) for folder in tree.find())


def _below(where: Replica, folder: str) -> Replica:
    if not folder:
        return where
    path = f"{where.path.rstrip('/')}/{folder}" if where.path else folder
    name = None if where.name is None else f"{where.name}/{folder}"
    return replace(where, path=path, name=name)


class _Tree(LTXStore):
    """The folders at a place. Names of folders are relative to it; ``""`` is itself."""

    def find(self) -> Iterator[str]:
        """The folders that are replicas."""
        waiting, seen = [""], set[str]()
        with self._pool() as pool:
            while waiting:
                # From the end: the list never has more than the folders beside the way.
                batch = [waiting.pop() for _ in range(min(_AT_ONCE, len(waiting)))]
                batch = [f for f in batch if self._is_new(f, seen)]
                below: list[str] = []
                for folder, (found, names) in zip(
                    batch, pool.map(self._look, batch), strict=True
                ):
                    if found:
                        yield folder
                    below += (f"{folder}/{name}".lstrip("/") for name in names)
                waiting += reversed(below)

    def _is_new(self, folder: str, seen: set[str]) -> bool:
        if not self.is_local:
            return True
        real = os.path.realpath(self._path(folder))
        is_new = real not in seen
        seen.add(real)
        return is_new

    def _look(self, folder: str) -> tuple[bool, Sequence[str]]:
        """Whether a folder is a replica, and the folders in it that may be others."""
        names = self._names(folder)
        found = self._is_replica(folder, names)
        if found:
            own = {*_OF_A_REPLICA, *self._levels()}
            names = [name for name in names if name not in own]
        return found, sorted(name for name in names if name not in ("", ".", ".."))

    def _is_replica(self, folder: str, names: Sequence[str]) -> bool:
        if self._layout.hexadecimal:
            # At the top of a bucket the keys of 0.5 begin with "./".
            inner = f"{folder}/.".lstrip("/") if "." in names and not folder else folder
            levels = names if inner == folder else self._names(inner)
            if any(self._has_files(inner, level) for level in self._levels(levels)):
                return True
        elif "ltx" in names and self._levels(self._names(f"{folder}/ltx")):
            return True
        if "generations" not in names:
            return False
        return any(map(is_generation, self._names(f"{folder}/generations")))

    def _levels(self, among: Sequence[str] | None = None) -> list[str]:
        """Names of the folders of levels, the highest first: it has the fewest files."""
        paths = [self._layout.level_path("", level) for level in range(MAX_LEVEL + 1)]
        names = [path.rpartition("/")[2] for path in reversed(paths)]
        return [name for name in names if among is None or name in among]

    def _has_files(self, folder: str, level: str) -> bool:
        root = self._path(folder)
        path = f"{root}/{level}"
        entries = self._run("list", path, lambda: self._remote.list_level(root, path))
        return bool(self._layout.files(root, entries))

    def _names(self, folder: str) -> list[str]:
        """The names of the folders in a folder."""
        path = self._path(folder.strip("/"))
        tree = local if self.is_local else self._remote
        return self._run("list", path, lambda: tree.subfolders(path))

    def _path(self, folder: str) -> str:
        root = self._root.removesuffix("/.")
        return f"{root.rstrip('/')}/{folder}" if folder else root
