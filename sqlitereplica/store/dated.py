"""Replicas that have a date in their place: finding those of earlier days, deleting the old.

A dated replica ends when its day does; from then on nothing is added to it. It may go when
all of its states are out of the window that retention keeps, and nobody pinned one. Only
files of a replica are deleted, newest first as by retention, so that what is left after a
crash is the shorter history that it was, and is deleted the next time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlitereplica.policy import Retention
from sqlitereplica.store.location import Location, locate, make_filesystem
from sqlitereplica.store.pins import pin_names
from sqlitereplica.store.replica import Replica
from sqlitereplica.store.store import LTXStore
from sqlitereplica.store.translate import secrets_in, translated

__all__ = ["delete_expired", "find_dated"]

_SIDES = ("sums",)


def find_dated(
    glob: str, form: str, storage_options: Mapping[str, Any] | None
) -> list[tuple[datetime, str]]:
    """List places by their dates: (naive date, URL), the oldest first.

    ``glob`` is a URL or folder that matches them, ``form`` the same as a format of
    ``strptime``.

    Raises:
        StoreError: The filesystem cannot be listed.
    """
    location = locate(glob, storage_options)
    pattern = locate(form).root.lstrip("/")
    with translated("list", location.name, secrets_in(location.options)):
        paths = make_filesystem(location).glob(location.root)
    found = []
    for path in map(str, paths):
        try:
            date = datetime.strptime(path.lstrip("/"), pattern)  # noqa: DTZ007
        except ValueError:
            continue  # something else of a similar name
        found.append((date, _url(location, path)))
    return sorted(found)


def _url(location: Location, path: str) -> str:
    if location.protocol == "file":
        return path
    return f"{location.protocol}://{path.lstrip('/').replace('%', '%25')}"


def delete_expired(
    replicas: Iterable[Replica], retention: Retention, now: datetime
) -> list[str]:
    """Delete replicas whose newest state is out of the window; return their names.

    To be called with those of earlier days only.

    Raises:
        StoreError: A store failed; some files may be deleted.
    """
    if not retention.delete:
        return []
    oldest = now.timestamp() * 1000 - retention.window_ms
    gone = []
    for replica in replicas:
        store = replica.open()
        files = store.list_all()
        if not files or pin_names(store):
            continue
        if max(file.timestamp for file in files) < oldest:
            _delete(store)
            gone.append(store.name)
    return gone


def _delete(store: LTXStore) -> None:
    files = store.list_all()
    store.delete(sorted(files, key=lambda f: (-f.max_txid, -f.min_txid, f.level)))
    for folder in _SIDES:
        store.delete_side(store.list_side(folder))
    if store.is_local:
        _remove_empty(Path(store.name))


def _remove_empty(root: Path) -> None:
    """Remove folders with nothing in them; what is not ours stays, and so its folder."""
    for folder, _, _ in os.walk(root, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            continue  # not empty
