"""Restore drills in the background: when one is due, and one at a time.

A replica that was never restored is a hope. A drill verifies it while the application
runs, as if somebody had lost the machine just now: it reads the files that the newest
state is made of, restores that into a temporary place and lets SQLite check it. It takes
its time: after each piece it sleeps in proportion to the time that the piece took, so
that it never has more than its share of the processor, the disk and the network.

Nothing here starts a thread. Who has one asks ``due_in``, and calls ``run`` when that is
0; ``run`` ends early when it is told to, and the drill is due again. ``DrillTask`` is that
as a task of ``history.py``.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlitereplica.errors import StoreError, VerifyStoppedError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.replicate.history import Job
from sqlitereplica.replicate.workshop import StoppedError, Workshop
from sqlitereplica.restore import VerifyReport, findings, verify
from sqlitereplica.restore.coverage import key_of
from sqlitereplica.store import LTXStore

__all__ = ["Drill", "DrillTask", "DutyCycle", "VerifySummary", "due_in", "has_room"]

_FIRST_WITHIN = 3600.0
_AGAIN_AFTER_FAILURE = 900.0
_PARALLEL = 2
_MOST_PROBLEM = 500
_LONGEST_PAUSE = 1.0
_SHORTEST_PAUSE = 0.005
_CONTRADICTIONS = frozenset(
    {"foreign", "content", "conflict", "page-size", "incomplete"}
)
"""Findings in files that are whole: each is what somebody wrote, and they do not agree."""

DrillLevel = Literal["checksums", "restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySummary:
    """How the last drill of a replica ended, for a status.

    Attributes:
        at: When it ended; aware, UTC.
        ok: Whether nothing was wrong. False as well if the store did not answer.
        level: ``"restore"``, or ``"checksums"`` where there was no room to restore.
        duration_seconds: How long it took, pauses included.
        txid: The newest transaction that can be restored; 0 if that is not known.
        problem: What is wrong, in a few lines; None if nothing is.
    """

    at: datetime
    ok: bool
    level: str
    duration_seconds: float
    txid: int
    problem: str | None


def due_in(interval: float, last: float | None, begun: float, now: float) -> float:
    """Return the seconds until a drill is due; 0 if it is.

    Args:
        interval: Seconds between the end of one drill and the begin of the next.
        last: When the last one ended.
        begun: When to have the first one if there was none.
        now: These three by one clock that is never set.
    """
    due = begun if last is None else last + interval
    return max(0.0, due - now)


def has_room(database: int, free: int) -> bool:
    """Tell whether a database of so many bytes may be restored where so many are free.

    Half of what is free stays free for the application.
    """
    return 2 * database <= free


class DutyCycle:
    """Sleeps after each piece of work, so that work takes ``share`` of the time.

    Call it with the bytes of a piece; it goes by the time that passed. Belongs to one
    thread.
    """

    def __init__(
        self,
        share: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Begin to work. Raises ValueError unless 0 < ``share`` <= 1."""
        if not 0 < share <= 1:
            raise ValueError(f"share={share!r} is not above 0 and up to 1")
        self._rest = 1 / share - 1
        self._clock, self._sleep = clock, sleep
        self._since = clock()

    def __call__(self, count: int) -> None:
        """Sleep as long as the work since the last call demands."""
        del count
        pause = min((self._clock() - self._since) * self._rest, _LONGEST_PAUSE)
        if pause >= _SHORTEST_PAUSE:
            self._sleep(pause)
            self._since = self._clock()


class Drill:
    """Verifies one replica again and again. Belongs to the thread that runs it.

    ``last`` is how the last drill ended, ``report`` all that it found; both may be read
    by any thread.
    """

    def __init__(
        self,
        open_store: Callable[[], LTXStore],
        *,
        interval: float,
        level: DrillLevel = "restore",
        scope: Literal["history", "latest"] = "latest",
        share: float = 0.2,
        scratch: str | os.PathLike[str] | None = None,
        database_size: Callable[[], int] = lambda: 0,
        last: VerifySummary | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
        free: Callable[[str], int] = lambda path: shutil.disk_usage(path).free,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """Describe the drills; none is made yet.

        Args:
            open_store: Gives the replica's store.
            interval: Seconds between two drills. The first comes within the hour, at
                a random moment, so that not all replicas of a fleet are read at once.
            level: ``"restore"``, wherever there is room for the database twice.
            scope: As for ``verify``; ``"latest"`` bounds what is downloaded.
            share: Of the time, for work.
            scratch: Folder for the temporary database.
            database_size: Bytes of the database now.
            last: How the last drill ended in an earlier life of the process.
            clock: Seconds that only rise.
            now: Seconds since the epoch.
            sleep: Sleeps; may return early when the application stops.
            free: Bytes that are free in a folder.
            rng: Numbers in 0..1.
        """
        if not interval > 0:
            raise ValueError(f"verify_interval must be above 0 seconds: {interval!r}")
        self.last = last
        self.report: VerifyReport | None = None
        self._failed = False
        self._open_store, self._interval = open_store, interval
        self._level, self._scope, self._share = level, scope, share
        self._scratch, self._free = scratch, free
        self._database_size = database_size
        self._clock, self._now, self._sleep = clock, now, sleep
        wait = min(interval, _FIRST_WITHIN) * rng()
        if last is not None:
            age = max(0.0, now() - last.at.timestamp())
            wait = max(wait, interval - age)
        self._begun = clock() + wait
        self._ended: float | None = None

    @property
    def due_in(self) -> float:
        """Seconds until the next drill is due; 0 if it is."""
        return due_in(self._pause(), self._ended, self._begun, self._clock())

    def run(
        self, *, at_least: int = 0, stop: Callable[[], bool] = lambda: False
    ) -> VerifySummary | None:
        """Make one drill; return how it ended, or None if it was stopped.

        Raises for nothing that has to do with the replica or the disk.

        Args:
            at_least: The transaction that the replica confirmed last.
            stop: Is asked often; True ends the drill.
        """
        begun, level = self._clock(), self._possible_level()
        report: VerifyReport | None = None
        try:
            report = self._verify(level, at_least, stop)
        except VerifyStoppedError:
            return None
        except (StoreError, OSError) as error:
            summary = self._summary(level, begun, ok=False, problem=str(error))
        else:
            summary = self._summary(
                level,
                begun,
                ok=report.ok,
                txid=report.latest_txid or 0,
                problem="\n".join(report.problems) or None,
            )
        self.last, self.report = summary, report
        self._failed, self._ended = report is None, self._clock()
        return summary

    def _verify(
        self, level: DrillLevel, at_least: int, stop: Callable[[], bool]
    ) -> VerifyReport:
        return verify(
            self._open_store(),
            level,
            scope=self._scope,
            at_least=at_least or None,
            foreign_keys=False,  # theirs are the application's affair
            scratch=self._scratch,
            parallel=_PARALLEL,
            pace=DutyCycle(self._share, clock=self._clock, sleep=self._sleep),
            stop=stop,
        )

    def _possible_level(self) -> DrillLevel:
        """Restore only where that cannot fill the disk."""
        if self._level == "checksums":
            return "checksums"
        where = tempfile.gettempdir() if self._scratch is None else self._scratch
        try:
            free = self._free(os.fspath(where))
        except OSError:
            return "checksums"
        return "restore" if has_room(self._database_size(), free) else "checksums"

    def _pause(self) -> float:
        """Seconds from the last drill to the next: fewer if nothing came of it."""
        again = _AGAIN_AFTER_FAILURE if self._failed else self._interval
        return min(self._interval, again)

    def _summary(
        self, level: str, begun: float, *, ok: bool, problem: str | None, txid: int = 0
    ) -> VerifySummary:
        if problem is not None and len(problem) > _MOST_PROBLEM:
            problem = problem[:_MOST_PROBLEM] + " ..."
        return VerifySummary(
            at=datetime.fromtimestamp(self._now(), UTC),
            ok=ok,
            level=level,
            duration_seconds=self._clock() - begun,
            txid=txid,
            problem=problem,
        )


class DrillTask:
    """The drills of one replica, as a task of its history.

    ``last`` is how the last one ended.
    """

    job = Job("verify")

    def __init__(
        self,
        shop: Workshop,
        drill: Drill,
        *,
        note: Callable[[FileInfo, str], object],
        ask_snapshot: Callable[[], object],
    ) -> None:
        """``note`` has a bad file healed; ``ask_snapshot`` makes the newest state safe."""
        self._shop, self._drill = shop, drill
        self._note, self._ask_snapshot = note, ask_snapshot

    @property
    def last(self) -> VerifySummary | None:
        """How the last drill ended; None before the first."""
        return self._drill.last

    def look(self) -> float:
        """Seconds until a drill is due."""
        return self._drill.due_in

    def run(self) -> None:
        """Make one, say how it ended, and have healed what it found.

        Raises:
            StoppedError: The Replicator stops.
        """
        shop = self._shop
        summary = self._drill.run(at_least=shop.worker.txid, stop=shop.stopped)
        if summary is None:
            raise StoppedError
        shop.report(
            "verify",
            level=logging.INFO if summary.ok else logging.ERROR,
            ok=summary.ok,
            verified=summary.level,
            txid=summary.txid,
            seconds=round(summary.duration_seconds, 3),
            problem=summary.problem,
        )
        if self._drill.report is not None:
            self._have_healed(self._drill.report)

    def _have_healed(self, report: VerifyReport) -> None:
        # By the catalog's values: a listing may tell other times. Of files that contradict
        # each other nobody here can tell which is wrong, so none is deleted: a snapshot of
        # the source says what the newest state is, whatever they say.
        known = {key_of(file): file for file in self._shop.catalog.files()}
        for finding in findings(report):
            if finding.file is not None and finding.kind not in _CONTRADICTIONS:
                file = known.get(key_of(finding.file), finding.file)
                self._note(file, finding.reason)
        if report.latest_error is not None or report.restore_error is not None:
            self._ask_snapshot()
