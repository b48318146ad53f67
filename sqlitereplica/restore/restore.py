"""Bring a database back from its replica, as it is now or as it was.

The steps: refuse a target that is taken; list the replicas and choose one; put the
database together in a temporary file beside the target, from what an old copy there has
already and what has to be fetched; prove it, by the checksums of its files, of the whole
database and by SQLite; give it its name. Whatever fails, the target is as it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    SQLiteReplicaError,
    StoreError,
)
from sqlitereplica.events import Observer
from sqlitereplica.markup import card, moment_text
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.at import At
from sqlitereplica.restore.check import Verify, check_database
from sqlitereplica.restore.choose import Candidate, Source, choose, open_stores, worst
from sqlitereplica.restore.mark import make_mark
from sqlitereplica.restore.measuring import measured
from sqlitereplica.restore.oldcopy import OldCopy, UnfitCopyError
from sqlitereplica.restore.output import Made
from sqlitereplica.restore.plan import to_datetime
from sqlitereplica.restore.target import IfExists, KeepOld, Scratch, Target
from sqlitereplica.restore.ways import Way
from sqlitereplica.sizes import size_text

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

__all__ = ["RestoreResult", "check_choice", "restore", "wanted_by"]

logger = logging.getLogger(__name__)

Missing = Literal["error", "skip"]
Reason = Literal["restored", "exists", "missing", "unchanged"]


_IN_WORDS: dict[Reason, str] = {
    "restored": "Restored",
    "exists": "Nothing restored: there is a database at",
    "missing": "Nothing restored: there is no backup for",
    "unchanged": "Nothing to restore: this state is there already, at",
}

# What another replica may make good. Not so errors of the target.
_REPLICA_FAILED = (StoreError, NotRestorableError, InvalidFileError, PosMismatchError)


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What ``restore`` did, and the state that is there now if it restored one.

    Attributes:
        path: The database.
        restored: Whether it was written.
        reason: ``"restored"``, or why not: the database ``"exists"``, or a backup is
            ``"missing"``, and nothing below is set; or what was to be replaced is that
            state already, ``"unchanged"``, and was left alone.
        source: The name of the replica.
        txid: The last transaction; None if Litestream 0.3 wrote the replica.
        timestamp: When that was replicated; aware, UTC.
        page_size: Bytes of a page.
        commit: Pages of the database.
        files: The number of files it was made of.
        bytes_fetched: How much was downloaded.
        checksum: The database checksum, if the replica has one; it was compared.
        pages_reused: The number of pages that came from the database that was replaced.
        old: Where that is now, if it was to be kept.
    """

    path: Path
    restored: bool
    reason: Reason
    source: str | None = None
    txid: int | None = None
    timestamp: datetime | None = None
    page_size: int | None = None
    commit: int | None = None
    files: int = 0
    bytes_fetched: int = 0
    checksum: int | None = None
    pages_reused: int = 0
    old: Path | None = None

    def _repr_html_(self) -> str:
        """For notebooks."""
        size = (self.page_size or 0) * (self.commit or 0)
        fetched = f"{size_text(self.bytes_fetched)} in {self.files:,} files"
        reused = f"{self.pages_reused:,} of {self.commit or 0:,} pages"
        return card(
            _IN_WORDS[self.reason],
            self.path,
            [
                ("replica", self.source),
                ("transaction", self.txid),
                ("time", moment_text(self.timestamp)),
                ("database", size_text(size) if size else None),
                ("fetched", fetched if self.files else None),
                ("from the old copy", reused if self.pages_reused else None),
                ("old copy", self.old),
            ],
            ok=self.restored or None,
        )


def restore(
    replica: Source | Sequence[Source],
    path: str | os.PathLike[str],
    *,
    at: At | None = None,
    txid: int | None = None,
    if_exists: IfExists = "error",
    keep_old: KeepOld = False,
    missing: Missing = "error",
    verify: Verify | None = "quick",
    callback: Callback | None = None,
    storage_options: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> RestoreResult:
    """Restore a database to ``path``.

    Args:
        replica: A URL, a folder, a ``Replica`` or an ``LTXStore``; or several of them,
            of which the one with the newest state is used that can be.
        path: The database to make. Its folder is made if need be.
        at: Restore the last state before this time instead of the latest: an aware
            datetime, ISO 8601 text with a zone, seconds since the epoch, or
            ``"5 minutes ago"``. Other text is the name of a pin, looked up in each
            replica: its state is restored.
        txid: Restore the state after exactly this transaction instead.
        if_exists: ``"error"``; ``"skip"``: do nothing, and make no request, if there is
            a database; ``"replace"``: put the restored one in its place. Only pages that
            differ are fetched where the replica or the old copy tells which.
        keep_old: With ``"replace"``: keep what is replaced, with its WAL, under this
            path, or for True as ``<path>.before-<time>``.
        missing: ``"skip"``: do nothing if there is no backup. A replica that cannot be
            reached is an error all the same.
        verify: Let SQLite check the result: ``"quick"`` or ``"full"`` (which compares
            indexes with tables). All checksums are verified in any case.
        callback: Is told the bytes to fetch and those fetched.
        storage_options: For the filesystem of a URL.
        observer: Is given one event at the end, ``restore``, with its duration.

    Raises:
        NotRestorableError: There is no backup, or not of the state asked for.
        TargetExistsError: ``path`` is taken.
        DatabaseStateError: ``"busy"``: the database to replace is open somewhere. (Found
            out on Linux only: elsewhere close it yourself.)
        StoreError: The replica cannot be read.
        InvalidFileError: The replica is damaged. ChecksumMismatchError is one, too.
        PosMismatchError: Files of the replica do not belong together.
        OSError: ``path`` cannot be written, or the disk has no room.
        ValueError: An argument makes no sense.
    """
    with measured(observer, path) as told:
        result = _restore(
            replica,
            path,
            at=at,
            txid=txid,
            if_exists=if_exists,
            keep_old=keep_old,
            missing=missing,
            verify=verify,
            callback=callback,
            storage_options=storage_options,
        )
        told(result.source or "", reason=result.reason, bytes=result.bytes_fetched)
    return result


def _restore(
    replica: Source | Sequence[Source],
    path: str | os.PathLike[str],
    *,
    at: At | None,
    txid: int | None,
    if_exists: IfExists,
    keep_old: KeepOld,
    missing: Missing,
    verify: Verify | None,
    callback: Callback | None,
    storage_options: Mapping[str, Any] | None,
) -> RestoreResult:
    check_choice("if_exists", if_exists, get_args(IfExists))
    check_choice("missing", missing, get_args(Missing))
    check_choice("verify", verify, (*get_args(Verify), None))
    wanted = wanted_by(at, txid)
    target = Target(path, if_exists, keep_old)
    if target.is_kept():
        return RestoreResult(Path(path), False, "exists")
    stores = open_stores(replica, storage_options)
    try:
        candidates, failures = choose(stores, wanted)
    except NotRestorableError as error:
        if error.kind == "empty" and missing == "skip":
            return RestoreResult(Path(path), False, "missing")
        raise
    for candidate in candidates:
        job = _Job(candidate, target, verify, callback)
        try:
            result = job.run(Path(path))
        except _REPLICA_FAILED as error:
            failures[candidate.index] = error
        else:
            _log(result, [(stores[i].label, why) for i, why in failures.items()])
            return result
    raise worst(failures, stores)


class _Job:
    """One attempt, from one replica."""

    def __init__(
        self,
        candidate: Candidate,
        target: Target,
        verify: Verify | None,
        callback: Callback | None,
    ) -> None:
        self._candidate = candidate
        self._target = target
        self._verify = verify
        self._progress = _Progress(callback)

    def run(self, path: Path) -> RestoreResult:
        """Restore and name the database."""
        backup = self._candidate.backup
        expect, advance = self._progress.expect, self._progress.advance
        with ExitStack() as stack:
            old = self._old_copy(stack)
            reuse = backup.reuse(old, expect, advance) if old else None
            way = reuse.find() if reuse else None
            if old and reuse and way and self._is_there(old, way):
                return self._result(path, "unchanged", reuse.leave(way))
            scratch = stack.enter_context(self._target.scratch())
            made = reuse.follow(way, scratch) if reuse and way else None
            if made is None:
                made = backup.make(scratch, expect, advance)
            if not self._publish(made, scratch):
                return RestoreResult(path, False, "exists")
            if old:
                old.is_moved = self._target.kept is not None
        return self._result(path, "restored", made)

    def _old_copy(self, stack: ExitStack) -> OldCopy | None:
        """Open what is there already, if it can be of use."""
        try:
            old = self._target.old_copy()
        except UnfitCopyError as why:
            logger.info(
                "the old database cannot be made use of: %s",
                why,
                extra={"action": "restore-in-full"},
            )
            return None
        return None if old is None else stack.enter_context(old)

    def _is_there(self, old: OldCopy, way: Way) -> bool:
        """Tell whether the old database is the state, on disk, and nothing else."""
        size = way.goal.commit * way.goal.page_size
        if not way.is_there or old.size != size or not self._target.is_alone():
            return False
        old.sync()
        return True

    def _publish(self, made: Made, scratch: Scratch) -> bool:
        """Check a finished file and give it its name; False if another has it."""
        if made.sums is not None and made.txid is not None:
            source = self._candidate.store.name
            scratch.mark(make_mark(source, made.txid, made.page_size, made.sums))
        scratch.finish(made.commit * made.page_size)
        if self._verify is not None:
            check_database(scratch.path, self._verify, made.page_size)
        return self._target.publish(scratch)

    def _result(self, path: Path, reason: Reason, made: Made) -> RestoreResult:
        kept = self._target.kept
        return RestoreResult(
            path,
            reason == "restored",
            reason,
            source=self._candidate.store.label,
            txid=made.txid,
            timestamp=to_datetime(made.timestamp),
            page_size=made.page_size,
            commit=made.commit,
            files=made.files,
            bytes_fetched=self._progress.fetched,
            checksum=made.checksum,
            pages_reused=made.reused,
            old=None if kept is None else Path(kept),
        )


class _Progress:
    """Counts the bytes of a restore and tells an fsspec callback."""

    def __init__(self, callback: Callback | None) -> None:
        self.fetched = 0
        self._callback = callback

    def expect(self, size: int) -> None:
        """Say that ``size`` more bytes are to be fetched."""
        if self._callback is not None:
            self._callback.set_size(self.fetched + size)

    def advance(self, size: int) -> None:
        """Say that ``size`` bytes have been."""
        self.fetched += size
        if self._callback is not None:
            self._callback.relative_update(size)


def _log(result: RestoreResult, failures: list[tuple[str, SQLiteReplicaError]]) -> None:
    for name, error in failures:
        logger.warning(
            "replica %s was passed over: %s",
            name,
            error,
            extra={"action": "restore-skip-replica", "replica": name},
        )
    logger.info(
        "%s: %s of %s, %d pages of the old database, %d bytes fetched",
        result.path,
        f"transaction {result.txid}" if result.txid else f"state of {result.timestamp}",
        result.source,
        result.pages_reused,
        result.bytes_fetched,
        extra={"action": "restore", "replica": result.source},
    )


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless an argument has one of these values."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name}={value!r} is none of {listed}")


def wanted_by(at: At | None, txid: int | None) -> Wanted:
    """Return the state asked for; raise ValueError if there cannot be such a one."""
    if at is not None:
        if txid is not None:
            raise ValueError("give at or txid, not both")
        return Wanted.at(at, datetime.now(UTC))
    if txid is not None:
        _check_txid(txid)
    return Wanted(txid=txid)


def _check_txid(txid: object) -> None:
    if not isinstance(txid, int) or txid < 1:
        raise ValueError(f"txid={txid!r} is not a transaction: they count from 1")
