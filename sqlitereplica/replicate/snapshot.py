"""Snapshots of one replica: when they are due, and the cheapest way to make one.

From files: those that restore the newest state are merged; the source is not touched at
all. From the source: it is read in pieces (``sourceimage.py``). Or, when one file holds the
newest state already, by a copy of it. ``schedule.py`` decides when and which.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from sqlitereplica.capture import ContinuityLostError
from sqlitereplica.errors import (
    AnotherWriterError,
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
)
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.replicate.compaction import promote
from sqlitereplica.replicate.delta import DeltaRequest
from sqlitereplica.replicate.history import Job
from sqlitereplica.replicate.merging import BrokenFileError, Merged, Pace, merge_files
from sqlitereplica.replicate.schedule import snapshot_due, snapshot_source
from sqlitereplica.replicate.sourceimage import SourceImage
from sqlitereplica.replicate.workshop import Workshop
from sqlitereplica.restore import decisive, plan_restore

__all__ = ["SnapshotTask"]

_LOOK_IDLE = 600_000


class SnapshotTask:
    """Makes snapshots, by the clock, by the cost of a restore, and when asked to."""

    job = Job("snapshot")

    def __init__(
        self,
        shop: Workshop,
        ask: Callable[[DeltaRequest], None],
        database_size: Callable[[], int],
        *,
        doubt: Callable[[ContinuityLostError], object],
        interval: int | None,
        amplification: float,
        look_every: float,
        now_ms: Callable[[], int],
    ) -> None:
        """``interval`` is in milliseconds, ``now_ms`` gives those since the epoch.

        ``database_size()`` is that of the source in bytes; ``look_every`` is in seconds.
        ``doubt`` is told when what was read of it is no state that it had.
        """
        self._shop, self._ask, self._database_size = shop, ask, database_size
        self._interval, self._amplification = interval, amplification
        self._look_every, self._now_ms = look_every, now_ms
        self._doubt = doubt
        self._requests: list[Future[None]] = []
        self._hopeless: Exception | None = None
        self._lock = threading.Lock()
        self._seen, self._seen_at = -1, 0

    def request(self) -> Future[None]:
        """Have the newest state stored as a snapshot soon; done when it is."""
        future: Future[None] = Future()
        with self._lock:
            if self._hopeless is None:
                self._requests.append(future)
                return future
        future.set_exception(self._hopeless)
        return future

    def abandon(self, error: Exception) -> None:
        """Let those who wait, now or later, know that nothing comes any more."""
        self._hopeless = error
        self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        with self._lock:
            waiting, self._requests = self._requests, []
        for future in waiting:
            future.set_exception(error)

    def look(self) -> float:
        """Due when asked for, or when ``snapshot_due`` says so."""
        if self._requests:
            return 0.0
        version, now = self._shop.catalog.version, self._now_ms()
        if version == self._seen and abs(now - self._seen_at) < _LOOK_IDLE:
            return self._look_every
        if self._reason() is not None:
            return 0.0
        self._seen, self._seen_at = version, now
        return self._look_every

    def run(self) -> None:
        """Make a snapshot of the newest state, unless there is one."""
        with self._lock:
            asked = list(self._requests)
        pace = self._shop.swiftly if asked else self._shop.gently
        try:
            if asked or self._reason() is not None:
                self._make(pace)
        except AnotherWriterError as error:
            self._refuse(error)
            raise
        except ContinuityLostError as error:
            self._doubt(error)
            raise
        with self._lock:
            done = [future for future in asked if future in self._requests]
            self._requests = [f for f in self._requests if f not in done]
        for future in done:
            future.set_result(None)

    def _reason(self) -> str | None:
        return snapshot_due(
            self._shop.catalog.files(),
            self._now_ms(),
            interval=self._interval,
            amplification=self._amplification,
        )

    def _make(self, pace: Pace) -> None:
        # What cannot be read here is made of the source.
        plan = self._plan() if self._shop.store.is_readable else ()
        if len(plan) == 1 and plan[0].is_snapshot:
            promote(self._shop, plan[0])
            return
        how = self._choose(plan)
        merged = self._merge(plan, pace) if how == "merge" else None
        if merged is None:
            how = "read"
            merged = SourceImage(self._shop, self._ask, pace=pace).make()
        self._put(merged, how)

    def _merge(self, plan: Sequence[FileInfo], pace: Pace) -> Merged | None:
        """The files merged; None when they are whole but contradict each other."""
        shop = self._shop
        path = shop.scratch("snapshot")
        try:
            return merge_files(shop.store, shop.recent, plan, path, pace)
        except BrokenFileError:
            raise  # one of them is to be healed first
        except (InvalidFileError, PosMismatchError) as error:
            # Nobody can tell which of them is wrong, but the source knows its state.
            shop.report("snapshot-contradicted", level=40, error=error)
            return None

    def _put(self, merged: Merged, how: str) -> None:
        txid = merged.header.max_txid
        files = self._shop.catalog.files()
        if any(f.level == SNAPSHOT_LEVEL and f.max_txid == txid for f in files):
            merged.path.unlink()  # nothing has happened since the last one
            return
        info = self._shop.put(SNAPSHOT_LEVEL, merged)
        self._shop.report("snapshot", txid=txid, source=how, bytes=info.size)

    def _plan(self) -> Sequence[FileInfo]:
        """The files of the newest state; none when they do not lead there."""
        try:
            return decisive(plan_restore(self._shop.catalog.files()))
        except NotRestorableError:
            return ()  # a gap: that is what a snapshot from the source ends

    def _choose(self, plan: Sequence[FileInfo]) -> str:
        recent = self._shop.recent
        return snapshot_source(
            plan_bytes=sum(f.size for f in plan),
            local_bytes=sum(f.size for f in plan if recent and f in recent),
            database_bytes=self._database_size(),
            is_local=self._shop.store.is_local,
        )
