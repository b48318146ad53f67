"""``Replica``: one destination and how to reach it, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsspec import AbstractFileSystem

from sqlitereplica.durations import Duration
from sqlitereplica.policy import Retention
from sqlitereplica.store.credentials import Credentials
from sqlitereplica.store.encrypted import EncryptedStore
from sqlitereplica.store.encryption import Encryption
from sqlitereplica.store.location import locate
from sqlitereplica.store.pins import Pin, delete_pin, list_pins, put_pin
from sqlitereplica.store.store import LTXStore

__all__ = ["Replica"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One place to replicate to. A plain URL or folder is shorthand for it.

    Example:
        >>> Replica("s3://bucket/app", storage_options={"key": "...", "secret": "..."})
        Replica('s3://bucket/app')
    """

    url: str | os.PathLike[str] | AbstractFileSystem
    path: str | None = None
    """Folder below ``url``; needed when that is a filesystem."""
    storage_options: Mapping[str, Any] | None = None
    """Passed to fsspec: credentials, endpoint, anything the filesystem takes."""
    name: str | None = None
    """What it is called in status and logs; by default its URL without secrets."""
    retention: Retention | Duration | None = None
    """Which restore points stay here; by default the Replicator's. ``"30d"`` is a window."""
    credentials: Credentials | None = None
    """Answers with further storage options, such as ``key``, ``secret`` and ``token``. It is
    called when the store is opened, and again whenever the store refuses what it gave."""

    encryption: Encryption | None = None
    """Encrypt everything that is stored here; needs the extra ``crypto``."""

    def __post_init__(self) -> None:
        """Refuse at once what could never be opened."""
        Retention.of(self.retention)
        if not isinstance(self.url, AbstractFileSystem):
            locate(self.url, self.storage_options)
        elif self.path is None:
            raise ValueError(
                "a filesystem needs a folder: pass Replica(filesystem, path=...)"
            )
        elif self.storage_options or self.credentials:
            raise ValueError("storage_options are for a URL: this has its own")

    def __repr__(self) -> str:
        return f"Replica({self.display_name!r})"

    @property
    def display_name(self) -> str:
        """Its name, or its URL without secrets."""
        if self.name is not None:
            return self.name
        if isinstance(self.url, AbstractFileSystem):
            protocol = self.url.protocol
            first = protocol if isinstance(protocol, str) else protocol[0]
            return f"{first}://{self.path}"
        return locate(self.url, self.storage_options).below(self.path).name

    def open(self) -> LTXStore:
        """The store; no request is made.

        Raises:
            StoreError: the filesystem cannot be made, or ``cryptography`` is missing.
        """
        where: dict[str, Any] = {
            "path": self.path,
            "storage_options": self.storage_options,
            "credentials": self.credentials,
            "label": self.name,
        }
        if self.encryption is None:
            return LTXStore.open(self.url, **where)
        return EncryptedStore.open(self.url, encryption=self.encryption, **where)

    # -- pins ------------------------------------------------------------------------

    def pin(self, name: str, *, txid: int | None = None) -> Pin:
        """Keep one state from retention, under a name that ``restore(at=name)`` takes.

        Pinning the same state again under the same name changes nothing.

        Args:
            name: Up to 128 letters, digits, ``.``, ``_`` and ``-``; not a date.
            txid: The state after exactly this transaction; the newest by default.

        Raises:
            NotRestorableError: There is no such state; the nearest are named.
            PinExistsError: The name keeps another transaction.
            InvalidFileError: The name is taken by a pin that is damaged.
            StoreError: The store failed; whether it is pinned is unknown.
            ValueError: The name or the TXID cannot be one.
        """
        return put_pin(self.open(), name, txid)[0]

    def unpin(self, name: str) -> None:
        """Take a pin away: retention may then delete what it kept.

        Raises:
            NotRestorableError: ``kind`` is ``"pin"``: there is none of that name.
            StoreError: The store failed.
        """
        delete_pin(self.open(), name)

    def pins(self) -> list[Pin]:
        """All pins, by name.

        Raises:
            InvalidFileError: One is damaged.
            StoreError: The store failed.
        """
        return list_pins(self.open())
