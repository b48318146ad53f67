"""Credentials that change: asked for when a store is opened, and again when it refuses them.

The application's callable answers with options for the filesystem, such as ``key``,
``secret`` and ``token``. Nothing is asked ahead of time: when a server refuses what was given
last, the callable is asked, and if it answers with something else, the filesystem that
everybody holds becomes one with the new options, in place, and the request is made again.
Requests under way end with what they began with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fsspec import AbstractFileSystem

from sqlitereplica.errors import SQLiteReplicaError, StoreError

__all__ = ["Credentials", "Rotation"]

Credentials: TypeAlias = Callable[[], Mapping[str, Any]]
"""Answers with options for the filesystem; called in threads of the library."""


class Rotation:
    """The credentials of one store. Thread-safe."""

    def __init__(
        self,
        ask: Credentials,
        make: Callable[[Mapping[str, Any]], AbstractFileSystem],
        name: str,
    ) -> None:
        """``make`` makes a filesystem with these options; ``name`` is the store's."""
        self._ask, self._make, self._name = ask, make, name
        self._lock = threading.Lock()
        self._given: Mapping[str, Any] = {}
        self.version = 0
        """Counts the credentials that there were."""
        self.secrets: frozenset[str] = frozenset()
        """Every value that was given so far and that no message may show."""

    def open(self) -> AbstractFileSystem:
        """The filesystem, with the first credentials.

        Raises:
            StoreError: ``kind`` ``"credentials"``: the callable failed.
        """
        with self._lock:
            return self._made(self._next())

    def renew(self, fs: AbstractFileSystem, refused: int) -> bool:
        """Give ``fs`` other credentials than those of version ``refused``; False: none.

        Raises as ``open``.
        """
        with self._lock:
            if self.version != refused:
                return True  # somebody else has asked meanwhile
            before = self._given
            given = self._next()
            if given == before:
                self.version = refused
                return False
            fs.__dict__.update(self._made(given).__dict__)
            return True

    def _made(self, given: Mapping[str, Any]) -> AbstractFileSystem:
        fs = self._make(given)
        fs.rotation = self  # one of ours makes use of it (``s3.py``)
        return fs

    def _next(self) -> Mapping[str, Any]:
        given: object = None
        failure: Exception | None = None
        try:
            given = self._ask()
        except SQLiteReplicaError:
            raise
        except Exception as error:  # noqa: BLE001
            # Its text may hold what must not be shown, so it does not go further.
            failure = error
        if failure is not None or not isinstance(given, Mapping):
            what = type(failure or given).__name__
            why = "raised" if failure is not None else "returned no mapping but"
            raise StoreError(
                f"open {self._name}: the callable for credentials {why} {what}",
                operation="open",
                key=self._name,
                kind="credentials",
            )
        self._given = dict(given)
        self.version += 1
        self.secrets |= _values(given)
        return self._given


def _values(given: Mapping[str, Any]) -> frozenset[str]:
    """All text in the options: nobody gives anything here that is not a credential."""
    found: set[str] = set()
    for value in given.values():
        if isinstance(value, Mapping):
            found |= _values(value)
        elif isinstance(value, str):
            found.add(value)
    return frozenset(found)
