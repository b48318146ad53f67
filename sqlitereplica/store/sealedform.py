"""The form of an encrypted object: sizes and magic, without any cryptography.

::

    offset  bytes
    0       16     magic, with the version in its last byte
    16      32     share: an X25519 public key made for this object
    48      8 x 56 slots: id of a recipient (8), the data key wrapped for it (48)
    496     16     zeros
    512     ...    chunks of 16 KiB of content, each followed by its tag (16)

Every header is of one size, so that the size of the content follows from the size of the
object: a listing needs no request for each file. All chunks but the last are full, and there
is always a last one, which may be empty.
"""

from __future__ import annotations

from sqlitereplica.errors import EncryptionError

__all__ = [
    "CHUNK",
    "HEADER",
    "MAGIC",
    "SLOTS",
    "TAG",
    "chunk_count",
    "content_size",
    "is_sealed",
    "needs_keys",
    "object_size",
]

MAGIC = b"sqlitereplica-e1"
HEADER = 512
SLOTS = 8
CHUNK = 16 << 10
TAG = 16
_FAMILY = MAGIC[:-1]


def is_sealed(data: bytes) -> bool:
    """Whether an object that begins with these bytes is encrypted, by any version."""
    return data.startswith(_FAMILY)


def chunk_count(size: int) -> int:
    """How many chunks content of this size has."""
    return max(1, -(-size // CHUNK))


def object_size(size: int) -> int:
    """The size of the object that holds content of this size."""
    return HEADER + size + TAG * chunk_count(size)


def content_size(size: int) -> int:
    """The size of the content of an object of this size.

    For a size that no object has, what it would have if it ended a little earlier: it
    cannot be opened, or the rest is never looked at. One too small for any is given a byte,
    so that whoever reads all of it finds out.
    """
    if size < HEADER + TAG:
        return 1
    full, rest = divmod(size - HEADER, CHUNK + TAG)
    return full * CHUNK + max(0, rest - TAG)


def needs_keys(key: str) -> EncryptionError:
    """What a reader without any keys is told."""
    return EncryptionError(
        f"{key} is encrypted: pass Replica(..., encryption=Encryption(...)) with an"
        " identity or key that it is for",
        kind="no-key",
        key=key,
    )
