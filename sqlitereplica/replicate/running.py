"""What exists between ``start`` and ``stop``: engine, workers, histories and their threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from sqlitereplica.capture import Capture, TableFile
from sqlitereplica.replicate.driver import WorkerThread, driver
from sqlitereplica.replicate.engine import Engine
from sqlitereplica.replicate.housekeeper import housekeeper
from sqlitereplica.replicate.line import Line
from sqlitereplica.replicate.metafolder import MetaFolder
from sqlitereplica.replicate.options import Options
from sqlitereplica.replicate.spool import Spool
from sqlitereplica.replicate.status import Status
from sqlitereplica.sqlite.hazards import Guard, guard_path, unguard
from sqlitereplica.store import Replica

__all__ = ["Running"]


class Running:
    """A Replicator at work. Made by ``start``, ended once by ``end``."""

    def __init__(self, options: Options, copy: str, meta: MetaFolder) -> None:
        """Make everything; ``begin`` sets it going. ``copy`` names the copy of SQLite."""
        self.options, self.meta = options, meta
        self.engine = self._make_engine(copy)
        self.lines = [self._make_line(replica) for replica in options.replicas]
        self.engine.workers = [line.worker for line in self.lines]
        self._threads = [WorkerThread(line.worker) for line in self.lines]
        self.engine.wake_workers = self._wake_workers
        self._guard: Guard | None = guard_path(options.path, copy)

    def _make_engine(self, copy: str) -> Engine:
        options, folder = self.options, self.meta.spool
        capture = Capture(
            options.path,
            options.connect,
            copy=copy,
            emit=lambda i, changes: self.engine.emit(i, changes),  # noqa: PLW0108
            spool=folder,
            set_wal=options.set_wal,
            # What is taken from the WAL is held twice for the moment of a read.
            buffer_size=options.buffer_size // 4,
            node_id=self.meta.node_id,
        )
        spool = Spool(
            folder,
            memory_limit=options.buffer_size // 2,
            disk_limit=options.spool_size,
        )
        return Engine(
            capture,
            spool,
            TableFile(self.meta.path),
            sync_interval=options.sync_interval,
            observer=options.observer,
            wake=driver().wake,
        )

    def _make_line(self, replica: Replica) -> Line:
        return Line(
            replica.display_name,
            replica.open,
            self.engine,
            folder=self.meta.spool,
            node_id=self.meta.node_id,
            history=self.options.history.for_replica(replica),
            observer=self.options.observer,
            peers=lambda: [line.shop for line in self.lines],
        )

    def _wake_workers(self) -> None:
        for thread in self._threads:
            thread.wake()

    # -- begin and end ---------------------------------------------------------------

    def begin(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        driver().add(self.engine)
        housekeeper().add(line.history for line in self.lines)

    def wake(self) -> None:
        """Have the database looked at soon."""
        driver().wake()

    def end(self, timeout: float) -> None:
        """Stop the threads and let the database go; waits up to ``timeout`` seconds.

        A thread that a store keeps longer ends later; so does the lock of the metadata
        folder, for what was being put may still arrive.
        """
        deadline = time.monotonic() + timeout
        jobs = housekeeper().remove([line.history for line in self.lines])
        try:
            driver().remove(self.engine).result()
        finally:
            self._end(jobs, deadline)

    def _end(self, jobs: Sequence[threading.Thread], deadline: float) -> None:
        if self._guard is not None:
            unguard(self._guard)
        for thread in self._threads:
            thread.stop(max(0.1, deadline - time.monotonic()))
        for job in jobs:
            job.join(max(0.1, deadline - time.monotonic()))
        waiting = [*(t.join for t in self._threads if t.is_alive())]
        waiting += [job.join for job in jobs if job.is_alive()]
        if waiting:
            threading.Thread(
                target=self._close_after,
                args=(waiting,),
                name="sqlitereplica-stop",
                daemon=True,
            ).start()
        else:
            self._close()

    def _close_after(self, waiting: Sequence[Callable[[], None]]) -> None:
        for wait in waiting:
            wait()
        self._close()

    def _close(self) -> None:
        for line in self.lines:
            line.close()
        self.meta.close()

    def request_snapshots(self) -> list[tuple[Line, Future[None]]]:
        """Have a snapshot made in every replica."""
        asked = [(line, line.request_snapshot()) for line in self.lines]
        housekeeper().wake()
        return asked

    def disown(self) -> None:
        """In the child of a fork: never touch what was inherited."""
        self.engine.capture.disown()

    # -- status ----------------------------------------------------------------------

    def status(self) -> Status:
        """What is going on."""
        engine = self.engine
        replicas = tuple(line.status() for line in self.lines)
        return Status(
            database=self.options.path,
            state=engine.state,
            txid=max(r.txid for r in replicas),
            error=None if engine.error is None else str(engine.error),
            pending_pages=len(engine.capture.pending),
            replicas=replicas,
        )
