"""``Encryption``: who can read a replica, as a value; and the keys, as texts.

A key is 32 bytes, written with a prefix that says what it is and a check at its end: a
recipient with a typing error would be a backup that nobody can ever read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlitereplica.errors import EncryptionError
from sqlitereplica.store.sealedform import SLOTS

if TYPE_CHECKING:
    from sqlitereplica.store.sealing import Identity, Recipient, SharedKey

__all__ = ["Encryption"]

_IDENTITY = "sqlitereplica-identity-"
_RECIPIENT = "sqlitereplica-recipient-"
_SHARED = "sqlitereplica-key-"
_KEY, _CHECK = 32, 4


@dataclass(frozen=True, slots=True)
class Encryption:
    """Encrypt a replica here, before anything leaves: ``Replica(url, encryption=...)``.

    Needs the extra ``crypto``. With ``recipients`` alone a host can write and cannot read:
    it then makes snapshots from the source, one at each start, and compacts nothing.

    Example:
        >>> key = Encryption.new_key()
        >>> Encryption(key=key)
        Encryption(writes for 1, reads with 1)
    """

    recipients: Sequence[str] = ()
    """Who can read what is written from now on; up to eight, with ``key``."""
    identities: Sequence[str] = field(default=(), repr=False)
    """What to read with, older ones too. Without recipients, the first is written for."""
    key: str | None = field(default=None, repr=False)
    """A shared key, to write and to read with."""
    old_keys: Sequence[str] = field(default=(), repr=False)
    """Earlier shared keys, to read with only."""

    def __post_init__(self) -> None:
        """Refuse at once what could never be used."""
        for name in ("recipients", "identities", "old_keys"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a list of texts, not one text")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for text in self.recipients:
            _parse(text, _RECIPIENT, "a recipient")
        for text in self.identities:
            _parse(text, _IDENTITY, "an identity")
        for text in (*self.old_keys, *([self.key] if self.key is not None else [])):
            _parse(text, _SHARED, "a key")
        if not (self.recipients or self.identities or self.key or self.old_keys):
            raise ValueError("Encryption needs recipients, identities or a key")
        if len(self.recipients) + (self.key is not None) > SLOTS:
            raise ValueError(f"there can be {SLOTS} recipients, a key counted as one")

    def __repr__(self) -> str:
        first = bool(self.identities) and not self.recipients and self.key is None
        writes = len(self.recipients) + (self.key is not None) + first
        reads = len(self.identities) + len(self.old_keys) + (self.key is not None)
        return f"Encryption(writes for {writes}, reads with {reads})"

    @property
    def can_read(self) -> bool:
        """False for a host that only writes."""
        return bool(self.identities or self.key is not None or self.old_keys)

    @staticmethod
    def new_identity() -> str:
        """Make a private key. Keep it secret, and never lose it."""
        return _text(_IDENTITY, secrets.token_bytes(_KEY))

    @staticmethod
    def recipient(identity: str) -> str:
        """The public key of an identity, for those who write.

        Raises:
            ValueError: the text is no identity.
            EncryptionError: ``cryptography`` is not installed.
        """
        private = _parse(identity, _IDENTITY, "an identity")
        _require_cryptography()
        from sqlitereplica.store.sealing import public_key

        return _text(_RECIPIENT, public_key(private))

    @staticmethod
    def new_key() -> str:
        """Make a shared key. Keep it secret, and never lose it."""
        return _text(_SHARED, secrets.token_bytes(_KEY))

    def writers(self) -> list[Recipient | SharedKey]:
        """For whom to seal.

        Raises:
            EncryptionError: only old keys were given, or ``cryptography`` is missing.
        """
        _require_cryptography()
        from sqlitereplica.store.sealing import Recipient, SharedKey, public_key

        found: list[Recipient | SharedKey] = [
            Recipient(_parse(text, _RECIPIENT, "")) for text in self.recipients
        ]
        if self.key is not None:
            found.append(SharedKey(_parse(self.key, _SHARED, "")))
        if not found and self.identities:
            private = _parse(self.identities[0], _IDENTITY, "")
            found.append(Recipient(public_key(private)))
        return found

    def readers(self) -> list[Identity | SharedKey]:
        """What to open with; raises as ``writers``."""
        _require_cryptography()
        from sqlitereplica.store.sealing import Identity, SharedKey

        keys = ([self.key] if self.key is not None else []) + list(self.old_keys)
        return [
            *(SharedKey(_parse(text, _SHARED, "")) for text in keys),
            *(Identity(_parse(text, _IDENTITY, "")) for text in self.identities),
        ]


def _require_cryptography() -> None:
    try:
        from sqlitereplica.store.sealing import public_key  # noqa: F401
    except ImportError as error:
        raise EncryptionError(
            "encryption needs the package cryptography: install sqlitereplica[crypto]",
            kind="package",
        ) from error


def _text(prefix: str, key: bytes) -> str:
    checked = key + _check(prefix, key)
    return prefix + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def _parse(text: str, prefix: str, what: str) -> bytes:
    """The bytes of a key; no error shows any of the text, which may be a secret."""
    if not text.startswith(prefix):
        raise ValueError(f"{what} must begin with {prefix!r}")
    try:
        checked = base64.b64decode(text[len(prefix) :] + "=" * 4, "-_", validate=False)
    except (binascii.Error, ValueError):
        checked = b""
    key = checked[:_KEY]
    if len(checked) != _KEY + _CHECK or _text(prefix, key) != text:
        raise ValueError(f"{what} is not complete, or has a typing error")
    return key


def _check(prefix: str, key: bytes) -> bytes:
    return hashlib.sha256(prefix.encode() + key).digest()[:_CHECK]
