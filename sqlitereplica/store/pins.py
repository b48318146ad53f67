"""Pins: names for states of a replica that retention must keep.

A pin is a small JSON file, ``pins/<name>`` beside the levels, that is written once and
never changed: its transaction, the time of that, and when it was pinned. Litestream does
not see it (and its own retention keeps nothing for it).

What pinning builds on:

* *Fail closed.* Retention takes what to keep from ``pinned_txids``. A pin that cannot be
  read might be of any transaction, so that raises and nothing may be deleted: the state
  that somebody pinned must not go because of a typo in a file. Who shows pins to people
  uses ``read_pins``, which goes on.
* *Pinned means restorable.* A state that no files lead to is refused. As retention may be
  deleting these very files, the replica is listed once more after the pin was written; if
  the state is gone, so is the pin, and the error says so.
* *Retention looks last.* It has to read the pins after it has listed the files, right
  before it deletes. Then a pin that was written before that is respected, and one that is
  written after the deletion is refused. What is left is a pin that is written and checked
  between the two: no lock is held across machines. So pin the newest state, or one that
  retention keeps anyway for now; whoever runs retention in the same process takes turns.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from sqlitereplica.errors import (
    AnotherWriterError,
    InvalidFileError,
    NotRestorableError,
    PinExistsError,
    StoreError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store.reach import (
    Reached,
    no_such_txid,
    reach,
    refuse_gap,
    to_datetime,
)
from sqlitereplica.store.side import SideFile, is_side_name
from sqlitereplica.store.store import LTXStore

__all__ = [
    "DamagedPin",
    "Pin",
    "check_pin_name",
    "delete_pin",
    "find_pin",
    "is_pin_name",
    "list_pins",
    "no_such_pin",
    "own_time",
    "pin_names",
    "pinned_txids",
    "put_pin",
    "read_pins",
]

_FOLDER = "pins"
_MOST_BYTES = 4096
_MOST_TXID = 2**64 - 1
_MOST_NAMES = 20
_LETTER = re.compile(r"[A-Za-z]")
_PARALLEL = 8
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One pin. Its times are aware and in UTC."""

    name: str
    txid: int
    """The last transaction of the state that it keeps."""
    time: datetime
    """The time of that state."""
    created: datetime
    """When it was pinned."""


@dataclass(frozen=True, slots=True)
class DamagedPin:
    """A pin that does not say what it keeps, and why."""

    name: str
    error: InvalidFileError


@dataclass(frozen=True, slots=True)
class _Content:
    """What is in the file. Unknown fields are a later version's."""

    name: str
    txid: int
    timestamp: int
    created: int


def is_pin_name(text: str) -> bool:
    """Whether a pin can have this name: where a time is asked for it must not be one."""
    if not is_side_name(text) or _LETTER.search(text) is None:
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return True
    return False


def check_pin_name(name: str) -> None:
    """Raise ValueError unless a pin can have this name."""
    if not is_pin_name(name):
        raise ValueError(
            f"{name!r} cannot be the name of a pin: use up to 128 letters, digits, '.',"
            " '_' and '-', not beginning with '.', with at least one letter, and not a"
            " date"
        )


# -- writing -----------------------------------------------------------------------------


def put_pin(
    store: LTXStore,
    name: str,
    txid: int | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> tuple[Pin, bool]:
    """Pin a state, by default the newest one; say whether the pin is new.

    Raises:
        ValueError: The name or the TXID cannot be one.
        PinExistsError: The name keeps another transaction.
        NotRestorableError: That state is not there, or went away just then.
        InvalidFileError: The name is taken by a pin that is damaged.
        StoreError: The store failed.
    """
    check_pin_name(name)
    if txid is not None and txid < 1:
        raise ValueError(f"txid={txid!r} is not a transaction: they count from 1")
    files = store.list_all()
    state = _state(files, txid)
    pin, written = find_pin(store, name), None
    if pin is None:
        content = _Content(
            name, state.txid, own_time(store, files, state.txid), round(now() * 1000)
        )
        pin, written = _put(store, content)
    if pin.txid != state.txid:
        raise PinExistsError(name, pin.txid)
    try:
        _state(store.list_all(), state.txid)
    except NotRestorableError:
        if written is not None:
            store.delete_side([written])
        raise
    return pin, written is not None


def _put(store: LTXStore, content: _Content) -> tuple[Pin, SideFile | None]:
    """Write a pin, unless somebody is faster: then return theirs and no file."""
    try:
        written = store.put_side(_FOLDER, content.name, _encode(content))
    except AnotherWriterError:
        theirs = find_pin(store, content.name)
        if theirs is None:
            raise
        return theirs, None
    return _pin(content), written


def delete_pin(store: LTXStore, name: str) -> None:
    """Take a pin away, damaged or not; what it kept is as before it was pinned.

    Raises:
        NotRestorableError: ``kind`` is ``"pin"``: there is none of that name.
        StoreError: The store failed.
    """
    pins = store.list_side(_FOLDER)
    found = [file for file in pins if file.name == name]
    if not found:
        raise no_such_pin(name, [file.name for file in pins])
    store.delete_side(found)


def _state(files: Sequence[FileInfo], txid: int | None) -> Reached:
    """The state to pin, or why it cannot be restored."""
    if not files:
        raise NotRestorableError("there is nothing to pin: no LTX files", kind="empty")
    reached = reach(files)
    if txid is None:
        refuse_gap(files, reached[-1].txid if reached else 0)
        return reached[-1]
    found = [state for state in reached if state.txid == txid]
    if not found:
        raise no_such_txid(files, txid)
    return found[0]


# -- reading -----------------------------------------------------------------------------


def find_pin(store: LTXStore, name: str) -> Pin | None:
    """Read one pin; None if there is none of that name.

    Raises:
        InvalidFileError: It is damaged.
        StoreError: The store failed.
    """
    for file in store.list_side(_FOLDER):
        if file.name == name:
            try:
                return _read(store, file)
            except StoreError as error:
                if error.kind != "missing":
                    raise
    return None


def pin_names(store: LTXStore) -> list[str]:
    """The names of all pins, damaged ones too, in order; raises StoreError."""
    return [file.name for file in store.list_side(_FOLDER)]


def read_pins(store: LTXStore) -> list[Pin | DamagedPin]:
    """Read all pins, by name.

    Raises:
        StoreError: The store failed.
    """
    for _ in range(_TRIES):
        try:
            return _read_listed(store)
        except StoreError as error:
            # One was taken away meanwhile. Only a listing without it says so for certain.
            if error.kind != "missing":
                raise
    return _read_listed(store)


def list_pins(store: LTXStore) -> list[Pin]:
    """Read all pins, by name, and take none that cannot be read for none.

    Raises:
        InvalidFileError: A pin is damaged.
        StoreError: The store failed.
    """
    pins = []
    for pin in read_pins(store):
        if isinstance(pin, DamagedPin):
            raise pin.error
        pins.append(pin)
    return pins


def pinned_txids(store: LTXStore) -> frozenset[int]:
    """The transactions that retention has to keep.

    Raises:
        InvalidFileError: A pin is damaged: delete nothing.
        StoreError: The store failed: delete nothing.
    """
    return frozenset(pin.txid for pin in list_pins(store))


def no_such_pin(name: str, names: Sequence[str]) -> NotRestorableError:
    """The error for a pin that is not among those there are."""
    listed = ", ".join(sorted(names)[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    there_are = f"the pins are {listed}" if names else "there are no pins"
    if more > 0:
        there_are += f" and {more} more"
    return NotRestorableError(f"no pin is named {name!r}: {there_are}.", kind="pin")


def own_time(store: LTXStore, files: Sequence[FileInfo], txid: int) -> int:
    """The time of a state as its own file tells it, in milliseconds.

    A listing may tell when that was uploaded. Of several files that end there the one of
    the lowest level is the most precise.
    """
    last = min((f for f in files if f.max_txid == txid), key=lambda f: f.level)
    return (store.with_own_time(last) or last).timestamp


def _read_listed(store: LTXStore) -> list[Pin | DamagedPin]:
    files = store.list_side(_FOLDER)
    if len(files) < 2:
        return [_try_read(store, file) for file in files]
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="pins") as pool:
        return list(pool.map(_try_read, [store] * len(files), files))


def _try_read(store: LTXStore, file: SideFile) -> Pin | DamagedPin:
    try:
        return _read(store, file)
    except InvalidFileError as error:
        return DamagedPin(file.name, error)


def _read(store: LTXStore, file: SideFile) -> Pin:
    """Read a pin; it is hostile."""
    if file.size > _MOST_BYTES:
        raise _damaged(file.name, f"it has {file.size} bytes")
    import msgspec

    data = store.get_side(file)
    try:
        content = msgspec.json.decode(data, type=_Content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(file.name, str(error)) from error
    if content.name != file.name:
        raise _damaged(file.name, f"it calls itself {content.name[:128]!r}")
    if not 1 <= content.txid <= _MOST_TXID:
        raise _damaged(file.name, f"{content.txid} is not a transaction")
    return _pin(content)


def _encode(content: _Content) -> bytes:
    import msgspec

    return msgspec.json.encode(content)


def _pin(content: _Content) -> Pin:
    return Pin(
        name=content.name,
        txid=content.txid,
        time=to_datetime(content.timestamp),
        created=to_datetime(content.created),
    )


def _damaged(name: str, why: str) -> InvalidFileError:
    return InvalidFileError(
        f"the pin {name!r} is damaged: {why}. While it is there, retention deletes"
        f" nothing. If nobody needs it, take it away with unpin({name!r}), and pin anew",
        kind="pin",
    )
