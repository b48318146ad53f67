"""A Unix socket that sends and receives messages without ever blocking.

The socket file is in the metadata folder, for this user only. The path of a socket must be
shorter than about 100 bytes and that of a folder need not be, so the file is named through
a descriptor of its folder where the system can do that.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlitereplica.replicate.wire import Frames, FromDesk, FromPeer, WireError, frame

__all__ = [
    "Channel",
    "Waker",
    "connect",
    "forget_sockets",
    "is_ours",
    "listen",
    "unlink",
]

_NAME = "socket"
_LONGEST_PATH = 100
_MOST_UNSENT = 16 << 20
_CHUNK = 1 << 18
_BACKLOG = 256

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""All of them: a child of a fork closes what it inherited, or nobody would notice that the
process at the other end is gone."""


def _watched(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    _sockets.add(sock)
    return sock


def forget_sockets() -> None:
    """After ``fork()``: close what belongs to the parent, which does not notice."""
    for sock in list(_sockets):
        sock.close()
    _sockets.clear()


class Channel:
    """One connection. To be used by one thread."""

    def __init__(self, sock: socket.socket, kind: Any, limit: int) -> None:
        """``kind`` and ``limit`` are those of ``Frames``, for what is received."""
        self._sock = _watched(sock)
        self._frames = Frames(kind, limit)
        self._unsent = bytearray()

    def fileno(self) -> int:
        """For a selector."""
        return self._sock.fileno()

    @property
    def wants_to_write(self) -> bool:
        """True while not everything is sent."""
        return bool(self._unsent)

    def receive(self) -> list[Any]:
        """The messages that have come.

        Raises:
            OSError: the other end is gone.
            WireError: it says what makes no sense.
        """
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError("the other end is gone")
        return self._frames.feed(data)

    def send(self, message: FromPeer | FromDesk) -> None:
        """Send a message, or keep it until ``flush``; raises as ``receive``."""
        self._unsent += frame(message)
        if len(self._unsent) > _MOST_UNSENT:
            raise WireError("the other end does not read")
        self.flush()

    def flush(self) -> None:
        """Send what can be sent; raises as ``receive``."""
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class Waker:
    """Wakes up a thread that waits in a selector, from any other."""

    def __init__(self) -> None:
        self._in, self._out = map(_watched, socket.socketpair())
        self._lock = threading.Lock()
        """Nothing is sent while it is closed: the number may be another file's by then."""

    def fileno(self) -> int:
        """For a selector."""
        return self._in.fileno()

    def wake(self) -> None:
        """Have the selector return."""
        try:
            with self._lock:
                self._out.send(b"x")
        except OSError:
            pass  # full: it is awake; or closed

    def clear(self) -> None:
        """Take note."""
        try:
            while self._in.recv(4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close both ends."""
        with self._lock:
            self._in.close()
            self._out.close()


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A name of the socket file that is short enough, while it is needed."""
    path = str(folder / _NAME)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        yield f"/proc/self/fd/{fd}/{_NAME}"
    finally:
        os.close(fd)


def listen(folder: Path) -> socket.socket:
    """Make the socket file anew and listen; only who holds the lock may do so.

    Raises:
        OSError: it cannot be made.
    """
    (folder / _NAME).unlink(missing_ok=True)
    sock = _watched(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        # Before the file is there, where the system allows it: never open to others.
        os.fchmod(sock.fileno(), 0o600)
        with _address(folder) as address:
            sock.bind(address)
        os.chmod(folder / _NAME, 0o600)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def unlink(folder: Path) -> None:
    """Remove the socket file, while the lock is still held."""
    try:
        (folder / _NAME).unlink(missing_ok=True)
    except OSError:
        pass  # a dead one does no harm: it is made anew


def connect(folder: Path, limit: int) -> Channel:
    """Connect to who listens there.

    Raises:
        OSError: nobody does.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel = Channel(sock, FromDesk, limit)
    try:
        with _address(folder) as address:
            sock.connect(address)
    except BaseException:
        channel.close()
        raise
    return channel


def is_ours(sock: socket.socket) -> bool:
    """Whether the process at the other end is this user's, or root's."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the mode of the file has to do
    size = struct.calcsize("3i")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid = struct.unpack("3i", credentials)[1]
    return uid in (0, os.geteuid())
