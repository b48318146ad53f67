"""``Replicator``: the object that applications use."""

from __future__ import annotations

import asyncio
import atexit
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlitereplica.durations import Duration
from sqlitereplica.errors import (
    ReplicatorClosedError,
    SQLiteReplicaError,
    SyncTimeoutError,
)
from sqlitereplica.events import Event, Observer, guarded, log_event
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.driver import forget_driver
from sqlitereplica.replicate.engine import Engine
from sqlitereplica.replicate.housekeeper import forget_housekeeper
from sqlitereplica.replicate.metafolder import (
    MetaFolder,
    default_folder,
    forget_locks,
)
from sqlitereplica.replicate.options import (
    HistoryOptions,
    Options,
    ReplicaLike,
    database_path,
    replica_values,
)
from sqlitereplica.replicate.pinning import pin_everywhere
from sqlitereplica.replicate.running import Running
from sqlitereplica.replicate.status import Status
from sqlitereplica.replicate.tickets import Ticket
from sqlitereplica.sqlite import Connect, copy_of
from sqlitereplica.sqlite.hazards import check_before_open
from sqlitereplica.store import Pin
from sqlitereplica.store.pins import check_pin_name

__all__ = ["Replicator"]

_started: set[Replicator] = set()
"""Strong references: one that nobody holds any more still flushes at exit."""


class Replicator:
    """Replicates one SQLite database, continuously, from inside the application.

    Thread-safe: every method may be called from any thread. Owns its threads and, beside
    the database, a metadata folder; writes nothing to the database itself. After
    ``fork()`` the child's copy is inert and raises ``ReplicatorClosedError``.

    Example:
        >>> with Replicator("app.db", replicas=["./backups/app"]) as r:  # doctest: +SKIP
        ...     r.sync()
    """

    def __init__(
        self,
        db: str | os.PathLike[str],
        replicas: Sequence[ReplicaLike] | ReplicaLike,
        *,
        connect: Connect = sqlite3.connect,
        sync_interval: float = 1.0,
        set_wal: bool = True,
        buffer_size: int = 32 << 20,
        spool_size: int = 1 << 30,
        meta_path: str | os.PathLike[str] | None = None,
        stop_timeout: float = 30.0,
        levels: Sequence[Duration] = ("30s", "5m", "1h"),
        snapshot_interval: Duration | None = "24h",
        retention: Retention | Duration | None = None,
        verify_interval: Duration | None = None,
        observer: Observer = log_event,
    ) -> None:
        """Describe what to replicate where; ``start`` or ``with`` begins.

        Args:
            db: The database file. It may be missing for now; it is waited for.
            replicas: URLs, folders or ``Replica`` values, independent of each other.
            connect: Opens the database as the application does, with the same copy of
                SQLite: ``sqlite3.connect``, ``apsw.Connection``, or your own factory.
            sync_interval: Seconds from the moment a commit is noticed (a few hundredths
                after it) to the upload that carries it.
            set_wal: Switch a database in another journal mode to WAL.
            buffer_size: Bytes of captured pages kept in memory, in all.
            spool_size: Bytes of captured changes kept on disk while a store is away;
                beyond, the store is brought up by a comparison when it returns.
            meta_path: The metadata folder, if not ``.<name>-sqlitereplica`` beside it.
            stop_timeout: Seconds that ``stop`` (also at the end of ``with`` and at
                interpreter exit) waits for a last flush.
            levels: How often level 1, 2, ... are made of the files of the level below.
            snapshot_interval: How often a full snapshot is made of a database that
                changes; None for only as often as restores would become expensive.
            retention: Which restore points stay: a ``Retention``, or its window such as
                ``"30d"``; 24 hours by default. A ``Replica`` may have its own.
            verify_interval: How often each replica is restored and checked in the
                background, slowly; None for never.
            observer: Is given every ``Event``; the default logs.

        Raises:
            ValueError: an argument that cannot be meant.
        """
        path = database_path(db)
        self._options = Options(
            path=path,
            replicas=replica_values(replicas),
            connect=connect,
            sync_interval=sync_interval,
            set_wal=set_wal,
            buffer_size=buffer_size,
            spool_size=spool_size,
            meta_path=Path(meta_path) if meta_path else default_folder(path),
            observer=guarded(observer),
            history=HistoryOptions.of(
                levels, snapshot_interval, retention, verify_interval
            ),
        )
        self._stop_timeout = stop_timeout
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._running: Running | None = None

    @property
    def database(self) -> str:
        """Absolute path of the database file."""
        return self._options.path

    # -- start and stop --------------------------------------------------------------

    def start(self) -> None:
        """Begin replicating in the background; returns at once. Idempotent.

        Raises:
            MixedSQLiteCopiesError: another copy of SQLite has the file open here.
            DatabaseStateError: another Replicator has it, or no metadata folder.
            ReplicatorClosedError: in the child of a fork.
        """
        self._refuse_in_child()
        with self._lock:
            if self._running is not None:
                return
            copy = copy_of(self._options.connect)
            check_before_open(self._options.path, copy)
            meta = MetaFolder(self._options.meta_path, self._options.path)
            try:
                running = Running(self._options, copy, meta)
            except BaseException:
                meta.close()
                raise
            self._running = running
            _started.add(self)
            running.begin()

    def stop(self, timeout: float | None = None) -> None:
        """Flush, stop the threads and let the database go. Idempotent.

        What could not be flushed within ``timeout`` seconds (``stop_timeout`` by default)
        is not lost: it is in the database, and the next start ships it.

        Raises:
            SQLiteReplicaError: the last flush failed; everything is stopped all the same.
        """
        if self._pid != os.getpid():
            return
        limit = self._stop_timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        with self._lock:
            running = self._running
            if running is None:
                return
            try:
                self.sync(timeout=limit)
            finally:
                self._running = None
                _started.discard(self)
                running.end(deadline - time.monotonic())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except SQLiteReplicaError as failure:
            if error is None:
                raise
            error.add_note(f"while stopping: {failure}")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # -- durability ------------------------------------------------------------------

    def sync(self, timeout: float | None = 30.0) -> None:
        """Return when every commit made before the call is durable in every replica.

        A database that does not exist yet has nothing to be made durable. Callers that
        wait at the same time share one upload.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            SyncTimeoutError: not confirmed in time; whether it was reached is unknown.
            StoreError: a replica failed in a way that waiting will not cure.
            DatabaseStateError: the database cannot be captured.
            ReplicatorClosedError: not running.
        """
        running, ticket = self._ticket(timeout)
        try:
            ticket.future.result(timeout)
        except FutureTimeoutError:
            _timed_out(running.engine, ticket, timeout)

    async def sync_async(
        self,
        timeout: float | None = 30.0,  # noqa: ASYNC109
    ) -> None:
        """``sync`` for asyncio; blocks no thread. Raises as ``sync``."""
        running, ticket = self._ticket(timeout)
        # Shielded: the wait is shared, a caller that is cancelled must not cancel it.
        waiting = asyncio.shield(asyncio.wrap_future(ticket.future))
        try:
            await asyncio.wait_for(waiting, timeout)
        except TimeoutError:
            _timed_out(running.engine, ticket, timeout)

    def _ticket(self, timeout: float | None) -> tuple[Running, Ticket]:
        running = self._running_now()
        ticket = running.engine.tickets.take(time.monotonic(), timeout)
        running.wake()
        return running, ticket

    # -- history ---------------------------------------------------------------------

    def snapshot(self, timeout: float | None = 300.0) -> None:
        """Store a full snapshot (level 9) of the present state in every replica.

        Returns when they are durable; a restore then needs nothing older.

        Raises:
            SyncTimeoutError: not all were stored within ``timeout`` seconds.
            StoreError, DatabaseStateError, ReplicatorClosedError: as ``sync``.
        """
        running = self._running_now()
        end = None if timeout is None else time.monotonic() + timeout
        self.sync(timeout)
        for line, future in running.request_snapshots():
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                future.result(left)
            except FutureTimeoutError:
                cause = line.history.error or line.worker.health.error
                raise SyncTimeoutError(
                    timeout or 0.0,
                    pending=(line.worker.name,),
                    cause=str(cause) if cause else None,
                ) from cause

    def compact(self) -> None:
        """``sync``, then merge what waits at every level of every replica.

        That happens in the background anyway, at the intervals of ``levels``.

        Raises:
            StoreError: a store failed.
            InvalidFileError, PosMismatchError: files are damaged or do not join; they
                are repaired in the background.
            SyncTimeoutError, DatabaseStateError, ReplicatorClosedError: as ``sync``.
        """
        running = self._running_now()
        self.sync()
        for line in running.lines:
            line.compact()

    def pin(self, name: str, timeout: float | None = 30.0) -> tuple[Pin, ...]:
        """``sync``, then pin that state in every replica, or in none if one fails.

        Raises as ``sync`` and as ``Replica.pin``.
        """
        check_pin_name(name)
        engine = self._running_now().engine
        self.sync(timeout)
        return pin_everywhere(name, self._options.replicas, engine.workers)

    # -- status ----------------------------------------------------------------------

    def status(self) -> Status:
        """What is going on, as a frozen value; never blocks and never raises."""
        if self._pid != os.getpid():
            return self._idle_status("forked")
        running = self._running
        return self._idle_status("stopped") if running is None else running.status()

    def _idle_status(self, state: str) -> Status:
        return Status(
            database=self._options.path,
            state=state,
            txid=0,
            error=None,
            pending_pages=0,
            replicas=(),
        )

    def _running_now(self) -> Running:
        self._refuse_in_child()
        running = self._running
        if running is None:
            raise ReplicatorClosedError(
                f"the Replicator of {self._options.path} is not running: call start()"
                " first, or use it in a with statement"
            )
        return running

    def _refuse_in_child(self) -> None:
        if self._pid != os.getpid():
            raise ReplicatorClosedError(
                f"this Replicator of {self._options.path} was made before fork(); make a"
                " new one in the child, or replicate in the parent only",
                kind="forked",
            )


def _timed_out(engine: Engine, ticket: Ticket, timeout: float | None) -> None:
    """Raise SyncTimeoutError, unless the ticket was settled in the last moment."""
    if ticket.future.done() or timeout is None:
        return ticket.future.result()
    seq = engine.capture.seq if ticket.seq is None else ticket.seq
    behind = [w for w in engine.workers if w.acked < seq] or engine.workers
    cause = next((w.health.error for w in behind if w.health.error), engine.error)
    raise SyncTimeoutError(
        timeout,
        pending=tuple(w.name for w in behind),
        cause=str(cause) if cause else None,
    ) from cause


def _stop_all() -> None:
    """At interpreter exit: flush what runs; failures can only be reported."""
    for replicator in list(_started):
        try:
            replicator.stop()
        except Exception as error:  # noqa: BLE001  (the others are to be flushed, too)
            event = Event(
                action="exit-flush-failed",
                database=replicator.database,
                level=40,
                error=error,
            )
            replicator._options.observer(event)


def _after_fork_in_child() -> None:
    """Make every Replicator inert and keep what it inherited from being closed."""
    for replicator in list(_started):
        if replicator._running is not None:
            replicator._running.disown()
    forget_driver()
    forget_housekeeper()
    forget_locks()


# Before the thread pools shut down (the plain atexit comes after), or a store that has to
# connect anew could not: s3fs resolves names in such a pool.
getattr(threading, "_register_atexit", atexit.register)(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
