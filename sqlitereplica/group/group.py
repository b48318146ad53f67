"""``ReplicatorGroup``: every database of a folder, thousands of them if need be."""

from __future__ import annotations

import asyncio
import atexit
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Unpack

from sqlitereplica.durations import Duration, parse_duration
from sqlitereplica.errors import (
    DatabaseStateError,
    ReplicatorClosedError,
    SQLiteReplicaError,
)
from sqlitereplica.events import Event, Observer, Ungauged, guarded, log_event
from sqlitereplica.group.decide import Rules, State
from sqlitereplica.group.folder import Folder
from sqlitereplica.group.hands import Hands
from sqlitereplica.group.judgement import (
    assess,
    member_status,
    status_of,
    stopped_status,
)
from sqlitereplica.group.keeper import Keeper
from sqlitereplica.group.member import Member
from sqlitereplica.group.naming import Naming
from sqlitereplica.group.pool import Pool, Work, anew
from sqlitereplica.group.record import Parked, Records, fingerprint
from sqlitereplica.group.scanner import Scanner
from sqlitereplica.group.settings import ReplicatorSettings
from sqlitereplica.group.signature import Signature, sealed
from sqlitereplica.group.status import GroupHealth, GroupStatus, MemberStatus
from sqlitereplica.lifetime import Lifetime
from sqlitereplica.replicate import Replicator
from sqlitereplica.replicate.inside import keep_out_of_forks
from sqlitereplica.replicate.options import ReplicaLike
from sqlitereplica.sqlite import Connect

__all__ = ["ReplicatorGroup"]


class ReplicatorGroup(Lifetime):
    """Replicates all databases of a folder, each to a replica of its own.

    Thread-safe. Only a few have a ``Replicator`` at work at a time. One that nobody writes to
    is *parked*: it has no thread, no connection and no file open, and its files are looked at
    now and then by ``stat``. Once they change it is started again, in its turn.

    Example:
        >>> with ReplicatorGroup(
        ...     "tenants", replica="s3://bucket/{name}"
        ... ) as group:  # doctest: +SKIP
        ...     group.sync()
    """

    def __init__(
        self,
        dir: str | os.PathLike[str],
        replica: Sequence[ReplicaLike] | ReplicaLike | None = None,
        *,
        replicas: Sequence[ReplicaLike] | ReplicaLike | None = None,
        pattern: str = "*.db",
        recursive: bool = False,
        watch: bool = True,
        connect: Connect = sqlite3.connect,
        max_running: int = 32,
        park_after: Duration = 30.0,
        scan_interval: Duration = 1.0,
        meta_dir: str | os.PathLike[str] | None = None,
        stop_timeout: float = 30.0,
        observer: Observer = log_event,
        **settings: Unpack[ReplicatorSettings],
    ) -> None:
        """Describe what to replicate where; ``start`` or ``with`` begins.

        Args:
            dir: The folder.
            replica: Where to: a URL, a folder, a ``Replica`` or a ``Mirror``, in which
                ``{path}`` stands for a database's path below the folder, ``{file}`` for
                its file name and ``{name}`` for that without the suffix. Without any of
                them ``/{path}`` is added.
            replicas: Several of them; another name for ``replica``.
            pattern: Which file names are databases, as in a shell. Names that begin with a
                dot are none, nor are SQLite's own sidecars.
            recursive: Also those in folders below. Links to folders are not followed.
            watch: Take in databases that appear later. Without it those count that are
                there at the start.
            connect: As of ``Replicator``.
            max_running: How many have a Replicator at work at a time.
            park_after: How long nobody must have written to a database until it is parked.
            scan_interval: Seconds between looks at the files of parked ones, at least; with
                very many it is longer, so that they never take more than 1 % of a core. Where
                inotify tells of changes it is 30 times as long, up to 30 s.
            meta_dir: Keep the metadata folders there, as ``<path>-sqlitereplica``, and not
                beside the databases.
            stop_timeout: Seconds that ``stop`` waits for last flushes.
            observer: Is given every event, but no ``status``: that would be one for each
                database.
            settings: Further arguments of each ``Replicator``: ``sync_interval``,
                ``require``, ``set_wal``, ``buffer_size``, ``spool_size``, ``levels``,
                ``snapshot_interval``, ``retention``.

        Raises:
            ValueError: an argument that cannot be meant.
        """
        given = replica if replicas is None else replicas
        if given is None or (replica is not None and replicas is not None):
            raise ValueError("give replica= or replicas=")
        if not pattern or "/" in pattern:
            raise ValueError(f"pattern is for file names, such as '*.db': {pattern!r}")
        if max_running < 1:
            raise ValueError(f"max_running must be 1 at least: {max_running!r}")
        self._path = os.path.realpath(dir)
        self._meta_dir = None if meta_dir is None else os.path.abspath(meta_dir)
        self._naming = Naming(self._path, given, self._meta_dir)
        self._pattern, self._recursive, self._watch = pattern, recursive, watch
        self._connect, self._max_running = connect, max_running
        self._rules = Rules(park_after=_seconds(park_after, "park_after"))
        self._interval = _seconds(scan_interval, "scan_interval")
        self._stop_timeout = stop_timeout
        self._observer = guarded(observer)
        self._for_each = Ungauged(self._observer)
        self._settings = settings
        self._seal = partial(sealed, connect=connect)
        self._make("x.db")  # raises what is wrong with the settings
        self._changing = threading.RLock()
        self._keeper: Keeper | None = None
        self._scanner: Scanner | None = None
        _made.add(self)

    @property
    def dir(self) -> str:
        """The folder, absolute."""
        return self._path

    # -- start and stop --------------------------------------------------------------

    def start(self) -> None:
        """Look at the folder once, and begin; idempotent.

        Raises:
            DatabaseStateError: ``kind`` ``"folder"``: it cannot be read, and without
                ``watch`` it would not be looked at again.
        """
        with self._changing:
            if self._keeper is not None:
                return
            keeper = self._make_keeper()
            keeper.sweep()
            error = keeper.errors.get("")
            if error is not None and not self._watch:
                raise DatabaseStateError(
                    f"{self._path} cannot be read: {error}",
                    path=self._path,
                    kind="folder",
                ) from error
            self._scanner = Scanner(keeper, self._path, interval=self._interval)
            self._keeper = keeper
            self._scanner.start()
            _started.add(self)

    def stop(self, timeout: float | None = None) -> None:
        """Flush what runs, and stop it all; idempotent.

        Raises:
            SQLiteReplicaError, OSError: what went wrong first, with notes of the others;
                all are stopped all the same, and nothing is lost.
        """
        with self._changing:
            keeper, self._keeper = self._keeper, None
            if keeper is None:
                return
            _started.discard(self)
            assert self._scanner is not None
            self._scanner.stop()
            limit = self._stop_timeout if timeout is None else timeout
            _raise_first(keeper.pool.stop(limit))

    def _make_keeper(self) -> Keeper:
        records = Records()
        hands = Hands(self._max_running, lambda error: keeper.failed(error))  # noqa: PLW0108

        def note(rel: str, signature: Signature, tend_at: float | None) -> None:
            folder = self._naming.meta_path(rel)
            records.write(folder, self._mark(rel), signature, tend_at)

        def noted(rel: str) -> Parked | None:
            return records.read(self._naming.meta_path(rel), self._mark(rel))

        work = Work(
            path=self._naming.database,
            make=self._make,
            seal=self._seal,
            note=note,
            hands=hands.do,
            report=self._report,
        )
        keeper = Keeper(
            Folder(self._path, self._pattern, recursive=self._recursive),
            self._naming,
            Pool(
                work,
                most=self._max_running,
                rules=self._rules,
                stop_timeout=self._stop_timeout,
            ),
            noted=noted,
            rules=self._rules,
            report=self._report,
            takes_in=self._watch,
        )
        return keeper

    def _make(self, rel: str) -> Replicator:
        replicator = Replicator(
            self._naming.database(rel),
            self._naming.replicas(rel),
            connect=self._connect,
            meta_path=self._naming.meta_path(rel),
            observer=self._for_each,
            **self._settings,
        )
        keep_out_of_forks(replicator)
        return replicator

    def _mark(self, rel: str) -> str:
        """What a note about a parked database is good for: these replicas, kept like this."""
        kept = [self._settings.get(k) for k in ("levels", "retention")]
        return fingerprint(self._naming.places(rel), kept)

    def _report(
        self, action: str, rel: str, level: int, error: Exception | None
    ) -> None:
        path = self._naming.database(rel) if rel else self._path
        self._observer(Event(action=action, database=path, level=level, error=error))

    # -- databases -------------------------------------------------------------------

    @property
    def databases(self) -> list[str]:
        """The absolute paths of all databases, sorted; none when stopped."""
        keeper = self._keeper
        if keeper is None:
            return []
        with keeper.pool.cond:
            rels = [member.rel for member in keeper.pool.table]
        return [self._naming.database(rel) for rel in sorted(rels)]

    def __len__(self) -> int:
        keeper = self._keeper
        return 0 if keeper is None else len(keeper.pool.table)

    def __bool__(self) -> bool:
        return True

    @contextmanager
    def replicator(
        self, db: str | os.PathLike[str], timeout: float | None = 30.0
    ) -> Iterator[Replicator]:
        """The one Replicator of a database, at work until the end of the block.

        A parked one is started, before those that wait. Do not stop it.

        Args:
            db: The path of the database, absolute or below the folder.
            timeout: Seconds to wait for its turn.

        Raises:
            DatabaseStateError: it cannot be replicated; ``kind`` ``"unknown"`` if there is
                no such database, ``"removed"`` if there is none any more.
            SyncTimeoutError: it did not get its turn in time.
            StoreError, OSError: it could not be started.
            ReplicatorClosedError: the group does not run.
        """
        keeper = self._running()
        with keeper.pool.in_use(self._member(keeper, db), timeout) as replicator:
            yield replicator

    def _running(self) -> Keeper:
        keeper = self._keeper
        if keeper is None:
            raise ReplicatorClosedError(
                f"the group of {self._path} is not running: call start() first, or use it"
                " in a with statement"
            )
        return keeper

    def _rel(self, db: str | os.PathLike[str]) -> str:
        path = os.fspath(db)
        rel = path.removeprefix(f"{self._path}/")
        if not os.path.isabs(rel):
            return rel
        folder, name = os.path.split(path)  # a file may be a link, and its folder, too
        return f"{os.path.realpath(folder)}/{name}".removeprefix(f"{self._path}/")

    def _member(self, keeper: Keeper, db: str | os.PathLike[str]) -> Member:
        rel = self._rel(db)
        member = keeper.pool.table.get(rel)
        if member is None:  # it may have come just now
            keeper.sweep()
            member = keeper.pool.table.get(rel)
        if member is None:
            kind = "removed" if rel in keeper.gone else "unknown"
            raise DatabaseStateError(
                f"{os.fspath(db)} is no database of the group of {self._path}",
                path=os.fspath(db),
                kind=kind,
            )
        return member

    # -- durability ------------------------------------------------------------------

    def sync(
        self, db: str | os.PathLike[str] | None = None, timeout: float | None = 30.0
    ) -> None:
        """Return when every commit made before the call is durable, in all databases or one.

        Parked ones whose files are as they were have nothing to be flushed, and are not
        started.

        Raises:
            SyncTimeoutError: not confirmed in time.
            StoreError, DatabaseStateError, OSError: as ``Replicator.sync``; the first, with
                notes of the others. One database that cannot be replicated is enough.
            ReplicatorClosedError: the group does not run.
        """
        keeper = self._running()
        end = None if timeout is None else time.monotonic() + timeout
        if db is not None:
            self._sync(keeper, self._member(keeper, db), end)
            return
        keeper.sweep()
        members = [m for m in keeper.pool.table if m.state is not State.PARKED]
        errors = [anew(error) for error in keeper.errors.values()]

        def flush(member: Member) -> None:
            try:
                self._sync(keeper, member, end)
            except (SQLiteReplicaError, OSError, ValueError) as error:
                if getattr(error, "kind", "") != "removed":
                    errors.append(error)

        if members:
            most = min(len(members), self._max_running)
            with ThreadPoolExecutor(most, "sqlitereplica-sync") as executor:
                list(executor.map(flush, members))
        _raise_first(errors)

    def _sync(self, keeper: Keeper, member: Member, end: float | None) -> None:
        def left() -> float | None:
            return None if end is None else max(0.0, end - time.monotonic())

        if keeper.pool.is_durable(member, left()):
            return
        try:
            with keeper.pool.in_use(member, left()) as replicator:
                replicator.sync(left())
        except ReplicatorClosedError:
            keeper.pool.check(member)  # if it was removed meanwhile: that is why
            raise

    async def sync_async(
        self,
        db: str | os.PathLike[str] | None = None,
        timeout: float | None = 30.0,  # noqa: ASYNC109
    ) -> None:
        """``sync`` for asyncio; it waits in a thread."""
        await asyncio.to_thread(self.sync, db, timeout)

    # -- status ----------------------------------------------------------------------

    def status(self) -> GroupStatus:
        """What is going on, as counts; never raises."""
        keeper = self._keeper
        if keeper is None:
            return stopped_status(self._path)
        return status_of(keeper, self._path, time.monotonic())

    def status_of(self, db: str | os.PathLike[str]) -> MemberStatus:
        """What is going on with one database; never raises."""
        rel, keeper = self._rel(db), self._keeper
        path = self._naming.database(rel)
        if keeper is None:
            return MemberStatus(
                database=path,
                state="unknown",
                error=None,
                status=None,
                next_tending=None,
            )
        return member_status(keeper, rel, path)

    def health(self, *, max_lag: float = 60.0) -> GroupHealth:
        """Whether nothing fails, nobody waits for long, and those that run keep up.

        Raises:
            ValueError: ``max_lag`` is not above 0 seconds.
        """
        if not max_lag > 0:
            raise ValueError(f"max_lag must be above 0 seconds: {max_lag!r}")
        keeper, status = self._keeper, self.status()
        if keeper is None:
            return GroupHealth(ok=False, reasons=("it is stopped",), status=status)
        return assess(keeper, status, max_lag)

    def _after_fork(self) -> None:
        """In the child nothing runs; what was the parent's is not touched."""
        self._changing = threading.RLock()
        if self._keeper is not None:
            _inherited.append(self._keeper)
        self._keeper = self._scanner = None


def _seconds(duration: Duration, name: str) -> float:
    found = parse_duration(duration, name).total_seconds()
    if not found > 0:
        raise ValueError(f"{name} must be above 0 seconds: {duration!r}")
    return found


def _raise_first(errors: Sequence[Exception]) -> None:
    """Raise the first, which names a few of the others; return if there is none."""
    if not errors:
        return
    for other in errors[1:10]:
        errors[0].add_note(f"also: {other}")
    if len(errors) > 10:
        errors[0].add_note(f"and {len(errors) - 10} more")
    raise errors[0]


# -- forks, and the end of the interpreter ------------------------------------------------

_made: weakref.WeakSet[ReplicatorGroup] = weakref.WeakSet()
_started: set[ReplicatorGroup] = set()
"""Strong references: one that nobody holds any more still flushes at exit."""
_inherited: list[Keeper] = []


def _stop_all() -> None:
    """At interpreter exit, before the Replicators are stopped one by one."""
    for group in list(_started):
        try:
            group.stop()
        except Exception as error:  # noqa: BLE001  (the others are to be flushed, too)
            group._report("exit-flush-failed", "", 40, error)


def _after_fork_in_child() -> None:
    _started.clear()
    for group in list(_made):
        group._after_fork()


getattr(threading, "_register_atexit", atexit.register)(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
