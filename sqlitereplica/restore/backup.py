"""What one replica has that leads to the state asked for.

That is LTX files, or those of Litestream 0.3, or both: Litestream 0.5 goes on in the same
place without a word. Then the layout that has the newest file counts, or the newest one
before the time asked for, for that is where the last program wrote: Litestream 0.5 decides
so for the latest state. (For a time it compares only snapshots, and gives an older state
than there is while the new layout has none at level 9.)

So each restore asks for both. A store answers the second question, asked at the same time
as the first, with nothing in most cases. Without it, whoever had gone back from 0.5 to 0.3
would get the state of that day. Only a transaction cannot be in the old layout, as there
are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sqlitereplica.errors import (
    NearestPoint,
    NotRestorableError,
    SQLiteReplicaError,
    StoreError,
)
from sqlitereplica.ltx import HEADER_SIZE, FileInfo, Header
from sqlitereplica.restore.assemble import Assembly, Wanted
from sqlitereplica.restore.generations import (
    GenerationPlan,
    bounds,
    plan_generation,
    too_early,
)
from sqlitereplica.restore.oldcopy import OldCopy
from sqlitereplica.restore.output import Made, Output
from sqlitereplica.restore.replay import Replay
from sqlitereplica.restore.reuse import Reuse
from sqlitereplica.store import GenerationFile, LTXStore
from sqlitereplica.store.pins import own_time
from sqlitereplica.store.reach import to_datetime

__all__ = ["Backup", "find_backup"]

OnBytes = Callable[[int], object]

_NEVER = -(1 << 63)


class Backup(Protocol):
    """Files that lead to the state asked for."""

    @property
    def damaged(self) -> Sequence[tuple[FileInfo, SQLiteReplicaError]]:
        """The LTX files that ``make`` found to be, and why."""

    def newness(self) -> tuple[int, int]:
        """When the state was replicated, and its transaction; raises as ``make`` does."""

    def reuse(self, old: OldCopy, on_plan: OnBytes, on_bytes: OnBytes) -> Reuse | None:
        """Return what makes the database with the help of an old copy, if anything can."""

    def make(self, output: Output, on_plan: OnBytes, on_bytes: OnBytes) -> Made:
        """Put the database together.

        ``on_plan`` is told the bytes to fetch, ``on_bytes`` those fetched.

        Raises:
            NotRestorableError: Files went away and the state with them.
            InvalidFileError: A file is damaged and no others can replace it.
            PosMismatchError: Files do not join, as InvalidFileError.
            StoreError: The replica cannot be read.
        """


@dataclass(frozen=True, slots=True)
class LTXBackup:
    """LTX files; ``plan`` was made of ``files``."""

    store: LTXStore
    wanted: Wanted
    files: Sequence[FileInfo]
    plan: Sequence[FileInfo]
    damaged: list[tuple[FileInfo, SQLiteReplicaError]] = field(default_factory=list)

    def newness(self) -> tuple[int, int]:
        """The time in the last file, which no listing alters, and its transaction."""
        last = self.plan[-1]
        header = Header.unpack(self.store.get(last, 0, HEADER_SIZE))
        return header.timestamp, last.max_txid

    def reuse(self, old: OldCopy, on_plan: OnBytes, on_bytes: OnBytes) -> Reuse | None:
        """Return what looks for a way from the old copy."""
        return Reuse(
            self.store,
            self.wanted,
            self.files,
            self.plan,
            old,
            on_plan=on_plan,
            on_bytes=on_bytes,
        )

    def make(self, output: Output, on_plan: OnBytes, on_bytes: OnBytes) -> Made:
        """Put the database together."""
        assembly = Assembly(
            self.store,
            self.wanted,
            self.files,
            self.plan,
            output,
            on_plan=on_plan,
            on_bytes=on_bytes,
        )
        try:
            return assembly.run().made()
        finally:
            self.damaged.extend(assembly.damaged)


@dataclass(frozen=True, slots=True)
class GenerationBackup:
    """Files of Litestream 0.3; ``plan`` was made of ``files``."""

    store: LTXStore
    wanted: Wanted
    files: Sequence[GenerationFile]
    plan: GenerationPlan
    damaged: tuple[()] = ()

    def newness(self) -> tuple[int, int]:
        """The time of the last file, for there is nothing else."""
        return self.plan.timestamp, 0

    def reuse(self, old: OldCopy, on_plan: OnBytes, on_bytes: OnBytes) -> None:
        """Nothing there tells what an old copy has."""

    def make(self, output: Output, on_plan: OnBytes, on_bytes: OnBytes) -> Made:
        """Put the database together."""
        return Replay(
            self.store,
            self.wanted.before,
            self.files,
            self.plan,
            output,
            on_plan=on_plan,
            on_bytes=on_bytes,
        ).run()


def find_backup(store: LTXStore, asked: Wanted) -> Backup:
    """Return the files of a replica that lead to a state.

    Raises:
        NotRestorableError: There are none, or not for that state.
        InvalidFileError: The pin that was asked for is damaged.
        StoreError: The replica cannot be read.
    """
    files: Sequence[FileInfo] = ()
    where = store.name
    try:
        wanted = asked.on(store)
        if asked.pin is not None:
            where += f", pin {asked.pin!r}"
        files, generations = _list(store, wanted)
        if not generations:
            return LTXBackup(store, wanted, files, wanted.plan(files))
        if not files:
            return _of_generations(store, wanted, generations)
        return _newer(store, wanted, files, generations)
    except NotRestorableError as error:
        before, after = error.before, error.after
        if asked.before is None:  # the listing may tell times of uploads
            before, after = (_timed(store, files, point) for point in (before, after))
        raise error.named(where, before=before, after=after) from None


def _list(
    store: LTXStore, wanted: Wanted
) -> tuple[list[FileInfo], list[GenerationFile]]:
    """List both layouts, as far as they can matter."""
    if wanted.txid is not None:
        files = wanted.list(store)
        return files, [] if files else store.list_generations()
    with ThreadPoolExecutor(1, thread_name_prefix="restore-list") as pool:
        generations = pool.submit(store.list_generations)
        return wanted.list(store), generations.result()


def _timed(
    store: LTXStore, files: Sequence[FileInfo], point: NearestPoint | None
) -> NearestPoint | None:
    """Return a point with the time that its own file tells, if that can be read."""
    if point is None:
        return None
    try:
        return NearestPoint(point.txid, to_datetime(own_time(store, files, point.txid)))
    except StoreError:
        return point  # that the state is not there is what has to be said


def _of_generations(
    store: LTXStore, wanted: Wanted, files: Sequence[GenerationFile]
) -> GenerationBackup:
    if wanted.txid is not None:
        raise _no_transactions(files)
    plan = plan_generation(files, before=wanted.before)
    return GenerationBackup(store, wanted, files, plan)


def _newer(
    store: LTXStore,
    wanted: Wanted,
    files: Sequence[FileInfo],
    generations: Sequence[GenerationFile],
) -> Backup:
    """Return the files of the layout that was written to last, before the time."""
    before = wanted.before
    old = [
        f.timestamp for f in generations if before is None or f.committed_by < before
    ]
    new = [f.timestamp for f in files if before is None or f.timestamp < before]
    layouts: list[Callable[[], Backup]] = [
        lambda: LTXBackup(store, wanted, files, wanted.plan(files)),
        lambda: _of_generations(store, wanted, generations),
    ]
    if max(old, default=_NEVER) > max(new, default=_NEVER):
        layouts.reverse()
    if before is None:
        return layouts[0]()
    errors = []
    for layout in layouts:
        try:
            return layout()
        except NotRestorableError as error:
            if error.kind != "time":
                raise
            errors.append(error)
    earliest = [e.earliest for e in errors if isinstance(e.earliest, datetime)]
    latest = [e.latest for e in errors if isinstance(e.latest, datetime)]
    raise too_early(
        before, min(earliest, default=None), max(latest, default=None)
    ) from None


def _no_transactions(files: Sequence[GenerationFile]) -> NotRestorableError:
    """Return the error for a transaction asked of a replica that counts none."""
    earliest, latest = bounds(files)
    return NotRestorableError(
        "this is a replica of Litestream 0.3, which does not count transactions: restore"
        f" the latest state or one by time, from {earliest} to {latest}",
        kind="txid",
        earliest=earliest,
        latest=latest,
    )
