"""Compaction of a replica by itself, without its database and without its Replicator.

What it does beside a Replicator that is alive, and may compact the same replica just now:

* It never writes to level 0, which is where writers are fenced, and puts only files that
  are not there. A merger is made of nothing but its inputs, so two that merge the same
  files make the same bytes. If they merge different ones, a level has files that overlap;
  readers, compaction and retention choose among these as among all others.
* It deletes nothing, unless retention is asked for. Files of the replica that vanish would
  alarm a Replicator that lives, and have it look for them elsewhere.
* Its inputs may be deleted meanwhile, by that Replicator's retention. Then the replica is
  listed anew, and the rest is merged.

So nobody has to be kept away. The holder of a lease compacts by itself, though: a replica
with one that was not given back is left alone, unless the caller knows better. Whether its
holder is dead could only be found out by waiting, and taking the lease from one who only
sleeps would stop it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlitereplica.errors import (
    AnotherWriterError,
    EncryptionError,
    LeaseHeldError,
    StoreError,
)
from sqlitereplica.events import Event
from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.catalog import Catalog
from sqlitereplica.replicate.compaction import compact_level
from sqlitereplica.replicate.merging import BrokenFileError
from sqlitereplica.replicate.retaining import RetentionTask
from sqlitereplica.replicate.schedule import DEFAULT_LEVELS
from sqlitereplica.replicate.workshop import Shop
from sqlitereplica.store import LTXStore, Replica

__all__ = ["CompactReport", "compact_replica"]

_TRIES = 5
_LEVELS = len(DEFAULT_LEVELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    """What ``compact_replica`` did to one replica.

    Attributes:
        replica: Its name, a URL without secrets.
        files: Files made: of levels, and snapshots that are copies of files.
        total_bytes: The bytes of those of levels.
        merged: How many files they were made of.
        deleted: Files that retention deleted.
        deleted_bytes: Their bytes.
        duration_seconds: How long it took.
    """

    replica: str
    files: int
    total_bytes: int
    merged: int
    deleted: int
    deleted_bytes: int
    duration_seconds: float

    def to_json(self) -> bytes:
        """All of it as one JSON object."""
        import msgspec

        return msgspec.json.encode(asdict(self))


def compact_replica(
    replica: Replica,
    *,
    levels: int = _LEVELS,
    retention: Retention | None = None,
    even_if_held: bool = False,
    scratch: str | os.PathLike[str] | None = None,
) -> CompactReport:
    """Merge what waits at every level of a replica, as ``Replicator.compact`` does.

    Args:
        replica: The replica.
        levels: How many levels there are.
        retention: Also delete at once what this does not keep, without its grace. Only for
            a replica that no Replicator writes to.
        even_if_held: Also if somebody has a lease, and perhaps died with it.
        scratch: The folder for temporary files, with room for what is merged.

    Raises:
        LeaseHeldError: Somebody has the lease; nothing was done.
        InvalidFileError: A file is damaged.
        PosMismatchError: Files do not join.
        EncryptionError: There is no key to read it with.
        StoreError: The store failed.
        OSError: The temporary files cannot be written.
    """
    began = time.monotonic()
    store = replica.open()
    if not store.is_readable:
        raise EncryptionError(
            f"{replica.display_name} cannot be compacted without a key to read it with",
            kind="no-key",
        )
    if not even_if_held:
        _refuse_held(store)
    events: list[Event] = []
    with tempfile.TemporaryDirectory(prefix="sqlitereplica-", dir=scratch) as folder:
        job = _Job(store, Path(folder), events.append)
        for level in range(1, levels + 1):
            job.compact(level)
        if retention is not None:
            job.retain(retention)
    return _report(replica.display_name, events, time.monotonic() - began)


def _refuse_held(store: LTXStore) -> None:
    lease = store.lease_object()
    record = None if lease is None else lease.read().record
    if record is not None and not record.released:
        raise LeaseHeldError(
            store.name,
            holder=record.owner,
            epoch=record.epoch,
            message=f"{record.owner} has the lease of {store.name}, and compacts it."
            " If that one is dead, pass even_if_held=True",
        )


class _Job:
    """The work on one replica."""

    def __init__(
        self, store: LTXStore, folder: Path, observe: Callable[[Event], None]
    ) -> None:
        self._store = store
        self._shop = Shop(
            store.name, lambda: store, Catalog(), folder=folder, observer=observe
        )
        self._look_again()

    def _look_again(self) -> None:
        catalog = self._shop.catalog
        catalog.replace(self._store.list_all(), catalog.version)

    def compact(self, level: int) -> None:
        """Merge into a level what waits for it, whatever others do meanwhile."""
        for left in reversed(range(_TRIES)):
            try:
                compact_level(self._shop, level, self._shop.swiftly)
                return
            except BrokenFileError as error:
                if not left or not _is_missing(error):
                    raise
            except AnotherWriterError:
                # Others merged the same files, and in another way: Litestream, for one.
                if not left:
                    raise
            self._look_again()

    def retain(self, policy: Retention) -> None:
        """Delete what need not stay; by the times in the files themselves."""
        catalog = self._shop.catalog
        catalog.remove(catalog.files())
        catalog.replace(self._store.list_all(accurate=True), catalog.version)
        lost: list[FileInfo] = []
        RetentionTask(
            self._shop,
            replace(policy, grace=0),
            # What vanishes meanwhile is not ours to judge: then nothing is deleted.
            on_lost=lambda info, reason: lost.append(info),
            is_healing=lambda: bool(lost),
            now_ms=lambda: time.time_ns() // 1_000_000,
        ).run()


def _is_missing(error: BrokenFileError) -> bool:
    cause = error.__cause__
    return isinstance(cause, StoreError) and cause.kind == "missing"


def _report(name: str, events: list[Event], seconds: float) -> CompactReport:
    copied = [e for e in events if e.action == "snapshot"]
    merged = [e for e in events if e.action == "compact"]
    gone = [e for e in events if e.action == "retention"]
    return CompactReport(
        replica=name,
        files=len(merged) + len(copied),
        total_bytes=sum(e.data["bytes"] for e in merged),
        merged=sum(e.data["files"] for e in merged),
        deleted=sum(e.data["files"] for e in gone),
        deleted_bytes=sum(e.data["bytes"] for e in gone),
        duration_seconds=seconds,
    )
