"""The desk of the elected process, asked by something that is no peer of ours."""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.capturing import make_database
from support.lifetime import await_true, library_threads, restored, write

from sqlitereplica import Replicator
from sqlitereplica.replicate.calls import GetStatus, Sync
from sqlitereplica.replicate.wire import (
    PROTOCOL,
    Answer,
    Ask,
    Failed,
    Frames,
    FromDesk,
    Hello,
    Refused,
    Welcome,
    frame,
)

META = ".app.db-sqlitereplica"


@pytest.fixture
def replicator(
    path: Path, db: sqlite3.Connection, replica: Path
) -> Iterator[Replicator]:
    """The one that is elected."""
    with Replicator(path, replica, sync_interval=3600) as found:
        found.sync()
        yield found


class Stranger:
    """A raw connection to the desk."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(folder / META / "socket"))
        self._frames, self._read = Frames(FromDesk, 1 << 20), []

    def send(self, *messages: Any) -> None:
        """Send messages, or bytes as they are."""
        for message in messages:
            data = message if isinstance(message, bytes) else frame(message)
            self._socket.sendall(data)

    def receive(self) -> Any:
        """The next message; None at the end."""
        while not self._read:
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._read += self._frames.feed(data)
        return self._read.pop(0)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@pytest.fixture
def stranger(replicator: Replicator, tmp_path: Path) -> Iterator[Stranger]:
    """One that is connected."""
    found = Stranger(tmp_path)
    yield found
    found.close()


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass  # closed since it was listed
    return found


def hello(replicator: Replicator, replica: Path, **changes: Any) -> Hello:
    """What a peer says."""
    found = Hello(PROTOCOL, os.getpid(), replicator.database, None, [str(replica)])
    return msgspec.structs.replace(found, **changes)


def ask(number: int, call: Any) -> Ask:
    """A call as a message."""
    return Ask(number, msgspec.Raw(msgspec.msgpack.encode(call)))


def test_peer_is_served(
    replicator: Replicator, stranger: Stranger, replica: Path, db: sqlite3.Connection
) -> None:
    """Hello, welcome, and every call is answered under its number, in any order."""
    stranger.send(hello(replicator, replica))
    assert stranger.receive() == Welcome(os.getpid())
    write(db)
    stranger.send(ask(9, Sync(timeout=60.0)), ask(4, GetStatus()))
    answers = {m.id: m for m in (stranger.receive(), stranger.receive())}
    assert set(answers) == {4, 9}
    assert all(isinstance(m, Answer) for m in answers.values())
    assert restored(replica) == db.serialize()


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": PROTOCOL + 1},
        {"database": "/other.db"},
        {"database": "/other.db", "file": (1, 2)},
        {"replicas": ["s3://other"]},
        {"replicas": []},
    ],
    ids=str,
)
def test_who_replicates_something_else_is_refused(
    replicator: Replicator, stranger: Stranger, replica: Path, changes: dict[str, Any]
) -> None:
    """It is told so, and none of its calls is answered."""
    stranger.send(hello(replicator, replica, **changes))
    answer = stranger.receive()
    assert isinstance(answer, Refused)
    assert answer.fault.data["kind"] == "elsewhere"
    stranger.send(ask(1, Sync(timeout=1.0)))
    assert stranger.receive() is None


HOSTILE = {
    "a call before the hello": ask(1, GetStatus()),
    "noise": b"GET / HTTP/1.1\r\n\r\n",
    "a length of 4 GiB": struct.pack(">I", (1 << 32) - 1),
    "a message of the other side": Welcome(1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nonsense_ends_the_connection_and_nothing_else(
    replicator: Replicator, stranger: Stranger, replica: Path, name: str, tmp_path: Path
) -> None:
    """Another one is served as if nothing had been."""
    stranger.send(HOSTILE[name])
    assert stranger.receive() is None
    other = Stranger(tmp_path)
    other.send(hello(replicator, replica), ask(1, Sync(timeout=60.0)))
    assert isinstance(other.receive(), Welcome)
    assert isinstance(other.receive(), Answer)
    other.close()
    assert replicator.status().ok


def test_unknown_call_is_answered_with_an_error(
    replicator: Replicator, stranger: Stranger, replica: Path
) -> None:
    """A peer of a newer version gets an answer to what this one does not know."""
    stranger.send(hello(replicator, replica), ask(1, {"type": "fly"}))
    stranger.receive()
    answer = stranger.receive()
    assert isinstance(answer, Failed)
    assert (answer.id, answer.fault.data["kind"]) == (1, "protocol")
    stranger.send(ask(2, GetStatus()))
    assert isinstance(stranger.receive(), Answer)


def test_one_number_twice_ends_the_connection(
    replicator: Replicator, stranger: Stranger, replica: Path, db: sqlite3.Connection
) -> None:
    """It could not be told which of the two an answer belongs to."""
    stranger.send(hello(replicator, replica))
    stranger.receive()
    both = ask(1, Sync(timeout=60.0)), ask(1, GetStatus())
    stranger.send(b"".join(map(frame, both)))
    found = [stranger.receive() for _ in range(2)]
    assert None in found


def test_who_hangs_up_leaves_nothing_behind(
    replicator: Replicator, replica: Path, tmp_path: Path, db: sqlite3.Connection
) -> None:
    """Neither a descriptor nor a thread, however many come and go."""
    threads = library_threads()
    before = sockets()
    for _ in range(50):
        stranger = Stranger(tmp_path)
        stranger.send(hello(replicator, replica), ask(1, Sync(timeout=None)))
        stranger.close()
    await_true(lambda: sockets() <= before)
    await_true(lambda: library_threads() == threads)
    replicator.sync()


STRICT = """
import os, subprocess, sys, time
from sqlitereplica import Replicator

def sockets():
    return sum(
        os.path.realpath(f"/proc/self/fd/{fd}").rpartition("/")[2].startswith("socket:")
        for fd in os.listdir("/proc/self/fd")
    )

path, replica, *peer = sys.argv[1:]
for _ in range(2):
    with Replicator(path, replica) as r:
        r.sync()
        state = r.status().pid == os.getpid()
        if not peer:
            subprocess.run([*sys.orig_argv, "peer"], check=True)
end = time.monotonic() + 60
while sockets():
    assert time.monotonic() < end, sockets()
    time.sleep(0.01)
print("elected" if state else "peer", flush=True)
"""


def test_process_that_has_stopped_has_no_socket_open(path: Path, replica: Path) -> None:
    """Neither the elected one nor its peer; and no warning that one was not closed."""
    make_database(path).close()
    strict = [sys.executable, "-W", "error::ResourceWarning", "-c", STRICT]
    done = subprocess.run(
        [*strict, str(path), str(replica)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["peer", "peer", "elected"]


def test_timeout_of_a_call_is_told_by_who_knows(
    replicator: Replicator, stranger: Stranger, replica: Path
) -> None:
    """The error names the replicas that have not confirmed."""
    stranger.send(hello(replicator, replica), ask(1, Sync(timeout=0.0)))
    stranger.receive()
    answer = stranger.receive()
    if isinstance(answer, Failed):  # it may have been quicker
        assert answer.fault.name == "SyncTimeoutError"
        assert answer.fault.data["pending"] == [str(replica)]
