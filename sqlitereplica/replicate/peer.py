"""A Replicator that is not elected: it asks who is, and waits for its turn.

It owns one thread. That connects to the desk of the elected process and carries the calls of
this one, until the connection ends: then the other is gone or stops, and the lock is tried at
once. So nobody polls while all is well, and the
next one is elected milliseconds after a ``kill -9``. The database is not opened here.

A call lives until somebody answers it. It is sent again to whoever is elected next, and when
that is this process it is performed here. All calls may be made twice. None is answered by
anything but an elected Replicator that began it after it was made, so ``sync`` cannot
succeed by mistake.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sqlitereplica.errors import (
    DatabaseStateError,
    ReplicatorClosedError,
    SQLiteReplicaError,
    SyncTimeoutError,
)
from sqlitereplica.events import Reporter
from sqlitereplica.replicate.calls import Call, GetStatus, Pending
from sqlitereplica.replicate.channel import Channel, Waker, connect
from sqlitereplica.replicate.metafolder import MetaFolder
from sqlitereplica.replicate.options import Options
from sqlitereplica.replicate.status import Status
from sqlitereplica.replicate.wire import (
    PROTOCOL,
    Answer,
    Ask,
    Failed,
    FromDesk,
    Hello,
    Refused,
    Welcome,
    WireError,
    from_fault,
)
from sqlitereplica.sqlite.descriptors import file_id

if TYPE_CHECKING:
    from sqlitereplica.replicate.running import Running

__all__ = ["Peer"]

logger = logging.getLogger(__name__)

_MOST_BYTES = 8 << 20
_PAUSE = (0.02, 0.5)
_PATIENCE = 10.0
_STATUS_TIMEOUT = 1.0
_GRACE = 1.0
"""The elected one says better than we do why it takes too long, if it says so in time."""


@dataclass(slots=True, eq=False)
class _Asked:
    """One call that nobody has answered yet."""

    call: Call
    deadline: float | None
    future: Future[Any] = field(default_factory=Future)

    def left(self) -> Call:
        """The call, with the time that is left."""
        if self.deadline is None:
            return self.call
        left = max(0.0, self.deadline - time.monotonic())
        return msgspec.structs.replace(self.call, timeout=left)


class Peer:
    """Made by ``start`` or in the child of a fork; ends when elected, or by ``end``."""

    def __init__(
        self,
        options: Options,
        folder: MetaFolder | None,
        promote: Callable[[Peer, MetaFolder], Running | None],
        *,
        may_lead: Callable[[], None],
        delay: float = 0.0,
    ) -> None:
        """Describe it; ``begin`` starts the thread.

        Args:
            options: What would be replicated here.
            folder: The metadata folder; None to take it in the thread.
            promote: Called in the thread when this process is elected.
            may_lead: Raises if this process must not be.
            delay: Seconds until something is done, if nobody calls anything before.
        """
        self.options = options
        self._report = Reporter(options.observer, options.path)
        self.used = False
        """Whether anything was asked of it here."""
        self._folder, self._promote, self._may_lead = folder, promote, may_lead
        self._delay = delay
        self._lock = threading.Lock()
        self._waker = Waker()
        self._asked: dict[int, _Asked] = {}
        self._unsent: list[int] = []
        self._numbers = count(1)
        self._ended = False
        self._running: Running | None = None
        self.pid = 0
        """The process that is elected, while we are connected to it."""
        self.error: SQLiteReplicaError | None = None
        """Why this process cannot be elected, or is not answered."""
        self.failed: Exception | None = None
        """What went wrong when this process was elected, and nobody was since."""
        self._refused: SQLiteReplicaError | None = None
        self.settled = threading.Event()
        """Set once somebody is elected and answers, or refuses to, or cannot be."""
        self._thread = threading.Thread(
            target=self._run, name="sqlitereplica-peer", daemon=True
        )

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    # -- called by other threads -----------------------------------------------------

    def submit(self, call: Call) -> Pending:
        """Have the elected process perform a call; returns at once."""
        self.used = True
        return self._submit(call, _GRACE)

    def _submit(self, call: Call, grace: float) -> Pending:
        deadline = None if call.timeout is None else time.monotonic() + call.timeout
        asked = _Asked(call, deadline)
        with self._lock:
            running = self._running
            if running is None:
                number = next(self._numbers)
                if self._ended:
                    asked.future.set_exception(self._closed())
                elif self._refused is not None:
                    asked.future.set_exception(self._refused)
                else:
                    self._asked[number] = asked
                    self._unsent.append(number)
        if running is not None:
            return call.begin(running)
        self._waker.wake()
        timeout = None if call.timeout is None else call.timeout + grace
        return Pending(asked.future, timeout, lambda: self._expire(number, call))

    def _expire(self, number: int, call: Call) -> None:
        with self._lock:
            self._asked.pop(number, None)
        pid, error = self.pid, self.error
        why = f"process {pid}, which replicates, does not answer"
        if not pid:
            why = "no process of this host replicates at present"
            why += "" if error is None else f": {error}"
        raise SyncTimeoutError(
            call.timeout or 0.0,
            pending=tuple(self.options.names),
            cause=why,
        ) from error

    def status(self) -> Status:
        """That of the elected one; if there is none within a second, that."""
        try:
            if self.pid or self._running is not None:
                call = GetStatus(timeout=_STATUS_TIMEOUT)
                found: Status = self._submit(call, 0.0).wait()
                return found
        except SQLiteReplicaError as error:
            return self._electing(str(error))
        return self._electing(None if self.error is None else str(self.error))

    def _electing(self, error: str | None) -> Status:
        return Status(
            database=self.options.path,
            state="electing",
            txid=0,
            error=error,
            pending_pages=0,
            replicas=(),
        )

    def end(self, timeout: float) -> None:
        """Stop the thread; whoever waits is told. Never waits for the elected one."""
        with self._lock:
            self._ended = True
            asked, self._asked = list(self._asked.values()), {}
        self.settled.set()
        for one in asked:
            _settle(one.future, self._closed())
        self._waker.wake()
        self._thread.join(max(0.1, timeout))

    def _closed(self) -> ReplicatorClosedError:
        return ReplicatorClosedError(
            f"the Replicator of {self.options.path} was stopped"
        )

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        self._sleep(self._delay)
        pause, (least, most) = 0.0, _PAUSE
        while not self._ended:
            try:
                # Whoever is there is asked first: in a child of a fork to stand for the
                # election may take SQLite, which may not be there for it.
                if self._follow():
                    pause = 0.0
                elif self._stand():
                    break
                else:
                    pause = min(most, max(least, 2 * pause))
            except Exception as error:
                logger.exception("a thread failed", extra={"action": "thread-error"})
                self._cannot_lead(error)
                pause = most
            if not self._ended:
                self._sleep(pause)
        self._leave()

    def _sleep(self, seconds: float) -> None:
        """Sleep, unless there is something to do."""
        if seconds:
            with selectors.PollSelector() as selector:
                selector.register(self._waker, selectors.EVENT_READ)
                selector.select(seconds)
            self._waker.clear()

    def _leave(self) -> None:
        with self._lock:
            self._ended = True
            running = self._running
        if running is None and self._folder is not None:
            self._folder.close()
        self._waker.close()

    def _stand(self) -> bool:
        """Try to be elected; True when this Peer is at its end."""
        try:
            folder = self._folder or self._take_folder()
            self._may_lead()
            if not folder.try_lock():
                return False
            running = None
            try:
                running = self._promote(self, folder)
            finally:
                if running is None:
                    folder.unlock()
        except (SQLiteReplicaError, OSError) as error:
            self._cannot_lead(error)
            return False
        if running is None:
            return True  # stopped meanwhile
        self.failed = None
        self._hand_over(running)
        return True

    def _take_folder(self) -> MetaFolder:
        self._folder = MetaFolder(self.options.meta_path, self.options.path)
        return self._folder

    def _cannot_lead(self, error: Exception) -> None:
        """Whoever waits in ``start`` for somebody to be elected is told."""
        self._cannot(error)
        self.failed = error
        self.settled.set()

    def _cannot(self, error: Exception) -> None:
        if not isinstance(error, SQLiteReplicaError):
            error = _as_ours(error)
        if str(error) != str(self.error):
            self._report("election-error", logging.WARNING, error)
        self.error = error

    def _hand_over(self, running: Running) -> None:
        """Perform here what was asked of others."""
        with self._lock:
            self._running = running
            asked, self._asked = list(self._asked.values()), {}
        self.settled.set()
        for one in asked:
            try:
                pending = one.left().begin(running)
            except Exception as error:  # noqa: BLE001  (it is told to who asked)
                _settle(one.future, error)
            else:
                pending.future.add_done_callback(partial(_copy, one.future))

    def _follow(self) -> bool:
        """Ask who is elected until that one is gone; False if nobody is there."""
        path = os.path.realpath(self.options.meta_path)
        try:
            channel = connect(Path(path), _MOST_BYTES)
        except OSError as error:
            if isinstance(error, PermissionError):
                self._cannot(error)
            return False
        try:
            return self._talk(channel)
        except (OSError, WireError) as error:
            logger.debug("%s", error, extra={"action": "elected-gone"})
            return True
        finally:
            self.pid = 0
            channel.close()

    def _talk(self, channel: Channel) -> bool:
        path = self.options.path
        names = self.options.names
        channel.send(Hello(PROTOCOL, os.getpid(), path, file_id(path), names))
        since = time.monotonic()
        while not self._ended:
            waiting = None
            if not self.pid:
                waiting = since + _PATIENCE - time.monotonic()
                if waiting <= 0:
                    return False
            with selectors.PollSelector() as selector:
                events = selectors.EVENT_READ
                if channel.wants_to_write:
                    events |= selectors.EVENT_WRITE
                selector.register(channel, events)
                selector.register(self._waker, selectors.EVENT_READ)
                ready = {key.fileobj for key, _ in selector.select(waiting)}
            self._waker.clear()
            if channel in ready:
                channel.flush()
                for message in channel.receive():
                    if isinstance(message, Refused):
                        self._turned_away(message)
                        return False
                    self._take(message)
            if self.pid:
                self._send(channel)
        return True

    def _send(self, channel: Channel) -> None:
        with self._lock:
            numbers, self._unsent = self._unsent, []
            asked = [(n, self._asked[n]) for n in numbers if n in self._asked]
        for number, one in asked:
            what = msgspec.msgpack.encode(one.left())
            channel.send(Ask(number, msgspec.Raw(what)))

    def _take(self, message: FromDesk) -> None:
        if isinstance(message, Welcome):
            with self._lock:
                self.pid, self.error = message.pid, None
                self.failed = self._refused = None
                self._unsent = sorted(self._asked)  # all that others left open
            self.settled.set()
            self._report("peer", logging.DEBUG, None, elected=message.pid)
            return
        assert isinstance(message, Answer | Failed)
        error = from_fault(message.fault) if isinstance(message, Failed) else None
        if isinstance(error, ReplicatorClosedError):
            return  # it stops: the next one will do it
        with self._lock:
            asked = self._asked.pop(message.id, None)
        if asked is None:
            return  # nobody waits any more
        if isinstance(message, Failed):
            _settle(asked.future, error)
            return
        try:
            value = msgspec.msgpack.decode(message.value, type=asked.call.result)
        except msgspec.DecodeError as error_:
            why = f"the answer is none: {error_}"
            _settle(asked.future, SQLiteReplicaError(why, kind="protocol"))
        else:
            _settle(asked.future, None, value)

    def _turned_away(self, message: Refused) -> None:
        error = from_fault(message.fault)
        with self._lock:
            self._refused = error
            asked, self._asked = list(self._asked.values()), {}
        self._cannot(error)
        self.settled.set()
        for one in asked:
            _settle(one.future, error)


def _as_ours(error: Exception) -> SQLiteReplicaError:
    kept = DatabaseStateError(
        f"this process cannot take part: {error}", path="", kind="meta-folder"
    )
    kept.__cause__ = error
    return kept


def _settle(
    future: Future[Any], error: BaseException | None, value: Any = None
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _copy(to: Future[Any], done: Future[Any]) -> None:
    error = done.exception()
    _settle(to, error, None if error else done.result())
