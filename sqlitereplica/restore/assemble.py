"""From the files of one replica to the image of one of its states.

While a large snapshot is read, the replica lives on: compaction and retention delete
files that the plan names. What has been applied up to a whole file stays right, so the
replica is listed anew and the plan continues from there, through files of other levels.
Starting over would never end where files live shorter than the snapshot takes to read.
A damaged file, too, is avoided if others lead to the same state.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    SQLiteReplicaError,
    StoreError,
)
from sqlitereplica.ltx import HEADER_SIZE, FileInfo, Header
from sqlitereplica.restore.at import TIME_FORMS, At, NoTimeError, parse_at
from sqlitereplica.restore.fetch import LTXPrefetch
from sqlitereplica.restore.image import Image, State, check_commit
from sqlitereplica.restore.output import Output
from sqlitereplica.restore.plan import continue_plan, decisive, plan_restore
from sqlitereplica.store import LTXStore
from sqlitereplica.store.pins import find_pin, is_pin_name, no_such_pin, pin_names

__all__ = [
    "Assembly",
    "Checksums",
    "Wanted",
    "read_checksums",
    "unknown_pin",
    "warn_of_gap",
]

logger = logging.getLogger(__name__)

_MOST_RETRIES = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """The state that is asked for: the latest if nothing is given.

    ``txid`` is its transaction; ``before`` is later than its time, in milliseconds; a
    ``pin`` is of another transaction in each replica, see ``on``.
    """

    txid: int | None = None
    before: int | None = None
    pin: str | None = None

    @classmethod
    def at(cls, at: At, now: datetime) -> Wanted:
        """A time, or the pin of that name if it is none; raises as ``parse_at`` does."""
        try:
            return cls(before=parse_at(at, now))
        except NoTimeError:
            name = str(at).strip()
            if is_pin_name(name):
                return cls(pin=name)
            raise

    def on(self, store: LTXStore) -> Wanted:
        """What is asked for of this replica, without a pin.

        Raises:
            NotRestorableError: ``kind`` is ``"pin"``: there is no such pin.
            InvalidFileError: It is damaged.
            StoreError: The replica cannot be read.
        """
        if self.pin is None:
            return self
        pin = find_pin(store, self.pin)
        if pin is not None:
            return Wanted(txid=pin.txid)
        names = pin_names(store)
        if not names and not store.list_all() and not store.list_generations():
            return Wanted()  # no pin because no backup: planning will say so
        raise unknown_pin(self.pin, names)

    def list(self, store: LTXStore) -> list[FileInfo]:
        """List a replica, with exact times if they matter.

        These are read from the files, of which some may be deleted just then.
        """
        for _ in range(_MOST_RETRIES):
            try:
                return store.list_all(accurate=self.before is not None)
            except StoreError as error:
                if error.kind != "missing":
                    raise
        return store.list_all(accurate=self.before is not None)

    def plan(self, files: Sequence[FileInfo]) -> tuple[FileInfo, ...]:
        """Choose files; raises NotRestorableError as ``plan_restore`` does.

        A time after all files means the latest state, so that a gap is not passed over.
        """
        before = self.before
        if before is not None and all(file.timestamp < before for file in files):
            before = None
        return plan_restore(files, txid=self.txid, before=before)


def unknown_pin(name: str, names: Sequence[str]) -> NotRestorableError:
    """The error for text that is neither a time nor one of these pins."""
    error = no_such_pin(name, names)
    return NotRestorableError(f"{error} As a time use {TIME_FORMS}.", kind=error.kind)


class Assembly:
    """One restore from one replica. ``files`` is its listing, ``plan`` made of it.

    ``damaged`` has the files that were found to be, and why.
    """

    def __init__(
        self,
        store: LTXStore,
        wanted: Wanted,
        files: Sequence[FileInfo],
        plan: Sequence[FileInfo],
        output: Output,
        *,
        on_plan: Callable[[int], object],
        on_bytes: Callable[[int], object],
    ) -> None:
        """Prepare. ``on_plan`` is told the bytes to fetch, ``on_bytes`` those fetched."""
        self.damaged: list[tuple[FileInfo, SQLiteReplicaError]] = []
        self._store = store
        self._wanted = wanted
        self._output = output
        self._on_plan = on_plan
        self._on_bytes = on_bytes
        self._files = files
        self._end = plan[-1].max_txid
        self._steps = decisive(plan)
        self._image: Image | None = None
        self._current: FileInfo | None = None
        self._broken: set[tuple[int, str]] = set()
        self._outdated = False
        self._retries = _MOST_RETRIES

    def run(self) -> State:
        """Return the verified state; all of its pages were handed to the output.

        Raises:
            NotRestorableError: Files went away and the state with them.
            InvalidFileError: A file is damaged and no others can replace it.
            PosMismatchError: Files do not join, as InvalidFileError.
            StoreError: The replica cannot be read.
        """
        while True:
            try:
                if self._outdated:
                    self._plan_anew()
                state = self._apply_steps()
                end = state.header.max_txid
                warn_of_gap(self._store, self._wanted, self._files, end)
                return state
            except StoreError as error:
                if error.kind != "missing" or not self._retries:
                    raise
                self._retries -= 1
                self._outdated = True
            except (InvalidFileError, PosMismatchError) as error:
                self._avoid_current(error)

    def _apply_steps(self) -> State:
        """Fetch and apply the files that are left."""
        image = self._image
        if self._steps:
            self._on_plan(sum(file.size for file in self._steps))
            self._current = self._steps[-1]
            with LTXPrefetch(
                self._store, self._steps, on_bytes=self._on_bytes
            ) as fetched:
                goal = fetched.last_header()
                if image is None:
                    image = self._image = self._begin(goal)
                for file, reader in fetched:
                    self._current = file
                    image.apply(file, reader)
        self._current = None
        assert image is not None, "a plan is never empty"
        return image.verify()

    def _begin(self, goal: Header) -> Image:
        # Before the disk is asked: a header that lies is no lack of room.
        check_commit(goal, sum(file.size for file in self._steps))
        self._output.clear()
        self._output.reserve(goal.commit * goal.page_size)
        checksums = goal.post_checksum != 0
        return Image(self._output.write, horizon=goal.commit, checksums=checksums)

    def _plan_anew(self) -> None:
        """List the replica again and choose how to go on."""
        self._files = self._without_broken(self._wanted.list(self._store))
        plan = self._wanted.plan(self._files)
        self._end = plan[-1].max_txid
        steps = self._continuation()
        logger.info(
            "files of the restore plan are gone: %s",
            "starting over" if steps is None else f"continuing with {len(steps)}",
            extra={"action": "restore-replan", "replica": self._store.label},
        )
        if steps is None:
            self._image = None
            steps = decisive(plan)
        self._steps = steps
        self._outdated = False

    def _continuation(self) -> Sequence[FileInfo] | None:
        """Return the files that lead from the image to the end, None if none do."""
        image = self._image
        if image is None or image.header is None:
            return None
        steps = continue_plan(self._files, image.txid, self._end)
        if steps is None:
            return None
        goal = image.header
        if steps:
            self._current = steps[-1]
            goal = Header.unpack(self._store.get(steps[-1], 0, HEADER_SIZE))
        if not image.can_become(goal):
            return None
        image.horizon = goal.commit
        return steps

    def _avoid_current(self, error: InvalidFileError | PosMismatchError) -> None:
        """Plan without the file that the error is about, or raise the error."""
        broken = self._current
        if broken is None:
            raise error
        where = f"level {broken.level}, {broken.name}, {self._store.name}"
        error.add_note(f"in {where}")
        self.damaged.append((broken, error))
        self._broken.add((broken.level, broken.name))
        self._files = self._without_broken(self._files)
        try:
            plan = self._wanted.plan(self._files)
        except NotRestorableError:
            raise error from None
        if plan[-1].max_txid < self._end or len(self._broken) > _MOST_RETRIES:
            raise error
        logger.warning(
            "file is damaged (%s), restoring without it: %s",
            error,
            where,
            extra={"action": "restore-avoid", "replica": self._store.label},
        )
        self._image = None
        self._steps = decisive(plan)

    def _without_broken(self, files: Sequence[FileInfo]) -> list[FileInfo]:
        return [file for file in files if (file.level, file.name) not in self._broken]


def warn_of_gap(
    store: LTXStore, wanted: Wanted, files: Sequence[FileInfo], end: int
) -> None:
    """Say so if the state is older than it had to be, for files are missing."""
    before = wanted.before
    if before is None:
        return
    if any(f.timestamp < before and f.max_txid > end for f in files):
        logger.warning(
            "the state of transaction %d is restored although there are later files"
            " before the time asked for: those between are missing",
            end,
            extra={"action": "restore-gap", "replica": store.label},
        )


class Checksums(NamedTuple):
    """The checksums of the pages of a database as a replica has it.

    ``pages`` is by page number less one, 0 for the lock page; ``header`` is that of the
    last file. The other fields are taken from it.
    """

    pages: array[int]
    page_size: int
    commit: int
    txid: int
    header: Header


def read_checksums(store: LTXStore, plan: Sequence[FileInfo]) -> Checksums:
    """Read what a plan makes without writing it; 9 bytes of memory a page.

    Raises:
        InvalidFileError: A file is damaged, or pages are missing.
        PosMismatchError: The files do not join.
        StoreError: A file cannot be read; ``kind`` is ``"missing"`` if it is gone.
    """
    with LTXPrefetch(store, decisive(plan)) as fetched:
        goal = fetched.last_header()
        image = Image(None, horizon=goal.commit, checksums=True)
        for file, reader in fetched:
            image.apply(file, reader)
    state = image.verify()
    header, sums = state.header, state.sums
    assert sums is not None, "they were asked for"
    return Checksums(sums, header.page_size, header.commit, header.max_txid, header)
