"""One replica: the worker that adds to it, and the tasks that tend what it holds."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlitereplica.events import Event, Observer
from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.anyworker import Phase
from sqlitereplica.replicate.compaction import CompactionTask, compact_level
from sqlitereplica.replicate.drill import Drill, DrillTask
from sqlitereplica.replicate.engine import Engine
from sqlitereplica.replicate.foresight import foresee
from sqlitereplica.replicate.gate import OPEN, Gate
from sqlitereplica.replicate.history import History
from sqlitereplica.replicate.metafolder import folder_mode
from sqlitereplica.replicate.options import HistoryOptions
from sqlitereplica.replicate.recent import Recent
from sqlitereplica.replicate.repair import RepairTask
from sqlitereplica.replicate.retaining import RetentionTask
from sqlitereplica.replicate.snapshot import SnapshotTask
from sqlitereplica.replicate.status import ReplicaStatus
from sqlitereplica.replicate.worker import ReplicaWorker
from sqlitereplica.replicate.workshop import Workshop
from sqlitereplica.store import LTXStore
from sqlitereplica.store.attempts import Operation

__all__ = ["Line"]

_RECENT_BYTES = 64 << 20
_LOOK_EVERY = 30_000


class Line:
    """Puts the parts of one replica together; they are stepped or given threads by others."""

    def __init__(
        self,
        name: str,
        open_store: Callable[[], LTXStore],
        engine: Engine,
        *,
        folder: Path,
        node_id: int,
        history: HistoryOptions,
        observer: Observer,
        peers: Callable[[], Sequence[Workshop]] = lambda: (),
        gate: Gate = OPEN,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """``folder`` is for files on their way; ``peers`` are all replicas, this one too."""
        database = engine.capture.path
        prefix = f"recent-{zlib.crc32(name.encode()):08x}"
        self._engine, self._peers, self._now = engine, peers, now
        self._policy = history.retention
        self._levels, self._amplification = history.levels, history.amplification
        self._snapshot_interval = history.snapshot_interval
        self.recent = Recent(folder, prefix, _RECENT_BYTES)
        self._observer, self._name, self._database = observer, name, database
        self.worker = ReplicaWorker(
            name,
            partial(self._opened, open_store),
            database=database,
            spool=engine.spool,
            tables=engine.tables,
            folder=folder,
            node_id=node_id,
            coordinator=engine,
            observer=observer,
            clock=clock,
            now=now,
            rng=rng,
            recent=self.recent,
            gate=gate,
            on_hopeless=lambda error: self.snapshots.abandon(error),  # noqa: PLW0108
        )
        self.shop = Workshop(
            self.worker,
            database=database,
            folder=folder,
            recent=self.recent,
            observer=observer,
            clock=clock,
            sleep=sleep,
        )
        self.snapshots = SnapshotTask(
            self.shop,
            engine.request,
            self._database_size,
            doubt=engine.doubt,
            interval=history.snapshot_interval,
            amplification=history.amplification,
            look_every=min([_LOOK_EVERY, *history.levels]) / 1000,
            now_ms=self._now_ms,
        )
        self.repair = RepairTask(
            self.shop, peers=self._others, ask_snapshot=self.snapshots.request
        )
        compactions = [
            CompactionTask(
                self.shop,
                level,
                interval,
                on_lost=self.lost,
                now_ms=self._now_ms,
            )
            for level, interval in enumerate(history.levels, 1)
        ]
        # Beside the scratch folder, which is emptied at each start.
        notes = folder.parent / f"unneeded-{zlib.crc32(name.encode()):08x}"
        self.retention = self._retain(history.retention, clock, notes)
        self.drills = self._make_drills(history, clock, sleep, rng)
        self.history = History(
            self.shop,
            [*compactions, self.snapshots, self.retention, self.repair, *self.drills],
            on_broken=lambda error: self.lost(error.info, str(error)),
            clock=clock,
            now=now,
            rng=rng,
        )

    def _retain(
        self,
        policy: Retention,
        clock: Callable[[], float],
        notes: Path | None = None,
    ) -> RetentionTask:
        return RetentionTask(
            self.shop,
            policy,
            on_lost=self.lost,
            is_healing=lambda: bool(self.repair.broken),
            now_ms=self._now_ms,
            clock=clock,
            notes=notes,
        )

    def _opened(self, open_store: Callable[[], LTXStore]) -> LTXStore:
        store = open_store()
        store.folder_mode = folder_mode(self._database)
        if getattr(self._observer, "detailed", False):
            store.attempts.watch = self._tell
        return store

    def _tell(self, operation: Operation) -> None:
        """Report an attempt at an operation of the store."""
        self._observer(
            Event(
                action="operation",
                database=self._database,
                replica=self._name,
                error=operation.error,
                data={
                    "operation": operation.name,
                    "seconds": operation.seconds,
                    "bytes": operation.size,
                },
            )
        )

    def _make_drills(
        self,
        history: HistoryOptions,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        rng: Callable[[], float],
    ) -> list[DrillTask]:
        """None or one."""
        if history.verify_interval is None:
            return []
        drill = Drill(
            lambda: self.shop.store,
            interval=history.verify_interval / 1000,
            database_size=self._database_size,
            clock=clock,
            now=self._now,
            sleep=sleep,
            rng=rng,
        )
        return [
            DrillTask(
                self.shop, drill, note=self.lost, ask_snapshot=self.request_snapshot
            )
        ]

    def _now_ms(self) -> int:
        return round(self._now() * 1000)

    def lost(self, info: FileInfo, reason: str) -> None:
        """A file was found damaged or gone: have it healed."""
        self.repair.note(info, reason)
        self.history.look_soon()

    def _database_size(self) -> int:
        table = self._engine.capture.table
        return table.commit * table.page_size

    def _others(self) -> list[Workshop]:
        return [shop for shop in self._peers() if shop is not self.shop]

    def request_snapshot(self) -> Future[None]:
        """Have the newest state stored as a snapshot soon; done when it is."""
        future = self.snapshots.request()
        self.history.look_soon()
        return future

    def compact(self) -> None:
        """Compact every level now, the lower ones first; raises what goes wrong."""
        for job in self.history.jobs:
            if job.kind == "compact":
                work = partial(compact_level, self.shop, job.level, self.shop.swiftly)
                self.history.perform(job, work)

    def enforce_retention(self) -> None:
        """Delete now, without a grace, what need not stay; raises what goes wrong."""
        task = self._retain(replace(self._policy, grace=0), time.monotonic)
        self.history.perform(RetentionTask.job, task.run)

    def close(self) -> None:
        """Leave nothing behind but what the next life is to know."""
        self.recent.clear()
        self.retention.close()

    def next_tending(self) -> int | None:
        """When history has something to do if nothing is committed any more.

        Milliseconds since the epoch, not after now if there is something already; None for
        never.
        """
        now = self._now_ms()
        due = foresee(
            self.worker.catalog.files(),
            now,
            levels=self._levels,
            snapshot_interval=self._snapshot_interval,
            amplification=self._amplification,
            policy=self._policy,
            pins=self.retention.pins,
        )
        rest = self.retention.rest_of_grace()
        times = [due] if rest is None else [due, now + max(0, round(rest * 1000))]
        return min((time for time in times if time is not None), default=None)

    def status(self) -> ReplicaStatus:
        """How it fares."""
        worker, last = self.worker, self.worker.health.last_success
        waiting, size, oldest = self._engine.spool.backlog(worker.name)
        lag = 0.0
        if waiting and oldest is not None:
            lag = max(0.0, self._now() - oldest / 1000)
        elif worker.phase is not Phase.STREAM and last is not None:
            lag = max(0.0, self._now() - last)
        error, history_error = worker.health.error, self.history.error
        return ReplicaStatus(
            name=worker.name,
            state=worker.phase.value,
            txid=worker.txid,
            lag_seconds=lag,
            last_success=_datetime(last),
            error=None if error is None else str(error),
            spool_bytes=size,
            history_error=None if history_error is None else str(history_error),
            last_snapshot=_datetime(self.history.last_success("snapshot")),
            last_repair=self.repair.last,
            last_verify=self.drills[0].last if self.drills else None,
        )


def _datetime(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
