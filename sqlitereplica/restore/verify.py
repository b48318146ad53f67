"""Proving that a replica gives back what it promises.

Three levels, each with all of the one before: what the listing tells (one request), what
the files hold (every file is read), and a real restore. ``survey`` lists and reads,
``walk`` holds files against states, ``coverage`` judges what can be restored; here they
are put together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    StoreError,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.at import At
from sqlitereplica.restore.backup import find_backup
from sqlitereplica.restore.check import Inspection, Verify, inspect_database
from sqlitereplica.restore.choose import Source, open_store
from sqlitereplica.restore.coverage import Coverage, Note
from sqlitereplica.restore.fetch import THREADS
from sqlitereplica.restore.output import Made
from sqlitereplica.restore.plan import decisive
from sqlitereplica.restore.report import (
    Finding,
    Level,
    RestoreProof,
    Scope,
    VerifyReport,
)
from sqlitereplica.restore.restore import check_choice, wanted_by
from sqlitereplica.restore.survey import Damage, Survey, Watch
from sqlitereplica.restore.workspace import Throwaway, workspace
from sqlitereplica.store import LTXStore
from sqlitereplica.store.reach import to_datetime

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

__all__ = ["verify"]


def verify(
    replica: Source,
    level: Level = "checksums",
    *,
    scope: Scope = "history",
    at: At | None = None,
    txid: int | None = None,
    at_least: int | None = None,
    check: Verify | None = "full",
    foreign_keys: bool = True,
    scratch: str | os.PathLike[str] | None = None,
    parallel: int = THREADS,
    pace: Callable[[int], object] | None = None,
    stop: Callable[[], bool] | None = None,
    callback: Callback | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> VerifyReport:
    """Find out whether a replica can be restored, and what is wrong with it.

    What it finds it reports and never raises; nothing in the replica is changed.

    Args:
        replica: A URL, a folder, a ``Replica`` or an ``LTXStore``.
        level: ``"listing"``: by one listing, which states can be restored, and where files
            are missing. ``"checksums"``: also read every file, and compare it with the
            states that it leads from and to. ``"restore"``: also restore a database to
            a temporary place and let SQLite check it.
        scope: ``"history"``: read all files; ``"latest"``: only those of which the newest
            state is made, each once, unless one of them is damaged.
        at: The state to restore instead of the newest, as for ``restore``: also the name of
            a pin.
        txid: The same by its transaction.
        at_least: A transaction that must be there, such as the one that a Replicator
            confirmed last. Without, a replica that lost its newest files looks older, but
            sound.
        check: What SQLite does with the restored database: ``"full"`` is ``PRAGMA
            integrity_check`` (where that needs functions of the application,
            ``quick_check``); ``"quick"``; or None, for one that is encrypted.
        foreign_keys: Also run ``PRAGMA foreign_key_check``. Pass False for a database that
            does not enforce its foreign keys.
        scratch: The folder for the temporary database, which must have room for it; by
            default that for temporary files.
        parallel: How many requests are made at a time.
        pace: Is called with the bytes of each piece that was read, with 0 while SQLite
            checks, and may sleep.
        stop: Is asked as often; True ends the verification.
        callback: An fsspec ``Callback`` that is told the bytes to read and those read.
        storage_options: For the filesystem of a URL.

    Raises:
        StoreError: The replica cannot be asked.
        VerifyStoppedError: ``stop`` said so.
        OSError: The temporary database cannot be written.
        ValueError: An argument makes no sense.
    """
    wanted = _wanted(level, scope, at, txid)
    check_choice("check", check, (*get_args(Verify), None))
    _check_number("parallel", parallel)
    _check_number("at_least", 1 if at_least is None else at_least)
    given: object = replica
    if isinstance(given, list | tuple):
        raise ValueError("one replica is verified at a time: call it for each")
    store = open_store(replica, storage_options)
    watch = Watch(store.label, pace=pace, stop=stop, callback=callback)
    job = _Job(store, watch, level, scope, wanted, parallel, at_least or 0)
    job.check, job.foreign_keys, job.scratch = check, foreign_keys, scratch
    return job.run()


class _Job:
    """One verification."""

    def __init__(
        self,
        store: LTXStore,
        watch: Watch,
        level: Level,
        scope: Scope,
        wanted: Wanted,
        parallel: int,
        at_least: int,
    ) -> None:
        self.check: Verify | None = "full"
        self.foreign_keys = True
        self.scratch: str | os.PathLike[str] | None = None
        self._store, self._watch = store, watch
        self._level, self._scope, self._wanted = level, scope, wanted
        self._survey = Survey(store, watch, parallel=parallel, at_least=at_least)
        self._at_least = at_least
        self._proof: RestoreProof | None = None
        self._failure: str | None = None
        self._notes: list[Note] = []

    def run(self) -> VerifyReport:
        """Do what the level says."""
        started, begun = datetime.now(UTC), time.monotonic()
        self._attempt(self._find_pin)
        coverage = self._survey.settle(self._choose)
        if self._level == "restore" and self._failure is None:
            self._attempt(self._restore)
        if self._scope == "latest" and self._survey.has_found_damage:
            coverage = self._survey.settle(_all)
        return self._report(coverage, started, time.monotonic() - begun)

    def _choose(self, files: Sequence[FileInfo]) -> Iterable[FileInfo]:
        """Pick the files to read by themselves."""
        if self._level != "listing" and self._scope == "history":
            return files
        if self._level != "checksums":
            return ()  # a restore reads the latest ones, and is as strict
        try:
            return decisive(self._wanted.plan(files))
        except NotRestorableError:
            return ()

    # -- the restore -----------------------------------------------------------------

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do a part of the restore; note what fails."""
        try:
            action()
        except StoreError as error:
            self._store.list_level(0)  # raises if it is not about single files
            self._failure = str(error)
        except (InvalidFileError, NotRestorableError, PosMismatchError) as error:
            self._failure = str(error).removeprefix(f"{self._store.name}: ")

    def _find_pin(self) -> None:
        self._wanted = self._wanted.on(self._store)

    def _restore(self) -> None:
        """Restore and check a database."""
        backup = find_backup(self._store, self._wanted)
        with workspace(self.scratch) as folder:
            with Throwaway(os.path.join(folder, "restored.db")) as output:
                try:
                    made = backup.make(output, self._watch.expect, self._watch.advance)
                finally:
                    for file, error in backup.damaged:
                        self._survey.condemn(file, error)
                output.resize(made.commit * made.page_size)
            self._prove(made, output.path)

    def _prove(self, made: Made, path: str) -> None:
        found = Inspection("quick")
        if self.check is not None:
            found = inspect_database(
                path,
                made.page_size,
                check=self.check,
                foreign_keys=self.foreign_keys,
                tick=self._watch.breathe,
            )
        notes = (Note(kind="unchecked", text=text) for text in found.unchecked)
        self._notes.extend(notes)
        self._proof = RestoreProof(
            txid=made.txid,
            time=to_datetime(made.timestamp),
            page_size=made.page_size,
            commit=made.commit,
            files=made.files,
            checksum=made.checksum,
            check=None if self.check is None else found.check,
            integrity=found.messages,
            foreign_key_violations=found.violations,
            more_violations=found.more,
        )

    # -- the report ------------------------------------------------------------------

    def _report(
        self, coverage: Coverage, started: datetime, seconds: float
    ) -> VerifyReport:
        survey = self._survey
        bad = [
            _finding(damage, coverage)
            for damage in (*survey.bad.values(), *survey.incomplete)
        ]
        bad.sort(key=lambda f: (f.level or 0, f.min_txid, f.max_txid))
        return VerifyReport(
            replica=self._store.label,
            level=self._level,
            scope=self._scope,
            started=started,
            ended=datetime.now(UTC),
            duration_seconds=seconds,
            files=len(survey.files),
            total_bytes=sum(file.size for file in survey.files),
            bytes_read=self._watch.read,
            files_read=survey.files_read,
            files_signed=survey.files_signed,
            ranges=coverage.ranges,
            gaps=coverage.gaps,
            lost=coverage.lost,
            bad_files=tuple(bad),
            notes=(*coverage.notes, *survey.notes, *self._notes),
            latest_txid=coverage.states[-1] if coverage.states else None,
            latest_error=coverage.latest_error,
            expected_txid=self._at_least or None,
            lost_pins=survey.lost_pins(coverage),
            damaged_pins=survey.damaged_pins,
            restored=self._proof,
            restore_error=self._failure,
        )


def _all(files: Sequence[FileInfo]) -> Iterable[FileInfo]:
    return files


def _finding(damage: Damage, coverage: Coverage) -> Finding:
    file = damage.file
    return Finding(
        kind=damage.kind,
        level=file.level,
        min_txid=file.min_txid,
        max_txid=file.max_txid,
        size=file.size,
        timestamp=file.timestamp,
        reason=damage.reason,
        needed=coverage.is_needed(file),
    )


def _wanted(level: str, scope: str, at: At | None, txid: int | None) -> Wanted:
    """Return the state to restore; raise ValueError if it cannot be meant."""
    check_choice("level", level, get_args(Level))
    check_choice("scope", scope, get_args(Scope))
    if at is None and txid is None:
        return Wanted()
    if level != "restore" and scope != "latest":
        raise ValueError("at and txid choose what level='restore' restores")
    return wanted_by(at, txid)


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} is not a number from 1 on")
