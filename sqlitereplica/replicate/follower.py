"""``Follower``: a plain SQLite file that keeps up with a replica.

The work is done by ``restore/following.py``, a step at a time, in one thread that this
object owns (``followthread.py``).

A follower that does not get on says so: ``status()`` has the error and a lag that grows,
an event is reported when a row of failures begins and when it ends, and ``wait`` raises.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlitereplica.durations import Duration, parse_duration
from sqlitereplica.errors import ReplicatorClosedError
from sqlitereplica.events import Observer, Reporter, guarded, log_event
from sqlitereplica.lifetime import Lifetime
from sqlitereplica.markup import card, moment_text
from sqlitereplica.policy import Lease
from sqlitereplica.replicate.ending import at_exit
from sqlitereplica.replicate.fence import Fence
from sqlitereplica.replicate.followthread import FollowThread, too_late
from sqlitereplica.replicate.leasing import Leasing
from sqlitereplica.replicate.metafolder import MetaFolder, default_folder
from sqlitereplica.replicate.options import database_path
from sqlitereplica.replicate.promotion import promote
from sqlitereplica.restore.choose import Source, open_store
from sqlitereplica.restore.following import Following
from sqlitereplica.sqlite import Connect, copy_of
from sqlitereplica.store import LTXStore, Replica

__all__ = ["Follower", "FollowerStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerStatus:
    """A Follower at one moment."""

    database: str
    """Absolute path of the file."""
    replica: str
    """What it follows: a URL without secrets."""
    state: str
    """``stopped``, ``starting`` (no file yet), ``catching-up``, ``following``,
    ``failing``, ``promoted`` or ``forked``."""
    txid: int
    """The transaction that readers of the file see; 0 before there is one."""
    newest_txid: int
    """The newest transaction that was seen in the replica."""
    timestamp: datetime | None
    """When the state of the file was replicated, by the clock of the source."""
    lag_seconds: float | None
    """Seconds since the file was last known to have all that the replica had; None before."""
    last_success: datetime | None
    """When the replica was last read without a failure."""
    error: str | None
    """What fails at present; None when nothing does."""

    def to_json(self) -> bytes:
        """The fields as one JSON object, for a health endpoint; times in RFC 3339."""
        import msgspec

        return msgspec.json.encode(self)

    @property
    def ok(self) -> bool:
        """True when the file keeps up."""
        return self.state == "following" and self.error is None

    def _repr_html_(self) -> str:
        """For notebooks."""
        lag = None if self.lag_seconds is None else f"{self.lag_seconds:.3g} s"
        return card(
            self.state,
            self.database,
            [
                ("replica", self.replica),
                ("transaction", f"{self.txid} of {self.newest_txid}"),
                ("its time", moment_text(self.timestamp)),
                ("lag", lag),
                ("last success", moment_text(self.last_success)),
            ],
            ok=self.ok,
            lines=[self.error] if self.error else [],
        )


_EXIT_TIMEOUT = 5.0

_started: set[Follower] = set()
"""Those that are running, which end before the interpreter does."""


class Follower(Lifetime):
    """Keeps a local file at the newest state of a replica. Thread-safe.

    Example:
        >>> with Follower("s3://bucket/app", "copy.db") as f:  # doctest: +SKIP
        ...     f.wait()
        ...     sqlite3.connect("file:copy.db?mode=ro", uri=True)
    """

    def __init__(
        self,
        replica: Source,
        path: str | os.PathLike[str],
        *,
        connect: Connect = sqlite3.connect,
        interval: Duration = "1s",
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        meta_path: str | os.PathLike[str] | None = None,
        observer: Observer = log_event,
    ) -> None:
        """Describe what to follow where; ``start`` or ``with`` begins.

        Args:
            replica: A URL, a folder, a ``Replica`` or an ``LTXStore``.
            path: The file; made if it is missing.
            connect: Opens it with the same copy of SQLite as its readers in this process:
                ``sqlite3.connect``, ``apsw.Connection``, or a factory of your own, which
                must not set the journal mode.
            interval: How often the replica is looked at.
            overwrite: Replace what is at the path when it is not a state of this replica:
                another database, a copy that somebody has written to, or one of a history
                that the replica does not continue. Without it these are errors.
            storage_options: For the filesystem of a URL.
            meta_path: The metadata folder, if not ``.<name>-sqlitereplica`` beside it.
            observer: Is given every ``Event``; the default logs.

        Raises:
            ValueError: an argument that cannot be meant.
        """
        self._path = database_path(path)
        self._meta_path = Path(meta_path) if meta_path else default_folder(self._path)
        self._interval = parse_duration(interval, "interval").total_seconds()
        if not self._interval:
            raise ValueError("interval must be above 0 seconds")
        self._replica, self._options = replica, storage_options
        self._name = _name_of(replica, storage_options)
        self._connect, self._overwrite = connect, overwrite
        self._observer = guarded(observer)
        self._report = Reporter(self._observer, self._path, self._name)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._running: FollowThread | None = None
        self._node = 0

    @property
    def database(self) -> str:
        """Absolute path of the file."""
        return self._path

    def start(self) -> None:
        """Begin to follow in the background; returns at once. Idempotent.

        Raises:
            DatabaseStateError: another Follower or Replicator has the file.
            ReplicatorClosedError: in the child of a fork.
        """
        self._refuse_in_child()
        with self._lock:
            if self._running is None:
                self._running = self._begin()
                _started.add(self)

    def _begin(self) -> FollowThread:
        copy = copy_of(self._connect)
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        meta = MetaFolder.locked(self._meta_path, self._path)
        self._node = meta.node_id
        following = Following(
            self._path,
            self._open,
            self._connect,
            copy=copy,
            notes=meta.path / "held",
            overwrite=self._overwrite,
            report=lambda why: self._report("follow-renew", logging.WARNING, why=why),
        )
        running = FollowThread(following, meta, self._interval, self._report)
        running.thread.start()
        return running

    def stop(self, timeout: float = 30.0) -> None:
        """Stop following and let the file go. Idempotent.

        It waits up to ``timeout`` seconds for what is being fetched; a store that hangs
        longer keeps the file locked until it answers.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            running, self._running = self._running, None
            _started.discard(self)
        if running is not None:
            running.stop(timeout)

    def wait(
        self, txid: int | None = None, timeout: float | None = 30.0
    ) -> FollowerStatus:
        """Return when the file holds a transaction, or all that the replica has now.

        Args:
            txid: The transaction, or a later one; by default whatever the replica has
                when this is called.
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            FollowTimeoutError: not in time; what fails, if anything, is its cause.
            PosMismatchError, TargetExistsError, DatabaseStateError: it will not get
                there by itself.
            ReplicatorClosedError: not running, or stopped meanwhile.
        """
        running = self._running_now()
        if not running.wait(txid, timeout):
            raise too_late(running, txid, timeout)
        return self.status()

    async def wait_async(
        self,
        txid: int | None = None,
        timeout: float | None = 30.0,  # noqa: ASYNC109
    ) -> FollowerStatus:
        """``wait`` for asyncio, in a thread of its pool. Raises as ``wait``."""
        return await asyncio.to_thread(self.wait, txid, timeout)

    def promote(
        self,
        *,
        lease: Lease | Duration | bool = True,
        before: Callable[[], object] | None = None,
        timeout: float | None = 60.0,
    ) -> FollowerStatus:
        """Make the file a database of its own, and end following it.

        It takes the lease of the replica, takes in all that the replica has, puts a file
        behind it so that nobody else can (the fence), becomes writable in WAL mode, and is
        let go. A ``Replicator`` of it on the same replica then goes on with the next
        transaction, and uploads only what changes. With ``lease=`` it has the lease at
        once; nobody else can take it before its TTL has passed.

        Killed at any point, or after an error, it can be called again, in a new process.

        Args:
            lease: As for a ``Replicator``. A store that cannot hold one is named by the
                event ``lease-unsupported``; the fence is put there, too. False: take no
                lease, and write nothing to the replica.
            before: Called first: what else makes sure that nobody writes to the replica
                any more. If it raises, nothing is done.
            timeout: Seconds to wait for another's lease to end, and for the rest; None
                for as long as it takes, and for the lease as long as ``Lease.wait``.

        Raises:
            LeaseHeldError: Another host holds the lease; it is followed as before.
            LeaseLostError: Another host has taken it over meanwhile; likewise.
            AnotherWriterError: Somebody without a lease wrote behind the fence; likewise.
            StoreError: The replica can only be read; likewise.
            FollowTimeoutError: The replica could not be read to its end or not be written
                to, or readers kept the file busy; likewise.
            PosMismatchError, TargetExistsError, DatabaseStateError: as ``wait``.
            ReplicatorClosedError: not running, or stopped meanwhile.
        """
        running, wanted = self._running_now(), Lease.of(lease)
        if before is not None:
            before()
        promote(running, self._leasing, self._fence, wanted, timeout)
        status = self.status()
        with self._lock:
            self._running = None
            _started.discard(self)
        return status

    def _leasing(self, lease: Lease) -> Leasing:
        return Leasing(
            lambda: self._open().lease_object(),
            replica=self._name,
            database=self._path,
            node=self._node,
            ttl=lease.ttl_seconds,
            observer=self._observer,
        )

    def _fence(self, leasing: Leasing) -> Fence:
        return Fence(
            leasing,
            self._open,
            database=self._path,
            node=self._node,
            observer=self._observer,
        )

    def _open(self) -> LTXStore:
        return open_store(self._replica, self._options)

    def status(self) -> FollowerStatus:
        """What is going on, as a frozen value; never blocks and never raises."""
        running = self._running
        if self._pid != os.getpid():
            return self._status("forked")
        if running is None:
            return self._status("stopped")
        held, error = running.following.held, running.health.error
        current = running.current_at
        return self._status(
            running.state,
            txid=0 if held is None else held.txid,
            newest_txid=running.following.newest,
            timestamp=None if held is None else _datetime(held.timestamp / 1000),
            lag_seconds=None if current is None else time.monotonic() - current,
            last_success=_datetime(running.health.last_success),
            error=None if error is None else str(error),
        )

    def _status(self, state: str, **fields: Any) -> FollowerStatus:
        nothing: dict[str, Any] = {
            "txid": 0,
            "newest_txid": 0,
            "timestamp": None,
            "lag_seconds": None,
            "last_success": None,
            "error": None,
        }
        return FollowerStatus(
            database=self._path,
            replica=self._name,
            state=state,
            **{**nothing, **fields},
        )

    def _running_now(self) -> FollowThread:
        self._refuse_in_child()
        running = self._running
        if running is None:
            raise ReplicatorClosedError(
                f"the Follower of {self._path} is not running: call start() first, or"
                " use it in a with statement"
            )
        return running

    def _refuse_in_child(self) -> None:
        if self._pid != os.getpid():
            raise ReplicatorClosedError(
                f"this Follower of {self._path} was made before fork(); make a new one"
                " in the child, or follow in the parent only",
                kind="forked",
            )


def _name_of(replica: Source, options: Mapping[str, Any] | None) -> str:
    """The name of a replica; raises ValueError for what is none."""
    if isinstance(replica, LTXStore | Replica) and options is not None:
        raise ValueError("storage_options are for a URL: a Replica has its own")
    if isinstance(replica, LTXStore):
        return replica.name
    if not isinstance(replica, Replica):
        replica = Replica(replica, storage_options=options)
    return replica.display_name


def _datetime(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _stop_all() -> None:
    """End between two steps at interpreter exit, though a kill would do no harm."""
    for follower in list(_started):
        follower.stop(_EXIT_TIMEOUT)


at_exit(_stop_all, flush=lambda: None)
