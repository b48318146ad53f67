"""``Replicator``: the object that applications use.

Every process of an application has one, and of those for one database one is elected: it
has the lock of the metadata folder. There the ``Replicator`` is ``Running``; everywhere else
it is a ``Peer``, which asks the elected one and waits for its turn. In the child of a fork it
is a ``Peer`` of its own, whatever it was in the parent.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from sqlitereplica.durations import Duration
from sqlitereplica.errors import (
    DatabaseStateError,
    LeaseHeldError,
    ReplicatorClosedError,
)
from sqlitereplica.events import (
    Event,
    Observer,
    guarded,
    log_event,
    refuse_in_observer,
)
from sqlitereplica.lifetime import Lifetime
from sqlitereplica.policy import Lease, Retention
from sqlitereplica.replicate.boot import RestoreWhen, fetch_if_missing
from sqlitereplica.replicate.calls import (
    AwaitTurn,
    Call,
    Compact,
    EnforceRetention,
    MakePin,
    Snapshot,
)
from sqlitereplica.replicate.embedding import begin_here, unnoticed_fork
from sqlitereplica.replicate.living import inherited, made, started
from sqlitereplica.replicate.metafolder import MetaFolder, default_folder
from sqlitereplica.replicate.options import (
    HistoryOptions,
    Options,
    ReplicaLike,
    database_path,
    replica_values,
    seconds_of,
)
from sqlitereplica.replicate.peer import Peer
from sqlitereplica.replicate.running import Running
from sqlitereplica.replicate.status import Status
from sqlitereplica.replicate.waiting import Require, Waiting, seconds
from sqlitereplica.restore.restore import check_choice
from sqlitereplica.sqlite import Connect, copy_of
from sqlitereplica.sqlite.descriptors import file_id, is_open_here
from sqlitereplica.sqlite.forking import locks_are_real
from sqlitereplica.sqlite.hazards import check_before_open
from sqlitereplica.store import Pin
from sqlitereplica.store.pins import check_pin_name

__all__ = ["Replicator"]

_REJOIN_AFTER = 0.5
"""Seconds; many children of a fork live shorter, or become another program."""


@runtime_checkable
class _Unfinished(Protocol):
    """A database that lacks pages until it is finished: a ``Branch``."""

    def finish(self) -> object: ...


class Replicator(Waiting, Lifetime):
    """Replicates one SQLite database, continuously, from inside the application.

    Thread-safe: every method may be called from any thread. Owns its threads and, beside
    the database, a metadata folder; writes nothing to the database itself. Every process
    may have one: one of them replicates and answers for the others, and when it ends
    another goes on. In the child of a ``fork()`` the copy is one more of these.

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
        sync_interval: Duration = 1.0,
        require: Require = "all",
        set_wal: bool = True,
        buffer_size: int = 32 << 20,
        spool_size: int = 1 << 30,
        meta_path: str | os.PathLike[str] | None = None,
        stop_timeout: Duration = 30.0,
        levels: Sequence[Duration] = ("30s", "5m", "1h"),
        snapshot_interval: Duration | None = "24h",
        retention: Retention | Duration | None = None,
        verify_interval: Duration | None = None,
        lease: Lease | Duration | bool | None = None,
        standby: bool = False,
        restore: RestoreWhen | None = None,
        observer: Observer = log_event,
    ) -> None:
        """Describe what to replicate where; ``start`` or ``with`` begins.

        Args:
            db: The database file. It may be missing for now; it is waited for. Or a
                ``Branch``, which ``start`` finishes first.
            replicas: URLs, folders or ``Replica`` values, independent of each other.
            connect: Opens the database as the application does, with the same copy of
                SQLite: ``sqlite3.connect``, ``apsw.Connection``, or your own factory.
            sync_interval: Seconds, or text such as ``"100ms"``, from the moment a commit
                is noticed (a few hundredths after it) to the upload that carries it.
            require: How many replicas ``sync`` and its like wait for, unless they say
                otherwise: ``"all"``, ``"any"`` (one of them), or a number.
            set_wal: Switch a database in another journal mode to WAL.
            buffer_size: Bytes of captured pages kept in memory, in all.
            spool_size: Bytes of captured changes kept on disk while a store is away;
                beyond, the store is brought up by a comparison when it returns.
            meta_path: The metadata folder, if not ``.<name>-sqlitereplica`` beside it.
            stop_timeout: How long ``stop`` (also at the end of ``with`` and at interpreter
                exit) waits for a last flush; likewise.
            levels: How often level 1, 2, ... are made of the files of the level below.
            snapshot_interval: How often a full snapshot is made of a database that
                changes; None for only as often as restores would become expensive.
            retention: Which restore points stay: a ``Retention``, or its window such as
                ``"30d"``; 24 hours by default. A ``Replica`` may have its own.
            verify_interval: How often each replica is restored and checked in the
                background, slowly; None for never.
            lease: One host at a time replicates: True, or how long after its last sign
                of life a host is taken for dead, such as ``"30s"``, or a ``Lease``. By
                default there is none: whoever comes second fails at its first put.
            standby: Keep the database at the newest state of the first replica while
                another host holds the lease, and replicate once it is free.
            restore: ``"if-missing"``: ``start`` first restores the database from the best
                replica, if there is none here and there is a backup.
            observer: Is given every ``Event``; the default logs.

        Raises:
            ValueError: an argument that cannot be meant.
        """
        if restore is not None:
            check_choice("restore", restore, get_args(RestoreWhen))
        path = database_path(db)
        stores, mirrors = replica_values(replicas)
        self._options = Options(
            path=path,
            replicas=stores,
            mirrors=mirrors,
            connect=connect,
            sync_interval=seconds_of(sync_interval, "sync_interval"),
            set_wal=set_wal,
            buffer_size=buffer_size,
            spool_size=spool_size,
            meta_path=Path(meta_path) if meta_path else default_folder(path),
            observer=guarded(observer),
            history=HistoryOptions.of(
                levels, snapshot_interval, retention, verify_interval
            ),
            lease=Lease.of(standby if lease is None else lease),
            standby=standby,
        )
        super().__init__(require, replicas=len(self._options.names))
        self._stop_timeout = seconds_of(stop_timeout, "stop_timeout")
        self._restore = restore
        self._branch = db if isinstance(db, _Unfinished) else None
        self._booting = False
        self._rejoins = True
        """Whether the copy in the child of a fork goes on."""
        self._make_locks()
        self._role: Running | Peer | None = None
        self._inherited_it = False
        """Whether connections of the parent are open in this child of a fork."""
        made.add(self)

    def _make_locks(self) -> None:
        self._lock = threading.RLock()  # the role
        self._changing = threading.RLock()  # start and stop, one at a time

    @property
    def database(self) -> str:
        """Absolute path of the database file."""
        return self._options.path

    # -- start and stop --------------------------------------------------------------

    def start(self) -> None:
        """Begin replicating, or to wait for one's turn; returns at once. Idempotent.

        With ``lease=`` it returns when this host may write to the database; as a
        ``standby`` at once, see ``wait_active``.
        With ``restore`` it returns when the database is there, or there is no backup: of
        several processes one restores and the others wait for it.

        Raises:
            MixedSQLiteCopiesError: another copy of SQLite has the file open here.
            DatabaseStateError: another Replicator of this process has it, no metadata
                folder, or a server that forks in secret; DivergedError: the database is
                not what another host has replicated.
            LeaseHeldError: another host kept the lease for as long as ``Lease.wait``.
            SQLiteReplicaError, OSError: the database cannot be restored, as ``restore``.
        """
        begin_here(self._options.path)
        with self._changing:
            if self._role is not None:
                return
            self._booting = bool(self._restore or self._branch)
            try:
                self._begin()
                if self._booting:
                    self._wait_for_boot()
            finally:
                self._booting = False
        lease = self._options.lease
        if lease is None or self._options.standby:
            return
        try:
            self.wait_active(lease.wait_seconds)
        except BaseException:
            with self._changing:
                self._end_role(0.0)
            raise

    def wait_active(self, timeout: float | None = None) -> None:
        """Return when this host replicates, or another process of it: at once, mostly.

        A standby may write to its database from then on, and not before.

        Raises:
            LeaseHeldError: another host still holds the lease after ``timeout`` seconds.
            DivergedError, StoreError, SyncTimeoutError: this host cannot begin.
            ReplicatorClosedError: not running.
        """
        self._call(AwaitTurn(timeout=seconds(timeout)))

    def _begin(self) -> None:
        """Take a role."""
        with self._lock:
            check_before_open(self._options.path, copy_of(self._options.connect))
            folder = MetaFolder(self._options.meta_path, self._options.path)
            try:
                if self._inherited_it or not folder.try_lock():
                    self._role = peer = self._make_peer(folder)
                    peer.used = True
                    peer.begin()
                else:
                    self._run(folder)
            except BaseException:
                folder.close()
                raise
            started.add(self)

    def _make_peer(self, folder: MetaFolder | None, delay: float = 0.0) -> Peer:
        return Peer(
            self._options,
            folder,
            self._promote,
            may_lead=self._refuse_unreal_locks,
            delay=delay,
        )

    def _run(self, folder: MetaFolder) -> Running:
        copy = copy_of(self._options.connect)
        check_before_open(self._options.path, copy)
        options = self._options
        if self._branch is not None:
            self._branch.finish()
        if self._restore and self._booting:
            options = fetch_if_missing(options)
        running = Running(options, copy, folder)
        before, self._role = self._role, running
        try:
            running.begin()
        except BaseException:  # no thread can be had, for one
            self._role = before
            running.end(0.0)
            raise
        return running

    def _wait_for_boot(self) -> None:
        """Return when whoever is elected has fetched the database."""
        peer = self._role
        if not isinstance(peer, Peer):
            return
        peer.settled.wait()
        if peer.failed is not None:
            self._end_role(self._stop_timeout)
            raise peer.failed

    def _promote(self, peer: Peer, folder: MetaFolder) -> Running | None:
        """In the peer's thread: this process is elected; None if it was stopped."""
        with self._lock:
            return self._run(folder) if self._role is peer else None

    def _refuse_unreal_locks(self) -> None:
        """In the child of a fork: whether its SQLite can be relied on."""
        path, connect = self._options.path, self._options.connect
        if not self._inherited_it:
            return
        check_before_open(path, copy_of(connect))
        if locks_are_real(path, connect):
            self._inherited_it = False  # they were closed since
            return
        raise DatabaseStateError(
            f"{path} was open when this process was forked, so SQLite's locks do not work"
            " in it and it may lose data: close every connection before fork(). Another"
            " process may replicate, this one cannot",
            path=path,
            kind="forked",
        )

    def stop(self, timeout: float | None = None) -> None:
        """Flush, stop the threads and let the database go. Idempotent.

        What could not be flushed within ``timeout`` seconds (``stop_timeout`` by default)
        is not lost: it is in the database, and the next start ships it. Where another
        process replicates, that one goes on; if none does, this one takes over to flush.

        Raises:
            SQLiteReplicaError: the last flush failed; everything is stopped all the same.
        """
        refuse_in_observer("stop()")
        if unnoticed_fork(self._options.path):
            started.discard(self)
            return  # there is nothing that could be waited for
        limit = self._stop_timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        with self._changing:
            if self._role is None:
                return
            try:
                self._flush(limit)
            finally:
                self._end_role(deadline - time.monotonic())

    def _flush(self, limit: float | None = None) -> None:
        """Bring what was committed here to the replicas; raises as ``sync``."""
        limit = self._stop_timeout if limit is None else limit
        with suppress(LeaseHeldError):  # a standby: there is nothing to flush
            if self._was_used():
                self.sync(timeout=limit, require="all")

    def _end_role(self, timeout: float) -> None:
        with self._lock:
            role, self._role = self._role, None
            started.discard(self)
        if role is not None:
            role.end(timeout)

    def _was_used(self) -> bool:
        """Not so in a child of a fork that did nothing with the copy that it got."""
        role = self._role
        if isinstance(role, Running):
            return not role.has_nothing_to_flush
        return not isinstance(role, Peer) or role.used

    def _after_fork(self) -> None:
        """In the child: nothing of the parent's is touched; begin anew if it had."""
        was, self._role = self._role, None
        self._make_locks()
        key = file_id(self._options.path)
        if key is not None and is_open_here(key):
            self._inherited_it = True
        if was is not None:
            inherited.append(was)
        if was is not None and self._rejoins:
            self._role = peer = self._make_peer(None, _REJOIN_AFTER)
            peer.begin()

    # -- calls -----------------------------------------------------------------------

    def _call(self, call: Call) -> Any:
        role = self._role_now()
        if isinstance(role, Running):
            return call.run(role)
        return role.submit(call).wait()

    # -- history ---------------------------------------------------------------------

    def snapshot(self, timeout: float | None = 300.0) -> None:
        """Store a full snapshot (level 9) of the present state in every replica.

        Returns when they are durable; a restore then needs nothing older.

        Raises:
            SyncTimeoutError: not all were stored within ``timeout`` seconds.
            StoreError, DatabaseStateError, ReplicatorClosedError: as ``sync``.
        """
        self._call(Snapshot(timeout=seconds(timeout)))

    def compact(self) -> None:
        """``sync``, then merge what waits at every level of every replica.

        That happens in the background anyway, at the intervals of ``levels``.

        Raises:
            StoreError: a store failed.
            InvalidFileError, PosMismatchError: files are damaged or do not join; they
                are repaired in the background.
            SyncTimeoutError, DatabaseStateError, ReplicatorClosedError: as ``sync``.
        """
        self._call(Compact())

    def enforce_retention(self) -> None:
        """Delete now from every replica what its ``Retention`` need not keep.

        That happens in the background anyway, after the grace for who may be reading
        (``Retention.grace``). Here there is none.

        Raises:
            StoreError: a store failed.
            InvalidFileError: a pin is damaged, so nothing was deleted.
            ReplicatorClosedError: not running.
        """
        self._call(EnforceRetention())

    def pin(self, name: str, timeout: float | None = 30.0) -> tuple[Pin, ...]:
        """``sync``, then pin that state in every replica, or in none if one fails.

        Raises as ``sync`` and as ``Replica.pin``.
        """
        check_pin_name(name)
        pins: tuple[Pin, ...] = self._call(MakePin(name=name, timeout=seconds(timeout)))
        return pins

    # -- status ----------------------------------------------------------------------

    def status(self) -> Status:
        """What is going on, as a frozen value; never raises.

        It is that of the process that replicates. If that is another one and does not
        answer, a second passes.
        """
        role, error = self._role, unnoticed_fork(self._options.path)
        if role is not None and error is None:
            return role.status()
        return Status(
            database=self._options.path,
            state="failed" if error else "stopped",
            txid=0,
            error=str(error) if error else None,
            pending_pages=0,
            replicas=(),
        )

    def _observe(self, action: str, **event: Any) -> None:
        observe = self._options.observer
        observe(Event(action=action, database=self._options.path, **event))

    @property
    def _running(self) -> Running | None:
        """What runs here, if this process is elected."""
        return self._role if isinstance(self._role, Running) else None

    def _role_now(self) -> Running | Peer:
        refuse_in_observer("a call of the Replicator")
        role = self._role
        if error := unnoticed_fork(self._options.path):
            raise error
        if role is None:
            raise ReplicatorClosedError(
                f"the Replicator of {self._options.path} is not running: call start()"
                " first, or use it in a with statement"
            )
        return role
