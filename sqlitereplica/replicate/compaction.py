"""Compaction of one level of a replica, carried out.

A full image is never rewritten level by level, which would upload a large database again
for each of them: where one begins a level (the first file of a replica, a compaction of
Litestream's that reaches back to it) the same bytes become a snapshot, and the level goes
on behind it. A store does that by a copy of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlitereplica.errors import AnotherWriterError
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.replicate.history import Job
from sqlitereplica.replicate.merging import Pace, merge_files
from sqlitereplica.replicate.schedule import Gap, compaction_inputs
from sqlitereplica.replicate.workshop import Shop

__all__ = ["CompactionTask", "promote"]


class CompactionTask:
    """Merges what waits in the level below into one level, at multiples of its interval."""

    def __init__(
        self,
        shop: Shop,
        level: int,
        interval: int,
        *,
        on_lost: Callable[[FileInfo, str], object],
        now_ms: Callable[[], int],
    ) -> None:
        """``interval`` is in milliseconds, ``now_ms`` gives those since the epoch.

        ``on_lost`` is told what is missing, as the file that would fill the gap.
        """
        self.job = Job("compact", level)
        self._shop, self._interval, self._now_ms = shop, interval, now_ms
        self._on_lost = on_lost
        self._seen = -1
        self._next: int | None = None

    def look(self) -> float:
        """Due at a multiple of the interval, when files wait."""
        now, version = self._now_ms(), self._shop.catalog.version
        # A clock that was set back must not make it wait for longer than an interval.
        if self._next is not None and now < self._next <= now + self._interval:
            return (self._next - now) / 1000
        if version != self._seen:
            run = compaction_inputs(self._shop.catalog.files(), self.job.level)
            # After a start: what came in the present interval waits for its end.
            began = now - now % self._interval
            if run.files and (self._next or run.files[0].timestamp < began):
                return 0.0
            if run.gap is not None and not run.files:
                self._report_gap(run.gap)
            self._seen = -1 if run.files else version
        self._next = _next(now, self._interval)
        return (self._next - now) / 1000

    def run(self) -> None:
        """Compact; raises as ``compact_level``."""
        compact_level(self._shop, self.job.level, self._shop.gently)
        self._next = _next(self._now_ms(), self._interval)

    def _report_gap(self, gap: Gap) -> None:
        level = max(1, self.job.level - 1)  # level 0 has single transactions only
        info = FileInfo(level, gap.first, gap.last, 0, 0)
        self._on_lost(info, f"no file of level {self.job.level - 1} has it")


def compact_level(shop: Shop, level: int, pace: Pace) -> int:
    """Merge what waits in the level below into ``level``; returns how many files came.

    Raises:
        BrokenFileError: an input is damaged or gone.
        PosMismatchError: inputs do not join.
        StoreError: the store failed.
        StoppedError: the Replicator stops.
    """
    made = 0
    while inputs := compaction_inputs(shop.catalog.files(), level).files:
        shop.go_on()
        if inputs[0].is_snapshot:
            promote(shop, inputs[0])
            inputs = inputs[1:]
        if not inputs:
            break
        _compact(shop, level, inputs, pace)
        made += 1
    return made


def _next(now: int, interval: int) -> int:
    return now - now % interval + interval


def _compact(shop: Shop, level: int, inputs: Sequence[FileInfo], pace: Pace) -> None:
    path = shop.scratch(f"level-{level}")
    merged = merge_files(shop.store, shop.recent, inputs, path, pace)
    try:
        info = shop.put(level, merged)
    except AnotherWriterError:
        # A put of an earlier life that arrived late, perhaps: see what is there.
        since = shop.catalog.version
        shop.catalog.replace(shop.store.list_all(), since)
        raise
    shop.report("compact", ltx_level=level, files=len(inputs), bytes=info.size)


def promote(shop: Shop, image: FileInfo) -> None:
    """Make a full image of another level a snapshot."""
    files = shop.catalog.files()
    if any(f.level == SNAPSHOT_LEVEL and f.max_txid == image.max_txid for f in files):
        return
    scratch = shop.scratch(f"copy-{image.level}")
    shop.gate.check()
    shop.catalog.add(shop.store.copy(image, SNAPSHOT_LEVEL, scratch))
    shop.report("snapshot", txid=image.max_txid, source="copy")
