"""What processes of one host say to each other: frames of msgpack, and errors as values.

A frame is its length (u32, big endian) and that many bytes of msgpack: one of the messages
below. The other end is a process of the same user, but perhaps of another version or a
confused one, so everything read is hostile: lengths are bounded before anything is kept,
msgspec checks every field, and whatever does not fit ends the connection (``WireError``).

Errors cross as ``Fault``: the name of a class of ``errors.py``, its message and its plain
attributes. Nothing is unpickled and no other class can be named.
"""

from __future__ import annotations

import os
import struct
from typing import Annotated, Any, TypeAlias

import msgspec

from sqlitereplica import errors
from sqlitereplica.errors import SQLiteReplicaError

__all__ = [
    "PROTOCOL",
    "Answer",
    "Ask",
    "Failed",
    "Fault",
    "Frames",
    "FromDesk",
    "FromPeer",
    "Hello",
    "Refused",
    "Welcome",
    "WireError",
    "frame",
    "from_fault",
    "to_fault",
]

PROTOCOL = 1
_LENGTH = struct.Struct(">I")
_MOST_TEXT = 8192

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class WireError(ValueError):
    """What came is no message of ours: drop the connection."""


class Fault(msgspec.Struct, frozen=True):
    """An error of the tree in ``errors.py``; ``notes`` say more for the reader."""

    name: str
    message: str
    data: dict[str, str | int | float | bool | list[str] | None]
    notes: list[str] = []


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """A peer begins: who it is and what it would replicate where."""

    protocol: int
    pid: Number
    database: Text
    file: tuple[Number, Number] | None
    """Device and inode of the database; None when there is none yet."""
    replicas: Annotated[list[Text], msgspec.Meta(max_length=256)]


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """The elected process takes the peer."""

    pid: Number


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """... or does not: it replicates something else."""

    fault: Fault


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """One call; ``what`` is for ``calls.py``."""

    id: Number
    what: msgspec.Raw


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """What the call of this number returned."""

    id: Number
    value: msgspec.Raw


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """What it raised."""

    id: Number
    fault: Fault


FromPeer: TypeAlias = Hello | Ask
FromDesk: TypeAlias = Welcome | Refused | Answer | Failed

_encoder = msgspec.msgpack.Encoder()


def frame(message: FromPeer | FromDesk) -> bytes:
    """A message as the bytes that are sent."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream into messages of one side."""

    def __init__(self, kind: Any, limit: int) -> None:
        """``kind`` is ``FromPeer`` or ``FromDesk``; ``limit`` bounds one message."""
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._limit = limit
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete now.

        Raises:
            WireError: something else came.
        """
        self._bytes += data
        found = []
        while len(self._bytes) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._bytes)
            if size > self._limit:
                raise WireError(f"a message of {size} bytes: at most {self._limit}")
            end = _LENGTH.size + size
            if len(self._bytes) < end:
                break
            # Copied: what is decoded may point into it.
            body = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            try:
                found.append(self._decoder.decode(body))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise WireError(str(error)) from error
        return found


# -- errors ------------------------------------------------------------------------------


def to_fault(error: BaseException) -> Fault:
    """An error for another process; one that is not of our tree becomes its root."""
    notes = [_short(note) for note in getattr(error, "__notes__", ())]
    notes.append(f"raised in process {os.getpid()}, which replicates")
    if error.__cause__ is not None:
        cause = error.__cause__
        notes.append(_short(f"caused by {type(cause).__name__}: {cause}"))
    if not isinstance(error, SQLiteReplicaError):
        return Fault(
            "SQLiteReplicaError",
            _short(f"{type(error).__name__}: {error}"),
            {"kind": "bug"},
            notes,
        )
    name = type(error).__name__
    if name not in errors.__all__:  # one of the library's own, of a class in the tree
        name = next(
            c.__name__ for c in type(error).__mro__ if c.__name__ in errors.__all__
        )
    return Fault(name, _short(str(error)), dict(_plain(error)), notes)


def _plain(error: SQLiteReplicaError) -> list[tuple[str, Any]]:
    """The attributes that can cross; text in tuples becomes a list."""
    found: list[tuple[str, Any]] = []
    for key, value in vars(error).items():
        if key.startswith("_"):
            continue
        if isinstance(value, tuple) and all(isinstance(v, str) for v in value):
            found.append((key, [_short(v) for v in value]))
        elif isinstance(value, str):
            found.append((key, _short(value)))
        elif value is None or isinstance(value, bool | int | float):
            found.append((key, value))
        else:
            found.append((key, None))
    return found


def from_fault(fault: Fault) -> SQLiteReplicaError:
    """The error again: same class, message and attributes."""
    known = fault.name in errors.__all__
    found = getattr(errors, fault.name) if known else SQLiteReplicaError
    if not (isinstance(found, type) and issubclass(found, SQLiteReplicaError)):
        found = SQLiteReplicaError
    # Not by the constructor: each makes its message of other arguments.
    error: SQLiteReplicaError = found.__new__(found, fault.message)
    error.args = (fault.message,)
    error.kind = "unknown"
    for key, value in fault.data.items():
        if not hasattr(found, key):
            setattr(error, key, tuple(value) if isinstance(value, list) else value)
    for note in fault.notes:
        error.add_note(note)
    return error


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
