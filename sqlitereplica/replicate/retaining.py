"""Retention of one replica, carried out.

Whether anything may go is first judged from memory, which costs no request; that is all
that an idle replica does. If so, the replica is listed and its pins are read, in that order
and right before the deletion, and it is judged again by what is there. A listing without a
file that ought to be there ends it: nothing is deleted on the word of a listing that lies,
or while something is lost that has yet to be healed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.history import Job
from sqlitereplica.replicate.retention import (
    Decision,
    Level0Files,
    due,
    level0_files,
)
from sqlitereplica.replicate.workshop import Workshop
from sqlitereplica.store import pinned_txids

__all__ = ["RetentionTask"]

_LOOK_EVERY = (0.05, 300.0)
_LOOK_IDLE = 600.0


class RetentionTask:
    """Deletes what the policy does not keep."""

    job = Job("retention")

    def __init__(
        self,
        shop: Workshop,
        policy: Retention,
        *,
        on_lost: Callable[[FileInfo, str], object],
        is_healing: Callable[[], bool],
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_lost`` is told of files that are not listed any more.

        Nothing is deleted while ``is_healing()``.
        """
        self._is_healing = is_healing
        self._shop, self._policy = shop, policy
        self._on_lost = on_lost
        self._now_ms, self._clock = now_ms, clock
        self._pins: frozenset[int] = frozenset()
        self._doomed: Mapping[FileInfo, float] = {}
        self._delete: tuple[FileInfo, ...] = ()
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
        self._pins = pinned_txids(shop.store)
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

    def _judge(self) -> Decision:
        decision = due(
            self._shop.catalog.files(),
            self._policy,
            self._now_ms(),
            pins=self._pins,
            doomed=self._doomed,
            clock=self._clock(),
        )
        self._doomed = decision.doomed
        self._delete = decision.delete
        return decision
