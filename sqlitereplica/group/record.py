"""What is kept of a parked database, in its metadata folder.

``parked`` says which signature holds, for which replicas, and when history has something to
do. A process that starts reads it, and opens nothing of what did not change since. It counts
in the boot in which it was written only: a loss of power may bring data to the disk whose
new times are lost. What does not check is taken as absent: the database is then opened once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sqlitereplica.capture.tablefile import boot_id
from sqlitereplica.group.signature import Signature

__all__ = ["Parked", "Records", "fingerprint"]

_NAME = "parked"


class Parked(msgspec.Struct, frozen=True):
    """A parked database."""

    boot: str
    settings: str
    signature: Signature
    tend_at: float | None = None
    """Seconds since the epoch at which history has something to do."""


class Records:
    """Reads and writes them."""

    def __init__(self, boot: bytes | None = None) -> None:
        self._boot = (boot_id() if boot is None else boot).hex()

    def read(self, folder: Path, settings: str) -> Parked | None:
        """What was noted in this boot with these settings."""
        try:
            data = (folder / _NAME).read_bytes()
            found = msgspec.json.decode(data, type=Parked)
        except (OSError, msgspec.MsgspecError):
            return None
        same = (found.boot, found.settings) == (self._boot, settings)
        return found if same else None

    def write(
        self, folder: Path, settings: str, signature: Signature, tend_at: float | None
    ) -> None:
        """Note it; without a note the next process opens the database once more."""
        record = Parked(self._boot, settings, signature, tend_at)
        temporary = folder / f"{_NAME}.tmp"
        with suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(record))
            temporary.replace(folder / _NAME)


def fingerprint(names: Sequence[str], history: object) -> str:
    """A text that changes with the replicas or with what is kept in them."""
    text = "\n".join([*names, repr(history)])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]
