"""Messages between processes: what is read is hostile, and errors cross as what they are."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlitereplica import errors
from sqlitereplica.errors import (
    AnotherWriterError,
    ChecksumMismatchError,
    DatabaseStateError,
    MixedSQLiteCopiesError,
    NearestPoint,
    NotRestorableError,
    PinExistsError,
    SQLiteReplicaError,
    StoreError,
    SyncTimeoutError,
    TargetExistsError,
)
from sqlitereplica.replicate.calls import AnyCall, MakePin, Snapshot, Sync
from sqlitereplica.replicate.wire import (
    Answer,
    Ask,
    Failed,
    Frames,
    FromDesk,
    FromPeer,
    Hello,
    Refused,
    Welcome,
    WireError,
    frame,
    from_fault,
    to_fault,
)

LIMIT = 10_000

RAISED: list[SQLiteReplicaError] = [
    SyncTimeoutError(1.5, pending=("a", "b"), cause="no"),
    StoreError("away", operation="put", key="k", transient=False),
    AnotherWriterError("ltx/0/1"),
    DatabaseStateError("replaced", path="/a.db", kind="replaced"),
    MixedSQLiteCopiesError("/a.db", ours="sqlite3", other="apsw"),
    PinExistsError("name", 7),
    TargetExistsError("/a.db"),
    ChecksumMismatchError("page", expected=(1 << 64) - 1, actual=0),
    NotRestorableError(
        "nothing", kind="txid", before=NearestPoint(1, datetime.now(UTC))
    ),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)
def test_errors_cross_as_what_they_are(error: SQLiteReplicaError) -> None:
    """Class, message, kind and plain attributes; the cause becomes a note."""
    error.__cause__ = OSError("the disk")
    message = Failed(1, to_fault(error))
    (read,) = Frames(FromDesk, LIMIT).feed(frame(message))
    found = from_fault(read.fault)
    assert type(found) is type(error)
    assert (str(found), found.kind) == (str(error), error.kind)
    for name, value in vars(error).items():
        if isinstance(value, str | int | float | tuple) and not name.startswith("_"):
            assert getattr(found, name) == value
    assert "caused by OSError: the disk" in found.__notes__[-1]


def test_other_errors_cross_as_the_root() -> None:
    """A bug over there is no reason to guess at a class here; nor is a longer message."""
    fault = to_fault(ZeroDivisionError("x" * 100_000))
    found = from_fault(fault)
    assert type(found) is SQLiteReplicaError
    assert str(found).startswith("ZeroDivisionError: xxx")
    assert len(str(found)) < 10_000


@pytest.mark.parametrize("name", ["SystemExit", "Any", "__all__", "NearestPoint", ""])
def test_no_other_class_can_be_named(name: str) -> None:
    """Whatever a process says, only errors of ours are raised, with plain attributes."""
    fault = msgspec.structs.replace(
        to_fault(PinExistsError("a", 1)),
        name=name,
        data={"args": "x", "__class__": "x", "with_traceback": "x", "txid": 1},
    )
    found = from_fault(fault)
    assert type(found) is SQLiteReplicaError
    assert found.args == (fault.message,)
    assert callable(found.with_traceback)
    assert found.kind == "unknown"


MESSAGES: list[Any] = [
    Hello(1, 4711, "/a.db", (1, 2), ["s3://b/a"]),
    Hello(1, 4711, "/a.db", None, []),
    Ask(3, msgspec.Raw(msgspec.msgpack.encode(Sync(timeout=1.0)))),
    Welcome(4711),
    Refused(to_fault(PinExistsError("a", 1))),
    Answer(3, msgspec.Raw(b"\xc0")),
]


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_messages_arrive_however_the_stream_is_cut(size: int) -> None:
    """A message may come in pieces, and several at once."""
    for kind, first, last in ((FromPeer, 0, 3), (FromDesk, 3, 6)):
        sent = MESSAGES[first:last]
        stream = b"".join(map(frame, sent))
        frames, found = Frames(kind, LIMIT), []
        for at in range(0, len(stream), size):
            found += frames.feed(stream[at : at + size])
        assert found == sent


def framed(body: bytes) -> bytes:
    """Bytes as a frame."""
    return struct.pack(">I", len(body)) + body


NO_MESSAGES = {
    "too long": struct.pack(">I", LIMIT + 1),
    "the longest": b"\xff" * 4,
    "empty": framed(b""),
    "no msgpack": framed(b"\xc1"),
    "cut": framed(frame(MESSAGES[0])[4:-1]),
    "trailing": framed(frame(MESSAGES[0])[4:] + b"\0"),
    "of the other side": frame(MESSAGES[3]),
    "unknown": framed(msgspec.msgpack.encode({"type": "reboot"})),
    "negative": framed(msgspec.msgpack.encode({"type": "ask", "id": -1, "what": 0})),
    "wrong type": framed(msgspec.msgpack.encode({"type": "ask", "id": "1", "what": 0})),
    "deep": framed(b"\x91" * 5000 + b"\xc0"),
    "no utf-8": framed(b"\x82\xa4type\xa5hello\xa8database\xa2\xff\xff"),
    "map of 4 G": framed(b"\xdf\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("name", NO_MESSAGES)
def test_what_is_no_message_ends_the_connection(name: str) -> None:
    """By ``WireError``, whatever it is."""
    with pytest.raises(WireError):
        Frames(FromPeer, LIMIT).feed(NO_MESSAGES[name])


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(data: bytes) -> None:
    """They are messages, or the beginning of one, or refused."""
    for stream in (data, framed(data)):
        try:
            Frames(FromPeer, 200).feed(stream)
        except WireError:
            pass


@pytest.mark.parametrize(
    "call",
    [
        {"type": "sync", "timeout": -1.0},
        {"type": "sync", "timeout": float("nan")},
        {"type": "sync", "timeout": "1"},
        {"type": "pin", "name": "x" * 129},
        {"type": "pin"},
        {"type": "stop"},
    ],
)
def test_calls_that_make_no_sense_are_refused(call: dict[str, Any]) -> None:
    """Before anything is begun."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(call), type=AnyCall)


@pytest.mark.parametrize(
    "call", [Sync(timeout=None), Snapshot(timeout=3.0), MakePin(name="a", timeout=1.0)]
)
def test_calls_cross(call: Any) -> None:
    """As they were."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(call), type=AnyCall) == call


def test_every_error_can_cross() -> None:
    """All classes of the tree are errors that a ``Fault`` may name."""
    for name in errors.__all__:
        found = getattr(errors, name)
        if issubclass(found, BaseException):
            fault = msgspec.structs.replace(to_fault(PinExistsError("a", 1)), name=name)
            assert type(from_fault(fault)) is found
