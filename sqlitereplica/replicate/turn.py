"""From being elected on a host to replicating from it: whose turn is it among the hosts?

Without a lease it is ours at once. With one, a thread waits until the lease is held, and then
lets replication begin (``go``). As a *standby* it keeps the database at the newest state of
the replica meanwhile, as a ``Follower`` does. When the lease is held it puts the fence
(``fencing.py``) while it still follows, so that a late put of the old holder which comes first
is followed, too; then it makes the file a database of its own.

What is at the path when a standby begins may be of a former life as the holder, with commits
that never got to the replica. It is never overwritten: unless it is the truth (the newest
file of the replica is this host's) it is put aside, whole, as ``<name>.before-<time>``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlitereplica.errors import (
    DatabaseStateError,
    LeaseLostError,
    PosMismatchError,
    SQLiteReplicaError,
    SyncTimeoutError,
    TargetExistsError,
)
from sqlitereplica.events import Reporter
from sqlitereplica.replicate.fence import Fence
from sqlitereplica.replicate.fencing import Entrance, entrance
from sqlitereplica.replicate.followthread import FollowThread
from sqlitereplica.replicate.leasing import Leasing
from sqlitereplica.replicate.metafolder import MetaFolder
from sqlitereplica.replicate.options import Options
from sqlitereplica.replicate.position import read_position
from sqlitereplica.restore.aside import Aside
from sqlitereplica.restore.busy import refuse_if_open
from sqlitereplica.restore.following import Following
from sqlitereplica.sqlite import SourceBusyError

__all__ = ["Turn"]

_LOOK = 0.1
_FOLLOW_EVERY = 1.0
_PATIENCE = 10.0
_PAUSE = (0.5, 30.0)
_IN_THE_WAY = (TargetExistsError, PosMismatchError, DatabaseStateError)


class _Borrowed:
    """The metadata folder, for a follower that must not let it go."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None:
        """It stays ours."""


class Turn:
    """Waits for the turn of this host, in a thread of its own; then calls ``go``."""

    def __init__(
        self,
        options: Options,
        copy: str,
        meta: MetaFolder,
        leasing: Leasing,
        go: Callable[[], None],
    ) -> None:
        """``meta`` is locked and stays so; ``go`` is called once, or never."""
        self.error: Exception | None = None
        """What keeps this host from following, or from its turn."""
        self.leasing = leasing
        self._options, self._copy, self._meta = options, copy, meta
        self._go = go
        self._report = Reporter(options.observer, options.path, leasing.replica)
        self._follower: FollowThread | None = None
        self._fence = Fence(
            leasing,
            options.replicas[0].open,
            database=options.path,
            node=meta.node_id,
            observer=options.observer,
        )
        self._ending = threading.Event()
        self.thread = threading.Thread(
            target=self._run, name="sqlitereplica-turn", daemon=True
        )

    @classmethod
    def of(
        cls, options: Options, copy: str, meta: MetaFolder, go: Callable[[], None]
    ) -> Self | None:
        """The turn of a Replicator, with its lease; None without one."""
        if options.lease is None:
            return None
        first = options.replicas[0]
        leasing = Leasing(
            lambda: first.open().lease_object(),
            replica=first.display_name,
            database=options.path,
            node=meta.node_id,
            ttl=options.lease.ttl_seconds,
            observer=options.observer,
        )
        return cls(options, copy, meta, leasing, go)

    @property
    def txid(self) -> int:
        """What a standby holds; 0 for nothing yet."""
        follower = self._follower
        return 0 if follower is None else follower.txid

    @property
    def follow_error(self) -> Exception | None:
        """What fails at present; None when nothing does."""
        follower = self._follower
        failing = None if follower is None else follower.health.error
        return self.error or failing

    def begin(self) -> None:
        """Contend for the lease."""
        self.leasing.begin()
        self.thread.start()

    def end(self, timeout: float) -> None:
        """Wait no more; ``go`` was called or will never be when ``thread`` has ended.

        That is when nothing here writes to the file any more, either.
        """
        self._ending.set()
        if self.thread.ident is not None:
            self.thread.join(timeout)

    def not_yet(
        self, timeout: float | None, error: Exception | None
    ) -> SQLiteReplicaError:
        """The error for who waited in vain: for another host, or for this one."""
        if not self.leasing.is_open():
            return self.leasing.held_by_another()
        why = error or self.follow_error
        return SyncTimeoutError(
            timeout or 0.0,
            pending=(self.leasing.replica,),
            cause=str(why) if why else None,
        )

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        pause, (least, most) = 0.0, _PAUSE
        try:
            while not self._ending.wait(pause):
                try:
                    if self._bring_up() and not self._ending.is_set():
                        self.error = None
                        self._go()
                    return
                except LeaseLostError as error:
                    self.error = error
                    self.leasing.entry.set_exception(error)
                    return
                except Exception as error:  # noqa: BLE001  (shown, and tried again)
                    if str(error) != str(self.error):
                        self._report("standby-error", logging.WARNING, error)
                    self.error = error
                    pause = min(most, max(least, 2 * pause))
        finally:
            self._stop_following()

    def _bring_up(self) -> bool:
        """Wait for the lease, and as a standby have the newest state; False at the end."""
        while not self.leasing.held.wait(_LOOK):
            if self._ending.is_set():
                return False
            if self._options.standby and self.leasing.is_waiting():
                self._follow()
        if not self._options.standby or not self._must_follow():
            self._stop_following()
            return True
        return self._take_all()

    def _must_follow(self) -> bool:
        """Whether another host wrote the newest state, so that it has to be brought here."""
        position = read_position(self._options.replicas[0].open())
        how = entrance(
            self.leasing.tenure(leads=True),
            settled=False,
            txid=position.txid,
            writer=position.node_id,
            node=self._meta.node_id,
        )
        return how is Entrance.COMPARE

    def _take_all(self) -> bool:
        """Follow to the end and make the file a database; False if told to end."""
        while not self._ending.is_set():
            self.leasing.refuse_if_lost()
            follower = self._follow()
            try:
                if follower.promote(_PATIENCE, self._fence):
                    self._follower = None
                    return True
            except _IN_THE_WAY as error:
                self.error = error
        return False

    def _follow(self) -> FollowThread:
        """Follow; what is in the way is put aside."""
        follower = self._follower
        if follower is not None and _is_in_the_way(follower.health.error):
            self._stop_following()
            self._put_aside()
        if self._follower is None:
            self._follower = self._make_follower()
            self._follower.thread.start()
        return self._follower

    def _make_follower(self) -> FollowThread:
        following = Following(
            self._options.path,
            self._options.replicas[0].open,
            self._options.connect,
            copy=self._copy,
            notes=self._meta.path / "held",
        )
        home = _Borrowed(self._meta.path)
        return FollowThread(following, home, _FOLLOW_EVERY, self._told)

    def _stop_following(self) -> None:
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.stop(None)  # nobody else may write to the file before it has ended

    def _put_aside(self) -> None:
        """Give what is at the path another name, with its WAL."""
        path = self._options.path
        refuse_if_open(path)
        away = f"{path}.before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        aside = Aside(path, away)
        try:
            aside.claim()
            aside.move()
        except BaseException:
            aside.back()
            raise
        self._report("standby-aside", logging.WARNING, path=away)

    def _told(
        self, action: str, level: int, error: Exception | None = None, **data: object
    ) -> None:
        """What the follower has to say."""
        if not _is_in_the_way(error):
            self._report(action, level, error, **data)


def _is_in_the_way(error: Exception | None) -> bool:
    """Whether it is the file that is there which cannot be followed with."""
    return isinstance(error, _IN_THE_WAY) and not isinstance(error, SourceBusyError)
