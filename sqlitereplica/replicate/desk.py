"""The desk: where the elected process answers the others of this host.

One thread for all databases of the process. It never waits for anything but its sockets: a
call is begun (``calls.py``), and when its future is done the answer is sent. Whoever asks
is believed only after a ``Hello`` that names the same database and the same replicas: an
answer about other replicas would promise what is not so.

A peer whose connection ends asks the next one that is elected. So a desk that closes says
nothing: no call may fail only because this process stops.
"""

from __future__ import annotations

import heapq
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from sqlitereplica.errors import DatabaseStateError, SQLiteReplicaError
from sqlitereplica.events import Event
from sqlitereplica.replicate.calls import AnyCall, Pending
from sqlitereplica.replicate.channel import (
    Channel,
    Waker,
    is_ours,
    listen,
    unlink,
)
from sqlitereplica.replicate.wire import (
    PROTOCOL,
    Answer,
    Ask,
    Failed,
    FromPeer,
    Hello,
    Refused,
    Welcome,
    WireError,
    to_fault,
)
from sqlitereplica.sqlite.descriptors import file_id

if TYPE_CHECKING:
    from sqlitereplica.replicate.running import Running

__all__ = ["Desk", "desk", "forget_desk"]

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 << 10
_MOST_CALLS = 4096
_MOST_GUESTS = 1024
_MOST_NOTES = 1 << 14
_PATIENCE = 10.0
_AFTER_BUG = 0.1

_calls = msgspec.msgpack.Decoder(AnyCall)


class _Guest:
    """One peer that is connected."""

    def __init__(self, channel: Channel, running: Running) -> None:
        self.channel, self.running = channel, running
        self.welcome = False
        self.asked: dict[int, Pending] = {}


class Desk:
    """Answers for every Replicator that is elected in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._done: deque[tuple[_Guest, int]] = deque()
        self._listeners: dict[Running, socket.socket] = {}
        self._guests: dict[Channel, _Guest] = {}
        self._late: list[tuple[float, int, _Guest, int | None]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._waker: Waker | None = None  # there is one while there is a thread

    # -- called by other threads -----------------------------------------------------

    def add(self, running: Running) -> None:
        """Answer for a Replicator from now on; what keeps us from it is reported."""
        try:
            listener = listen(running.meta.path)
        except OSError as error:
            running.options.observer(
                Event(
                    action="desk-error",
                    database=running.options.path,
                    level=logging.WARNING,
                    error=error,
                )
            )
            return
        try:
            self._perform(lambda: self._listeners.update({running: listener}))
        except BaseException:
            unlink(running.meta.path)
            listener.close()
            raise

    def remove(self, running: Running) -> None:
        """Answer for it no more: its peers are on their own when this returns."""
        if running in self._listeners:
            self._perform(lambda: self._dismiss(running))

    def _perform(self, task: Callable[[], None]) -> None:
        done: Future[None] = Future()
        with self._lock:
            if self._thread is None:
                waker = Waker()
                thread = threading.Thread(
                    target=self._run,
                    args=(waker,),
                    name="sqlitereplica-desk",
                    daemon=True,
                )
                try:
                    thread.start()  # it does not end before it has this lock
                except BaseException:
                    waker.close()
                    raise
                self._thread, self._waker = thread, waker
            self._tasks.append((task, done))
        self._wake()
        done.result()

    def _wake(self) -> None:
        waker = self._waker
        if waker is not None:
            waker.wake()

    # -- the thread ------------------------------------------------------------------

    def _run(self, waker: Waker) -> None:
        while True:
            self._work_off()
            with self._lock:
                if not self._listeners and not self._tasks:
                    self._thread = self._waker = None
                    waker.close()
                    self._late.clear()
                    self._done.clear()
                    return
            try:
                self._round(waker)
            except Exception:
                logger.exception("a thread failed", extra={"action": "thread-error"})
                time.sleep(_AFTER_BUG)

    def _work_off(self) -> None:
        while self._tasks:
            task, done = self._tasks.popleft()
            try:
                task()
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001
                done.set_exception(error)

    def _dismiss(self, running: Running) -> None:
        listener = self._listeners.pop(running, None)
        if listener is not None:
            unlink(running.meta.path)
            listener.close()
        for guest in [g for g in self._guests.values() if g.running is running]:
            self._drop(guest)

    def _drop(self, guest: _Guest) -> None:
        self._guests.pop(guest.channel, None)
        guest.channel.close()
        guest.asked.clear()

    def _round(self, waker: Waker) -> None:
        """Wait until there is something to do, and do it."""
        with selectors.PollSelector() as selector:
            selector.register(waker, selectors.EVENT_READ)
            for running, listener in self._listeners.items():
                selector.register(listener, selectors.EVENT_READ, running)
            for guest in self._guests.values():
                events = selectors.EVENT_READ
                if guest.channel.wants_to_write:
                    events |= selectors.EVENT_WRITE
                selector.register(guest.channel, events, guest)
            ready = selector.select(self._wait())
        waker.clear()
        for key, events in ready:
            if isinstance(key.data, _Guest):
                self._attempt(key.data, self._serve, events)
            elif key.data is not None:
                self._admit(key.data)
        while self._done:
            guest, number = self._done.popleft()
            self._attempt(guest, self._answer, number)
        self._look_who_is_late()

    def _wait(self) -> float | None:
        return max(0.0, self._late[0][0] - time.monotonic()) if self._late else None

    def _attempt(
        self, guest: _Guest, action: Callable[[_Guest, int], None], argument: int
    ) -> None:
        """Whatever goes wrong with one guest is of no concern to the others."""
        if guest.channel not in self._guests:
            return
        try:
            action(guest, argument)
        except (OSError, WireError) as error:
            logger.debug("a peer is gone: %s", error, extra={"action": "peer-gone"})
            self._drop(guest)
        except Exception:
            logger.exception("a peer failed", extra={"action": "thread-error"})
            self._drop(guest)

    def _admit(self, running: Running) -> None:
        try:
            sock, _ = self._listeners[running].accept()
        except OSError:
            return  # it went away meanwhile, or we have no descriptor for it
        if not is_ours(sock) or len(self._guests) >= _MOST_GUESTS:
            sock.close()
            return
        guest = _Guest(Channel(sock, FromPeer, _MOST_BYTES), running)
        self._guests[guest.channel] = guest
        self._note(guest, None, _PATIENCE)

    def _serve(self, guest: _Guest, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            guest.channel.flush()
        if events & selectors.EVENT_READ:
            for message in guest.channel.receive():
                if isinstance(message, Hello):
                    self._greet(guest, message)
                elif guest.welcome:
                    self._begin(guest, message)
                else:
                    raise WireError("a call before the hello")

    def _greet(self, guest: _Guest, hello: Hello) -> None:
        why = _stranger(guest.running, hello)
        if why is None:
            guest.welcome = True
            guest.channel.send(Welcome(os.getpid()))
            return
        error = DatabaseStateError(why, path=hello.database, kind="elsewhere")
        guest.channel.send(Refused(to_fault(error)))

    def _begin(self, guest: _Guest, ask: Ask) -> None:
        number = ask.id
        if number in guest.asked or len(guest.asked) >= _MOST_CALLS:
            raise WireError("too many calls at once, or one number twice")
        try:
            call = _calls.decode(ask.what)
        except msgspec.DecodeError as error:
            why = f"process {os.getpid()}, of another version, does not know that: {error}"
            self._fail(guest, number, SQLiteReplicaError(why, kind="protocol"))
            return
        try:
            pending = call.begin(guest.running)
        except Exception as error:  # noqa: BLE001  (it is told to who asked)
            self._fail(guest, number, error)
            return
        guest.asked[number] = pending
        if pending.timeout is not None:
            self._note(guest, number, pending.timeout)
        pending.future.add_done_callback(lambda _: self._ready(guest, number))

    def _ready(self, guest: _Guest, number: int) -> None:
        self._done.append((guest, number))
        self._wake()

    def _answer(self, guest: _Guest, number: int) -> None:
        pending = guest.asked.pop(number, None)
        if pending is not None:  # it may have been too late
            self._settle(pending.future.result, guest, number)

    def _settle(self, result: Callable[[], Any], guest: _Guest, number: int) -> None:
        try:
            value = msgspec.msgpack.encode(result())
        except BaseException as error:  # noqa: BLE001  (it is told to who asked)
            self._fail(guest, number, error)
        else:
            guest.channel.send(Answer(number, msgspec.Raw(value)))

    def _fail(self, guest: _Guest, number: int, error: BaseException) -> None:
        guest.channel.send(Failed(number, to_fault(error)))

    # -- time ------------------------------------------------------------------------

    def _note(self, guest: _Guest, number: int | None, seconds: float) -> None:
        at = time.monotonic() + seconds
        if len(self._late) > _MOST_NOTES:  # most were answered long ago
            kept = [n for n in self._late if n[3] is None or n[3] in n[2].asked]
            self._late = sorted(kept)
        heapq.heappush(self._late, (at, next(self._numbers), guest, number))

    def _look_who_is_late(self) -> None:
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            _, _, guest, number = heapq.heappop(self._late)
            if number is None:
                if not guest.welcome and guest.channel in self._guests:
                    self._drop(guest)
            elif pending := guest.asked.pop(number, None):
                self._attempt(guest, partial(self._settle, pending.expired), number)


def _stranger(running: Running, hello: Hello) -> str | None:
    """Why a peer cannot be answered for; None if it can."""
    options, pid = running.options, os.getpid()
    if hello.protocol != PROTOCOL:
        return (
            f"{options.path} is replicated by process {pid}, of another version of"
            " sqlitereplica; it will be replicated here when that has ended"
        )
    if options.path != hello.database and (
        hello.file is None or tuple(hello.file) != file_id(options.path)
    ):
        return (
            f"process {pid} replicates {options.path} with the metadata folder"
            f" {running.meta.path}: each database needs one of its own"
        )
    if sorted(hello.replicas) != sorted(options.names):
        return (
            f"{options.path} is replicated by process {pid} to other replicas; it will"
            " be replicated here when that has ended: one set of replicas per database"
        )
    return None


_desk: Desk | None = None
_desk_lock = threading.Lock()


def desk() -> Desk:
    """The desk of this process."""
    global _desk
    with _desk_lock:
        if _desk is None:
            _desk = Desk()
        return _desk


def forget_desk() -> None:
    """After ``fork()``: the child has neither its thread nor its sockets."""
    global _desk, _desk_lock
    _desk, _desk_lock = None, threading.Lock()
