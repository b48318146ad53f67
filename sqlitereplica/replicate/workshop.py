"""What every job on the history of one replica works with."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlitereplica.errors import StoreError
from sqlitereplica.events import Observer, Reporter
from sqlitereplica.ltx import FileInfo
from sqlitereplica.replicate.catalog import Catalog
from sqlitereplica.replicate.gate import OPEN, Gate
from sqlitereplica.replicate.merging import Merged
from sqlitereplica.replicate.recent import Recent
from sqlitereplica.replicate.worker import ReplicaWorker
from sqlitereplica.restore.sums import put_sums, stale_sums, sums_file
from sqlitereplica.store import LTXStore

__all__ = ["Shop", "StoppedError", "Workshop"]

_LONGEST_REST = 0.1


class StoppedError(Exception):
    """The work was given up because the Replicator stops."""


class Shop:
    """Store, catalog, scratch files and pace of one replica. Thread-safe."""

    def __init__(
        self,
        name: str,
        open_store: Callable[[], LTXStore | None],
        catalog: Catalog,
        *,
        folder: Path,
        observer: Observer,
        database: str = "",
        recent: Recent | None = None,
        gate: Gate = OPEN,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``folder`` is for scratch files, on the filesystem of the metadata."""
        self.name, self.database = name, database
        self.catalog, self.recent, self.gate = catalog, recent, gate
        self._open_store = open_store
        self._folder = folder
        self.report = Reporter(observer, database, name)
        self._clock, self._sleep = clock, sleep
        self._stopping = threading.Event()
        self._pace = threading.local()

    @property
    def store(self) -> LTXStore:
        """The store; there is one once the worker has connected."""
        store = self._open_store()
        if store is None:
            raise StoreError(f"{self.name} was not opened yet", operation="open")
        return store

    def scratch(self, what: str) -> Path:
        """A name for a local file that only one job uses."""
        return self._folder / f"{what}-{zlib.crc32(self.name.encode()):08x}.ltx"

    # -- pace ------------------------------------------------------------------------

    def stop(self) -> None:
        """Let every job end at its next piece of work."""
        self._stopping.set()

    def stopped(self) -> bool:
        """True once the Replicator stops."""
        return self._stopping.is_set()

    def go_on(self) -> None:
        """Raise StoppedError once the Replicator stops."""
        if self.stopped():
            raise StoppedError

    def gently(self, _: int) -> None:
        """Rest as long as the last piece took: the application has the other half."""
        self.go_on()
        now = self._clock()
        worked = now - getattr(self._pace, "since", now)
        self._sleep(max(0.0, min(worked, _LONGEST_REST)))
        self._pace.since = self._clock()

    def swiftly(self, _: int) -> None:
        """Somebody waits for the work: do not rest."""
        self.go_on()

    # -- files -----------------------------------------------------------------------

    def put(self, level: int, merged: Merged) -> FileInfo:
        """Store a local file at a level and let it go; raises as ``LTXStore.put``."""
        header = merged.header
        try:
            self.gate.check()
            info = self.store.put(
                level,
                header.min_txid,
                header.max_txid,
                merged.path,
                timestamp=header.timestamp,
            )
            self.catalog.add(info)
            if self.recent is not None and not self.store.is_local:
                self.recent.add(info, merged.path)
        finally:
            merged.path.unlink(missing_ok=True)
        self.report("upload", txid=info.max_txid, ltx_level=level)
        self._put_sums(merged)
        return info

    def _put_sums(self, merged: Merged) -> None:
        """Store the page checksums of a full image.

        They only save bytes to a restore over an old copy: one without them is no worse,
        so a failure is said and nothing is done over for it.
        """
        if merged.table is None or not merged.header.post_checksum:
            return
        try:
            put_sums(self.store, merged.header, merged.table.sums)
        except StoreError as error:
            self.report("sums-error", level=logging.WARNING, error=error)

    def delete(self, infos: Iterable[FileInfo]) -> None:
        """Delete files, and what belongs to them; raises as ``LTXStore.delete``."""
        self.gate.check()
        gone = list(infos)
        images = [sums_file(info.max_txid) for info in gone if info.min_txid == 1]
        left = set(self.catalog.files()).difference(gone)
        try:
            self.store.delete(gone)
            self.store.delete_side(stale_sums(images, left))
        finally:
            # Also after a failure: some are gone. The next listing shows the others.
            self.catalog.remove(gone)
            if self.recent is not None:
                self.recent.discard(gone)


class Workshop(Shop):
    """That of a Replicator, with the worker that adds to the replica."""

    def __init__(self, worker: ReplicaWorker, **parts: Any) -> None:
        """``parts`` are those of ``Shop``, without what the worker has."""
        super().__init__(
            worker.name,
            lambda: worker.store,
            worker.catalog,
            gate=worker.gate,
            **parts,
        )
        self.worker = worker
