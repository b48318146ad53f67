"""All parts of a Replicator without its threads: every step is taken by the test.

For the library's own tests, and for ``SteppedReplicator``. It may change in any version.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlitereplica.capture import Capture, CheckpointLimits, TableFile
from sqlitereplica.events import Event
from sqlitereplica.replicate.engine import Engine
from sqlitereplica.replicate.gate import OPEN, Gate
from sqlitereplica.replicate.history import Job
from sqlitereplica.replicate.line import Line
from sqlitereplica.replicate.mirror import Mirror
from sqlitereplica.replicate.mirroring import MirrorWorker
from sqlitereplica.replicate.options import HistoryOptions
from sqlitereplica.replicate.spool import Spool
from sqlitereplica.replicate.tickets import Ticket
from sqlitereplica.store import LTXStore
from sqlitereplica.testing.clock import SteppingClock

__all__ = ["Stepped"]


class Stepped:
    """Engine and workers, wired as ``Replicator`` does, over a clock that is stepped."""

    def __init__(
        self,
        path: Path,
        open_stores: Sequence[Callable[[], LTXStore]],
        *,
        clock: SteppingClock | None = None,
        connect: Callable[[str], Any] = sqlite3.connect,
        sync_interval: float = 1.0,
        buffer_size: int = 32 << 20,
        spool_size: int = 1 << 30,
        limits: CheckpointLimits | None = None,
        node_id: int = 0,
        history: HistoryOptions | None = None,
        gate: Gate = OPEN,
        mirrors: Sequence[Mirror] = (),
    ) -> None:
        self._mirrors = mirrors
        self._node_id, self._gate = node_id, gate
        self._history = history or HistoryOptions()
        self.path = path
        self.clock = clock or SteppingClock()
        self.meta = path.with_name(f".{path.name}-sqlitereplica")
        self.events: list[Event] = []
        self._open_stores = open_stores
        self._connect, self._limits = connect, limits
        self._sync_interval = sync_interval
        self._buffer_size, self._spool_size = buffer_size, spool_size
        self.begin()

    def begin(self) -> None:
        """Make everything anew, as a new process would."""
        folder = self.meta / "spool"
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.iterdir():
            stale.unlink()
        spool = Spool(
            folder, memory_limit=self._buffer_size, disk_limit=self._spool_size
        )
        capture = Capture(
            str(self.path),
            self._connect,
            copy="sqlite3",
            emit=lambda i, changes: self.engine.emit(i, changes),  # noqa: PLW0108
            spool=folder,
            buffer_size=self._buffer_size,
            limits=self._limits,
            node_id=self._node_id,
            now_ms=self.clock.now_ms,
            clock=self.clock,
            sleep=self.clock.advance,
        )
        self.engine = Engine(
            capture,
            spool,
            TableFile(self.meta),
            sync_interval=self._sync_interval,
            observer=self.events.append,
            clock=self.clock,
        )
        self.lines = [
            Line(
                f"replica-{i}",
                open_store,
                self.engine,
                folder=folder,
                node_id=self._node_id,
                history=self._history,
                observer=self.events.append,
                peers=lambda: [line.shop for line in self.lines],
                gate=self._gate,
                clock=self.clock,
                now=lambda: self.clock.wall_ms / 1000,
                sleep=self.clock.advance,
                rng=lambda: 0.5,
            )
            for i, open_store in enumerate(self._open_stores)
        ]
        self.mirrors = [
            MirrorWorker(
                mirror,
                self._connect,
                database=str(self.path),
                spool=spool,
                coordinator=self.engine,
                observer=self.events.append,
                clock=self.clock,
                now=lambda: self.clock.wall_ms / 1000,
                rng=lambda: 0.5,
            )
            for mirror in self._mirrors
        ]
        self.workers = [line.worker for line in self.lines]
        self.engine.workers = [*self.workers, *self.mirrors]

    def step(self) -> bool:
        """One step of the engine and of each worker. True when a worker did something."""
        self.engine.step()
        # Every worker, not only up to the first that did something.
        moved = [worker.advance() for worker in self.engine.workers]
        return any(moved)

    def run(self, rounds: int = 1000) -> None:
        """Step until nothing moves any more at this moment of the clock."""
        quiet = 0
        for _ in range(rounds):
            quiet = 0 if self.step() else quiet + 1
            if quiet > 3:
                return
        raise AssertionError("it does not come to rest")

    def tend(self) -> list[Job]:
        """Do all that is due of every replica's history, one job after the other."""
        done = []
        for line in self.lines:
            for job in line.history.due():
                # In a thread, as in life: it waits for capture, which is stepped here.
                thread = threading.Thread(target=line.history.run, args=(job,))
                thread.start()
                while thread.is_alive():
                    self.step()
                    thread.join(0.001)
                done.append(job)
        return done

    def snapshot(self, which: int = 0) -> Exception | None:
        """Make all durable and a snapshot of it; what went wrong, if something did."""
        line = self.lines[which]
        if not self.durable():
            return line.worker.health.error
        line.request_snapshot()
        self.tend()
        return line.history.error

    def sync(self) -> Ticket:
        """Ask for durability and run; the ticket tells how it went."""
        ticket = self.engine.tickets.take(self.clock(), None)
        self.run()
        return ticket

    def durable(self) -> bool:
        """True when a ``sync`` succeeds now, False when it fails or has to wait."""
        ticket = self.sync()
        return ticket.future.done() and ticket.future.exception() is None

    def kill(self) -> None:
        """End without a flush; connections are closed, as a process drops its locks."""
        self.engine.close()
        for worker in self.workers:
            worker.fall_behind(None)
            worker.advance()
        for mirror in self.mirrors:
            mirror.close()

    def restart(self) -> None:
        """Kill and begin again."""
        self.kill()
        self.begin()
