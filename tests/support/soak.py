"""Readers that restore random points of a replica while its history is worked on."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any

from fsspec.callbacks import Callback
from support.soak_child import WINDOW

from sqlitereplica import (
    NotRestorableError,
    RestorePoint,
    RestoreResult,
    restore,
    restore_points,
    verify,
)

__all__ = ["Reader", "Told"]

_PATIENCE = 60.0


class Told:
    """What a child said and logged: which transaction is which state. Thread-safe."""

    def __init__(self, child: Popen[str], log: Path) -> None:
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}
        self.pins: dict[str, int] = {}
        self.unpinned: set[str] = set()
        self._child, self._log = child, log
        self._changed = threading.Condition()
        self._ended = False
        self._txids: list[int] = []
        self._places: list[int] = []
        self._read, self._tail = 0, b""
        self._states: list[tuple[int, str]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            kind, _, rest = line.rstrip("\n").partition(" ")
            with self._changed:
                self._take(kind, rest)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, kind: str, rest: str) -> None:
        if kind == "E":
            self.errors.append(rest)
            return
        first, _, second = rest.partition(" ")
        if kind == "T" and not (self._txids and self._txids[-1] == int(first)):
            self._txids.append(int(first))
            self._places.append(int(second))
        elif kind == "P":
            self.pins[first] = int(second)
        elif kind == "U":
            self.unpinned.add(first)
        elif kind == "C":
            self.counts[first] = int(second)

    def wait_for_end(self) -> None:
        """Until the child has said all it has to say."""
        self._thread.join(_PATIENCE)
        assert self._ended, "the child does not end"

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Until something is known; an error if the child ends before."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or condition(), _PATIENCE)
            assert condition(), "the child ended, or says nothing any more"

    @property
    def newest(self) -> int:
        """The newest transaction that a ``sync()`` promised; 0 for none."""
        with self._changed:
            return self._txids[-1] if self._txids else 0

    def live_pins(self) -> list[str]:
        """The names of pins that nobody takes away yet."""
        with self._changed:
            return [name for name in self.pins if name not in self.unpinned]

    def is_pinned(self, txid: int) -> bool:
        """Whether such a pin has this transaction."""
        return any(self.pins[name] == txid for name in self.live_pins())

    def check(self, txid: int, digest: str) -> None:
        """A restored transaction is the state that it was.

        One that was uploaded without a ``sync()`` is a state between its neighbours.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or (self._txids and self._txids[-1] >= txid),
                _PATIENCE,
            )
            self._read_log()
            at = bisect_left(self._txids, txid)
            exact = at < len(self._txids) and self._txids[at] == txid
            last = self._state(at) if at < len(self._txids) else len(self._states) - 1
            first = last if exact else self._state(at - 1) if at else 0
            right = {digest for _, digest in self._states[first : last + 1]}
        assert digest in right, (
            f"txid {txid} is not one of its {len(right)} states; exact={exact}"
        )

    def _state(self, at: int) -> int:
        """The index of the state that the log had at the place of a promise."""
        return bisect_right(self._states, (self._places[at], "~")) - 1

    def _read_log(self) -> None:
        with self._log.open("rb") as file:
            file.seek(self._read)
            data = self._tail + file.read()
            place = self._read - len(self._tail)
            self._read = file.tell()
        *lines, self._tail = data.split(b"\n")
        for line in lines:
            place += len(line) + 1
            if line.startswith(b"D "):
                self._states.append((place, line[2:].decode()))


class _Slow(Callback):  # type: ignore[misc]
    """A restore whose download takes its time."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self._pause = pause

    def relative_update(self, inc: int = 1) -> None:
        """Called for each piece."""
        time.sleep(self._pause)


class Reader:
    """Restores one point after the other, and judges each."""

    def __init__(self, folder: Path, replica: Path, told: Told, seed: str) -> None:
        folder.mkdir()
        self.done = Counter[str]()
        self._target, self._replica, self._told = folder / "out.db", replica, told
        self._rng = random.Random(seed)
        self._listed: deque[RestorePoint] = deque(maxlen=10)

    def run(self, stop: threading.Event) -> Counter[str]:
        """Go on until told to stop; returns what was done how often."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (10, self.by_txid),
            (8, self.by_time),
            (5, self.by_pin),
            (5, self.latest),
            (1, self.verify),
        ]
        weights, choices = zip(*actions, strict=True)
        try:
            while not stop.is_set():
                (action,) = self._rng.choices(choices, weights)
                action()
        finally:
            stop.set()  # whatever is found by one of them ends all
        return self.done

    # -- what is asked for -----------------------------------------------------------

    def by_txid(self) -> None:
        """A point that was listed just now, or some time ago."""
        points = restore_points(self._replica)
        point = self._rng.choice(points)
        if self._rng.random() < 0.4 and self._listed:
            point = self._listed.popleft()
        self._listed.append(self._rng.choice(points))
        self._point(point, "txid")

    def _point(self, point: RestorePoint, name: str) -> None:
        pinned = self._told.is_pinned(point.txid)
        try:
            result = self._restore(txid=point.txid)
        except NotRestorableError as error:
            self.done[f"{name} gone"] += 1
            self._must_be_old(point.time)
            if pinned:  # what the child says of that may still be on its way
                self._told.wait_for(lambda: not self._told.is_pinned(point.txid))
            self._follow(error, name)
        else:
            assert result.txid == point.txid
            self.done[name] += 1

    def _follow(self, error: NotRestorableError, name: str) -> None:
        """What an error offers instead can be had, unless its time comes, too."""
        assert error.kind == "txid"
        nearest = error.after or error.before
        assert nearest is not None and str(nearest) in str(error)
        try:
            result = self._restore(txid=nearest.txid)
        except NotRestorableError:
            self._must_be_old(nearest.time)
        else:
            assert result.txid == nearest.txid
            self.done[f"{name} instead"] += 1

    def by_time(self) -> None:
        """Any time since the first point, some of them exactly that of a point."""
        points = restore_points(self._replica)
        first, now = points[0].time, datetime.now(UTC)
        if self._rng.random() < 0.5:
            at = self._rng.choice(points).time
            at += timedelta(milliseconds=self._rng.choice((0, 1)))
        else:
            start = first if self._rng.random() < 0.5 else now - timedelta(seconds=2)
            at = start + (now - start) * self._rng.random()
        try:
            expected = points.at(at).txid
        except NotRestorableError:
            expected = 0
        try:
            result = self._restore(at=at)
        except NotRestorableError as error:
            self.done["time gone"] += 1
            if expected:
                self._must_be_old(at)
            _must_name_a_later_one(error)
        else:
            self.done["time"] += 1
            assert result.timestamp is not None and result.timestamp < at
            assert result.txid is not None
            if not _is_old(at):
                assert result.txid >= expected, "an older state than before"

    def by_pin(self) -> None:
        """A state that somebody pinned stays until the pin is taken away."""
        names = self._told.live_pins()
        if not names:
            return
        name = self._rng.choice(names)
        try:
            result = self._restore(at=name)
        except NotRestorableError:
            self.done["pin gone"] += 1
            self._told.wait_for(lambda: name in self._told.unpinned)
        else:
            self.done["pin"] += 1
            assert result.txid == self._told.pins[name]

    def latest(self) -> None:
        """There is always a newest state, no older than what was promised."""
        promised = self._told.newest
        result = self._restore()
        assert result.txid is not None and result.txid >= promised
        self.done["latest"] += 1

    def verify(self) -> None:
        """Nothing is ever wrong with the replica."""
        promised = self._told.newest
        report = verify(self._replica, "checksums", at_least=promised)
        assert report.ok, str(report)
        self.done["verify"] += 1

    # -- how -------------------------------------------------------------------------

    def _restore(self, **wanted: Any) -> RestoreResult:
        """Restore, fast or slowly, over what is there or not; and compare."""
        if self._rng.random() < 0.5:
            self._target.unlink(missing_ok=True)
        callback = None
        if self._rng.random() < 0.2:
            callback = _Slow(self._rng.choice((0.01, 0.05)))
        result = restore(
            self._replica,
            self._target,
            if_exists="replace",
            callback=callback,
            **wanted,
        )
        assert result.txid is not None
        with self._target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        self._told.check(result.txid, found)
        return result

    def _must_be_old(self, moment: datetime) -> None:
        assert _is_old(moment), f"retention took {moment}, which it had to keep"


def _must_name_a_later_one(error: NotRestorableError) -> None:
    assert error.kind == "time" and error.earliest and error.after


def _is_old(moment: datetime) -> bool:
    """Whether retention may have taken it by now."""
    return moment < datetime.now(UTC) - timedelta(seconds=WINDOW)
