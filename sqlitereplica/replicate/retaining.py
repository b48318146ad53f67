"""Retention of one replica, carried out.

Whether anything may go is first judged from memory, which costs no request; that is all
that an idle replica does. If so, the replica is listed and its pins are read, in that order
and right before the deletion, and it is judged again by what is there. A listing without a
file that ought to be there ends it: nothing is deleted on the word of a listing that lies,
or while something is lost that has yet to be healed.

Since when a file is not needed is noted in the metadata folder at the end, by the time of
day: otherwise the grace would begin anew with each start, and never end where starts are
more frequent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.history import Job
from sqlitereplica.replicate.retention import (
    Decision,
    Level0Files,
    due,
    grace_of,
    level0_files,
)
from sqlitereplica.replicate.workshop import Shop
from sqlitereplica.store import pinned_txids

__all__ = ["RetentionTask"]

_LOOK_EVERY = (0.05, 300.0)
_LOOK_IDLE = 600.0


class RetentionTask:
    """Deletes what the policy does not keep."""

    job = Job("retention")

    def __init__(
        self,
        shop: Shop,
        policy: Retention,
        *,
        on_lost: Callable[[FileInfo, str], object],
        is_healing: Callable[[], bool],
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        notes: Path | None = None,
    ) -> None:
        """``on_lost`` is told of files that are not listed any more.

        Nothing is deleted while ``is_healing()``. ``notes`` is where it is kept since when
        files are not needed; None for nowhere.
        """
        self._is_healing = is_healing
        self._shop, self._policy = shop, policy
        self._on_lost = on_lost
        self._now_ms, self._clock = now_ms, clock
        self.pins: frozenset[int] = frozenset()
        """The TXIDs that were pinned at the last deletion of this life."""
        self._doomed: Mapping[FileInfo, float] = {}
        self._delete: tuple[FileInfo, ...] = ()
        self._notes, self._noted = notes, _read(notes)
        self._seen, self._seen_at = -1, 0.0
        spans = policy.fine_ms, policy.window_ms, policy.grace_seconds * 1000
        least, most = _LOOK_EVERY
        self._look_every = min(most, max(least, min(spans) / 1000))

    def look(self) -> float:
        """Due when, by what is known, something may be deleted."""
        if not self._policy.delete:
            return _LOOK_IDLE
        if self._is_healing():
            return self._look_every
        version, clock = self._shop.catalog.version, self._clock()
        idle = version == self._seen and not self._doomed
        if idle and clock - self._seen_at < _LOOK_IDLE:
            return self._look_every
        self._seen, self._seen_at = version, clock
        return 0.0 if self._judge().delete else self._look_every

    def run(self) -> None:
        """List, read the pins, judge again, delete; raises StoreError."""
        shop = self._shop
        since = shop.catalog.version
        lost = shop.catalog.replace(shop.store.list_all(), since)
        for info in lost:
            self._on_lost(info, "the listing does not show it any more")
        if lost:
            shop.report("files-lost", level=30, files=len(lost))
        self.pins = pinned_txids(shop.store)
        if self._is_healing():
            return
        delete = self._judge().delete
        if delete:
            shop.go_on()
            shop.delete(delete)
            shop.report(
                "retention", files=len(delete), bytes=sum(f.size for f in delete)
            )

    def level0(self) -> Level0Files | None:
        """How many files level 0 has; None where nothing is ever deleted."""
        if not self._policy.delete:
            return None
        return level0_files(self._shop.catalog.files(), self._delete)

    def rest_of_grace(self) -> float | None:
        """Seconds until all that is not needed now may go; None if all is needed."""
        if not self._policy.delete:
            return None
        self._judge()
        graces = [
            since + grace_of(file, self._policy.grace_seconds)
            for file, since in self._doomed.items()
        ]
        return max(graces) - self._clock() if graces else None

    def close(self) -> None:
        """Note since when files are not needed; without the note the grace begins anew."""
        if self._notes is None:
            return
        clock, now = self._clock(), self._now_ms()
        doomed = {
            f"{f.level}-{f.min_txid}-{f.max_txid}": now - round(1000 * (clock - since))
            for f, since in self._doomed.items()
        }
        with suppress(OSError):
            if doomed or self._notes.exists():
                self._notes.write_bytes(msgspec.json.encode(doomed))

    def _judge(self) -> Decision:
        files, clock = self._shop.catalog.files(), self._clock()
        if self._noted and files:
            self._doomed = {**self._recalled(files, clock), **self._doomed}
            self._noted = {}
        decision = due(
            files,
            self._policy,
            self._now_ms(),
            pins=self.pins,
            doomed=self._doomed,
            clock=clock,
        )
        self._doomed = decision.doomed
        self._delete = decision.delete
        return decision

    def _recalled(
        self, files: Sequence[FileInfo], clock: float
    ) -> dict[FileInfo, float]:
        """What was noted of these files; never more than has passed by the time of day."""
        found = {}
        for file in files:
            noted = self._noted.get(f"{file.level}-{file.min_txid}-{file.max_txid}")
            if noted is not None:
                found[file] = clock - max(0.0, (self._now_ms() - noted) / 1000)
        return found


def _read(notes: Path | None) -> dict[str, int]:
    """What an earlier life noted; nothing if it cannot be read."""
    if notes is None:
        return {}
    try:
        return msgspec.json.decode(notes.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return {}
