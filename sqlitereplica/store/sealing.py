"""Encrypted objects: content in, object out, and back. Pure but for the randomness given.

Theory. Each object has a random *data key*. It is wrapped once for each recipient, in a slot
of the header: with a key that only the holder of the recipient's private key (X25519 with
the share in the header) or of the shared key can derive. The content is cut into chunks,
each sealed with ChaCha20-Poly1305 under the data key. The nonce is the number of the chunk
and whether it is the last one, so chunks cannot be cut off, repeated, moved or added. What
is authenticated with each chunk is a digest of the header and of the object's name: another
header, or the object under another name, opens nothing.

No nonce is used twice: data keys and wrapping keys serve one object only.

What it does not give: whoever knows a public key can make objects for it. Only a shared key
proves who wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sqlitereplica.errors import EncryptionError, TamperedError
from sqlitereplica.store.sealedform import (
    CHUNK,
    HEADER,
    MAGIC,
    SLOTS,
    TAG,
    chunk_count,
    is_sealed,
)

__all__ = [
    "SEED",
    "Identity",
    "Recipient",
    "Sealed",
    "SharedKey",
    "new_object",
    "open_header",
    "open_object",
    "public_key",
]

SEED = 64
"""Bytes of randomness that one object needs."""
_KEY = 32
_ID = 8
_SLOT = _ID + _KEY + TAG
_SHARE_AT = len(MAGIC)
_SLOTS_AT = _SHARE_AT + _KEY
_NO_SLOT = bytes(_SLOT)


def _derive(secret: bytes, salt: bytes, purpose: bytes, length: int = _KEY) -> bytes:
    info = b"sqlitereplica " + purpose
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def public_key(private: bytes) -> bytes:
    """The public key of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who can read: an X25519 public key."""

    public: bytes

    @property
    def id(self) -> bytes:
        """What its slot begins with."""
        return hashlib.sha256(b"sqlitereplica recipient" + self.public).digest()[:_ID]

    def wrapping(self, ephemeral: X25519PrivateKey, share: bytes) -> bytes:
        """The key that wraps the data key of the object with this share."""
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.public))
        return _derive(secret, share + self.public, b"x25519")


@dataclass(frozen=True, slots=True)
class Identity:
    """An X25519 private key, which opens what is for its public key."""

    private: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        """What its slot begins with."""
        return Recipient(public_key(self.private)).id

    def unwrapping(self, share: bytes) -> bytes:
        """The key that unwraps; ValueError for a share that is no public key."""
        private = X25519PrivateKey.from_private_bytes(self.private)
        secret = private.exchange(X25519PublicKey.from_public_bytes(share))
        return _derive(secret, share + public_key(self.private), b"x25519")


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A key that both writes and reads."""

    key: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        """What its slot begins with."""
        return _derive(self.key, b"", b"key id", _ID)

    def wrapping(self, ephemeral: X25519PrivateKey, share: bytes) -> bytes:
        """The key that wraps the data key of the object with this share."""
        return self.unwrapping(share)

    def unwrapping(self, share: bytes) -> bytes:
        """The key that unwraps."""
        return _derive(self.key, share, b"shared key")


@dataclass(frozen=True, slots=True)
class Sealed:
    """The chunks of one object, once its data key is known."""

    header: bytes
    _cipher: ChaCha20Poly1305 = field(repr=False)
    _bound: bytes = field(repr=False)

    @classmethod
    def of(cls, header: bytes, data_key: bytes, name: str) -> Sealed:
        """Those of the object with this header and name."""
        bound = hashlib.sha256(header + name.encode()).digest()
        return cls(header, ChaCha20Poly1305(data_key), bound)

    def seal(self, first: int, content: bytes, *, ends: bool) -> bytes:
        """Seal content as chunks from ``first`` on; all are full unless it ``ends``."""
        count = chunk_count(len(content))
        return b"".join(
            self._cipher.encrypt(
                _nonce(first + i, ends and i == count - 1),
                content[i * CHUNK : (i + 1) * CHUNK],
                self._bound,
            )
            for i in range(count)
        )

    def open(self, first: int, sealed: bytes, *, ends: bool) -> bytes:
        """The content of chunks.

        Raises:
            TamperedError: they are not what was sealed, in this place.
        """
        step = CHUNK + TAG
        count = max(1, -(-len(sealed) // step))
        opened = []
        for i in range(count):
            nonce = _nonce(first + i, ends and i == count - 1)
            try:
                chunk = self._cipher.decrypt(
                    nonce, sealed[i * step : (i + 1) * step], self._bound
                )
            except InvalidTag as error:
                raise TamperedError(
                    f"chunk {first + i} is not what was sealed"
                ) from error
            opened.append(chunk)
        return b"".join(opened)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def new_object(
    writers: Sequence[Recipient | SharedKey], name: str, seed: bytes
) -> Sealed:
    """Begin an object with this name for up to ``SLOTS`` recipients.

    ``seed`` is ``SEED`` secret bytes that no other content of this name has.
    """
    data_key, private = seed[:_KEY], seed[_KEY:]
    ephemeral = X25519PrivateKey.from_private_bytes(private)
    share = ephemeral.public_key().public_bytes_raw()
    slots = []
    for writer in writers:
        wrap = ChaCha20Poly1305(writer.wrapping(ephemeral, share))
        slots.append(writer.id + wrap.encrypt(bytes(12), data_key, MAGIC))
    header = (MAGIC + share + b"".join(slots)).ljust(HEADER, b"\0")
    return Sealed.of(header, data_key, name)


def open_object(
    header: bytes, readers: Sequence[Identity | SharedKey], name: str
) -> Sealed:
    """Find the data key of an object; its header is hostile.

    Raises:
        EncryptionError: none of the readers is meant, or it is not encrypted at all.
        TamperedError: the header is not what was written.
    """
    return Sealed.of(header, open_header(header, readers), name)


def open_header(header: bytes, readers: Sequence[Identity | SharedKey]) -> bytes:
    """The data key in a header; raises as ``open_object``."""
    if not header.startswith(MAGIC):
        raise _other_kind(header)
    if len(header) != HEADER:
        raise TamperedError("its header is cut off")
    share = header[_SHARE_AT:_SLOTS_AT]
    slots = [
        header[at : at + _SLOT]
        for at in range(_SLOTS_AT, _SLOTS_AT + SLOTS * _SLOT, _SLOT)
    ]
    by_id = {slot[:_ID]: slot[_ID:] for slot in slots if slot != _NO_SLOT}
    for reader in readers:
        if wrapped := by_id.get(reader.id):
            return _unwrap(reader, share, wrapped)
    raise _no_reader(sorted(by_id), has_readers=bool(readers))


def _unwrap(reader: Identity | SharedKey, share: bytes, wrapped: bytes) -> bytes:
    try:
        wrap = ChaCha20Poly1305(reader.unwrapping(share))
        return wrap.decrypt(bytes(12), wrapped, MAGIC)
    except (InvalidTag, ValueError) as error:
        raise TamperedError("its header is not what was written") from error


def _other_kind(header: bytes) -> EncryptionError:
    if is_sealed(header):
        return EncryptionError(
            "it was encrypted by a later version of sqlitereplica", kind="version"
        )
    return EncryptionError(
        "it is not encrypted, and this replica is to be: an encrypted replica needs a"
        " place of its own",
        kind="not-encrypted",
    )


def _no_reader(ids: Sequence[bytes], *, has_readers: bool) -> EncryptionError:
    names = ", ".join(found.hex() for found in ids) or "nobody"
    if not has_readers:
        return EncryptionError(
            f"it is encrypted for {names}, and no identity is here to read it: pass"
            " Encryption(identities=[...])",
            kind="no-key",
        )
    return EncryptionError(
        f"it is encrypted for {names}, and none of the keys given is one of these",
        kind="wrong-key",
    )
