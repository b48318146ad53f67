"""One file that follows one replica, a step at a time; no thread, no clock.

A step is a look at the replica and, if there is something new, one change of the file:
a batch of whole transactions that readers see at once or not at all (``livefile.py``).
The file goes on from what it holds (``held.py``), however old that is (``route.py``).

What a step proves before it changes the file: the checksum of every file that it read,
that they join the state that the file holds, and, where the replica has database checksums,
that the file becomes exactly the state that was replicated. Three things do not happen
unless ``overwrite`` says so, since they might destroy what somebody wants: taking over a
database that was there already, one that somebody has written to, and following a replica
that does not continue what the file holds.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from sqlitereplica.errors import (
    ChecksumMismatchError,
    DatabaseStateError,
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    StoreError,
    TargetExistsError,
)
from sqlitereplica.ltx import HEADER_SIZE, BinaryReader, Decoder, FileInfo, Header
from sqlitereplica.restore.assemble import Wanted
from sqlitereplica.restore.backup import LTXBackup
from sqlitereplica.restore.fetch import CHUNK_SIZE, LTXPrefetch
from sqlitereplica.restore.givenaway import give_away_again
from sqlitereplica.restore.held import Goal, Held, HeldFile, source_of
from sqlitereplica.restore.livefile import LiveFile
from sqlitereplica.restore.newfile import create_live, stored_pages
from sqlitereplica.restore.oldcopy import OldCopy, UnfitCopyError
from sqlitereplica.restore.output import Made
from sqlitereplica.restore.pages import Gathered, Pages
from sqlitereplica.restore.plan import plan_restore
from sqlitereplica.restore.route import IN_STEP, Route, route, shortcut
from sqlitereplica.restore.target import Scratch, Target
from sqlitereplica.sqlite import Connect, SourceBusyError
from sqlitereplica.store import LTXStore

__all__ = ["Following"]

_BATCH = 64 << 20
_MOST_LISTINGS = 3
_LOOK_AROUND = 60

Report = Callable[[str], object]


@dataclass(slots=True)
class _Pending:
    """A change that is ready; readers may be in the way."""

    pages: Pages
    goal: Goal
    whole: bool
    resources: ExitStack
    last: FileInfo


class Following:
    """Follows. Belongs to the thread that calls ``step`` first, until ``close``."""

    def __init__(
        self,
        path: str,
        open_store: Callable[[], LTXStore],
        connect: Connect,
        *,
        copy: str,
        notes: Path,
        overwrite: bool = False,
        report: Report = lambda what: None,
        batch: int = _BATCH,
        look_around: int = _LOOK_AROUND,
    ) -> None:
        """``notes`` is where to keep what the file holds; ``report`` is told of renewals.

        Every ``look_around`` looks that find nothing new in level 0, all levels are listed.
        """
        self.path = path
        self.held: Held | None = None
        self.is_given_away = False
        self.newest = 0
        """The last transaction of the replica that was seen."""
        self._open_store, self._connect, self._copy = open_store, connect, copy
        self._notes = HeldFile(notes)
        self._notes_path = notes
        self._overwrite, self._report, self._batch = overwrite, report, batch
        self._look_around, self._quiet = look_around, 0
        self._store: LTXStore | None = None
        self._file: LiveFile | None = None
        self._pending: _Pending | None = None
        self._checked: FileInfo | None = None
        self._proven: Held | None = None

    @property
    def store(self) -> LTXStore:
        """The replica."""
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def close(self) -> None:
        """Let the file go; a ``step`` may follow, in any thread."""
        self._drop_pending()
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    # -- one step --------------------------------------------------------------------

    def step(self) -> bool:
        """Look once and change the file at most once; True when there may be more.

        False: the file has all that the replica had when this began.

        Raises:
            SourceBusyError: Readers are in the way; the next step goes on from there.
            NotRestorableError: The replica is empty, or files are missing.
            PosMismatchError: It does not continue what the file holds.
            TargetExistsError: There was a database at the path.
            DatabaseStateError: The file was written to, replaced or is not usable.
            InvalidFileError: A file of the replica is damaged and no other leads on.
            StoreError: The replica cannot be read.
            OSError: The file cannot be written.
        """
        if self._pending is not None:
            self._finish()
            return True  # what it leads to was the newest some time ago
        file = self._open()
        if file is None:
            self._create()
            return True
        if not file.is_as_held():
            return self._renew("it was written to by somebody else")
        try:
            return self._follow(file)
        except PosMismatchError as error:
            if not self._overwrite:
                raise
            return self._renew(str(error))

    def _open(self) -> LiveFile | None:
        """The file, None if there is none; refuses what may not be overwritten."""
        if self._file is not None and not self._file.is_there():
            self.close()
        if self._file is None:
            if not os.path.exists(self.path) or not os.path.getsize(self.path):
                return None
            if not self._overwrite and not self._notes_path.exists():
                raise TargetExistsError(
                    self.path,
                    f"{self.path} exists and is no copy of this follower: choose another"
                    " path, or pass overwrite=True to have it replaced",
                )
            self._file = LiveFile(
                self.path,
                self._connect,
                self._notes,
                copy=self._copy,
                reclaim=self._overwrite,
            )
        file = self._file
        self.held = file.held
        if not file.is_as_held() and not self._overwrite:
            raise DatabaseStateError(
                f"{self.path} was written to by somebody else: what they wrote would be"
                " lost. Move it away, or pass overwrite=True to have it replaced",
                path=self.path,
                kind="written",
            )
        return file

    def _follow(self, file: LiveFile) -> bool:
        held = file.held
        assert held is not None
        if held.source != source_of(self.store.name):
            self._check_source(held)
        level0 = self.store.list_level(0, min_txid=held.txid)
        self._check_anchor(level0, held)
        way = shortcut(level0, held.txid)
        self._quiet = self._quiet + 1 if way == IN_STEP else 0
        if self._quiet >= self._look_around:
            # The newest file of level 0 may have been lost: others know of it.
            self._quiet, way = 0, None
        for attempt in range(_MOST_LISTINGS):
            if way is None:
                files = self.store.list_all()
                way = route(files, held.txid)
            else:
                files = level0
            self.newest = max(file.max_txid for file in files)
            if way == IN_STEP:
                return False
            try:
                if way.whole:
                    return self._renew_by(files, way)
                return self._apply(held, way.files)
            except StoreError as error:
                if error.kind != "missing" or attempt == _MOST_LISTINGS - 1:
                    raise
                way = None  # compacted away meanwhile
        raise AssertionError("unreachable")

    def _check_source(self, held: Held) -> None:
        """Raise unless a replica of another name has the state that the file holds."""
        if self._proven == held:
            return
        for info in self.store.list_all():
            if info.max_txid != held.txid:
                continue
            header = Header.unpack(self.store.get(info, 0, HEADER_SIZE))
            if header.post_checksum == held.checksum:
                self._proven = held
                return
        raise _diverged(held.txid)

    def _check_anchor(self, level0: Sequence[FileInfo], held: Held) -> None:
        """Raise unless the file that ends with our state is still the one it was."""
        anchor = next((f for f in level0 if f.max_txid == held.txid), None)
        if anchor is None or anchor == self._checked:
            return
        try:
            data = self.store.get(anchor, 0, HEADER_SIZE)
        except StoreError as error:
            if error.kind == "missing":
                return
            raise
        header = Header.unpack(data)
        if header.post_checksum:
            same = header.post_checksum == held.checksum
        else:  # Litestream's; a later one by the same number is of another history
            same = header.timestamp <= held.timestamp
        if not same or (header.page_size, header.commit) != (
            held.page_size,
            held.commit,
        ):
            raise _diverged(held.txid)
        self._checked = anchor

    # -- the end ---------------------------------------------------------------------

    def sums(self) -> tuple[Held, array[int]]:
        """The state of the file and the checksums of its pages; after a ``step``."""
        assert self._file is not None
        assert self._file.held is not None
        return self._file.held, self._file.page_sums()

    def first_page(self) -> tuple[Held, bytes]:
        """The state of the file and its page 1, as it was replicated."""
        assert self._file is not None
        assert self._file.held is not None
        return self._file.held, self._file.first_page()

    def give_away(self) -> bool:
        """Make the file a database of its own; see ``LiveFile``. No ``step`` follows."""
        assert self._file is not None
        return self._file.give_away()

    def find_given_away(self, goal: Goal, sums: Sequence[int]) -> bool:
        """Whether the file is that state, and was given away before; see ``givenaway.py``.

        ``sums`` are the checksums of its pages.
        """
        held = give_away_again(
            self.path, self._connect, copy=self._copy, goal=goal, sums=sums
        )
        self.held, self.is_given_away = held, held is not None
        return self.is_given_away

    # -- by increments ---------------------------------------------------------------

    def _apply(self, held: Held, steps: Sequence[FileInfo]) -> bool:
        """Gather what some of the steps bring and apply it."""
        try:
            self._pending = self._gather(held, steps)
        except InvalidFileError as error:
            return self._avoid(held, steps[0], error)
        return self._finish()

    def _avoid(self, held: Held, broken: FileInfo, error: InvalidFileError) -> bool:
        """Look for a way around a damaged file; raises the error if there is none."""
        error.add_note(f"in level {broken.level}, {broken.name}, {self.store.name}")
        files = [f for f in self.store.list_all() if f != broken]
        try:
            way = route(files, held.txid)
        except (NotRestorableError, PosMismatchError):
            raise error from None
        if way == IN_STEP:
            raise error
        self._report(f"{broken.name} is damaged, others lead on: {error}")
        if way.whole:
            return self._renew_by(files, way)
        self._pending = self._gather(held, way.files)
        return self._finish()

    def _gather(self, held: Held, steps: Sequence[FileInfo]) -> _Pending:
        """Read files, as many as make one batch; those before one that is no good.

        Raises:
            InvalidFileError: The first one is damaged.
            PosMismatchError: The first one does not join.
        """
        txid, checksum = held.txid, held.checksum
        last: tuple[FileInfo, Header] | None = None
        count = 0
        with ExitStack() as stack:
            fetched = self._fetched(steps, stack)
            resources = stack.enter_context(ExitStack())
            pages: Gathered | None = None
            try:
                for info, reader in fetched:
                    decoder = Decoder(reader)
                    header = decoder.header
                    _check_join(info, header, txid, checksum)
                    if pages is None:
                        pages = resources.enter_context(self._gathered(header))
                    if header.page_size != pages.page_size:
                        break
                    pages.add(decoder.pages(), header.commit)
                    last, count = (info, header), count + 1
                    txid, checksum = header.max_txid, header.post_checksum
                    if pages.size >= self._batch:
                        break
            except (InvalidFileError, PosMismatchError):
                if not count:
                    raise
                last = None  # some pages of the bad file may be among the others
            if last is not None and pages is not None:
                goal = _goal_of(last[1])
                return _Pending(pages, goal, False, resources.pop_all(), last[0])
        return self._gather(held, steps[:count])

    def _fetched(
        self, steps: Sequence[FileInfo], stack: ExitStack
    ) -> Iterable[tuple[FileInfo, BinaryReader]]:
        """Their bytes; for the one small file that there mostly is, without threads."""
        if len(steps) > 1 or steps[0].size > CHUNK_SIZE:
            return stack.enter_context(LTXPrefetch(self.store, steps, goal=False))
        return [(steps[0], BytesIO(self.store.get(steps[0])))]

    def _gathered(self, header: Header) -> Gathered:
        return Gathered(header.page_size, folder=os.path.dirname(self.path))

    def _finish(self) -> bool:
        """Apply what is ready."""
        pending, file = self._pending, self._file
        assert pending is not None
        if file is None:
            self._drop_pending()
            return True
        source = source_of(self.store.name)
        try:
            if pending.whole:
                file.replace(pending.pages, pending.goal, source)
            else:
                file.apply(pending.pages, pending.goal, source)
        except SourceBusyError:
            raise
        except ChecksumMismatchError as error:
            self._drop_pending()
            if pending.whole:
                raise
            # The files are proven, so it is the base that is not what they build on.
            return self._renew_damaged(error)
        except BaseException:
            self._drop_pending()
            raise
        self._checked = pending.last if pending.last.level == 0 else None
        self._drop_pending()
        self.held = file.held
        return pending.goal.txid < self.newest

    def _drop_pending(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.resources.close()

    # -- anew ------------------------------------------------------------------------

    def _renew_damaged(self, error: ChecksumMismatchError) -> bool:
        """The file, or the chain, is not what it was taken for."""
        if not self._overwrite:
            held = self.held
            raise _diverged(held.txid if held else 0) from error
        return self._renew(str(error))

    def _renew(self, why: str) -> bool:
        """Make the newest state anew, from the best files there are."""
        self._report(why)
        files = self.store.list_all()
        plan = plan_restore(files)
        self.newest = plan[-1].max_txid
        return self._renew_by(files, Route(plan, whole=True))

    def _renew_by(self, files: Sequence[FileInfo], way: Route) -> bool:
        """Make a state beside the file and bring the file to it in one change."""
        backup = LTXBackup(self.store, Wanted(), files, way.files)
        with ExitStack() as resources:
            scratch = resources.enter_context(Target(self.path, "replace").scratch())
            made = self._reused(backup, scratch) or backup.make(
                scratch, _nobody, _nobody
            )
            goal = _goal_made(made)
            pages = stored_pages(scratch, goal)
            last = max(way.files, key=lambda f: f.max_txid)
            self._pending = _Pending(pages, goal, True, resources.pop_all(), last)
        return self._finish()

    def _reused(self, backup: LTXBackup, scratch: Scratch) -> Made | None:
        """Make the state with what the file has of it, if that saves anything."""
        try:
            with OldCopy(self.path) as old:
                reuse = backup.reuse(old, _nobody, _nobody)
                way = reuse.find() if reuse else None
                return reuse.follow(way, scratch) if reuse and way else None
        except UnfitCopyError:
            return None  # it only saves bytes

    def _create(self) -> None:
        """Make the file."""
        files = self.store.list_all()
        backup = LTXBackup(self.store, Wanted(), files, plan_restore(files))

        def make(scratch: Scratch) -> Goal:
            return _goal_made(backup.make(scratch, _nobody, _nobody))

        source = source_of(self.store.name)
        self.newest = create_live(self.path, self._notes, make, source).txid
        self._open()


def _nobody(count: int) -> None:
    pass


def _check_join(info: FileInfo, header: Header, txid: int, checksum: int) -> None:
    """Raise unless a file is the one listed and continues a state."""
    if (header.min_txid, header.max_txid) != (info.min_txid, info.max_txid):
        raise InvalidFileError(f"{info.name} is another file", kind="name")
    joined = header.min_txid == txid + 1 and header.pre_checksum and checksum
    if joined and header.pre_checksum != checksum:
        raise _diverged(txid)


def _diverged(txid: int) -> PosMismatchError:
    return PosMismatchError(
        f"the replica does not continue the state of transaction {txid} that the file"
        " holds: its source was replaced, or it is another replica. Follow it to another"
        " path, or pass overwrite=True",
        expected_txid=txid,
        kind="diverged",
    )


def _goal_of(header: Header) -> Goal:
    return Goal(
        txid=header.max_txid,
        timestamp=header.timestamp,
        page_size=header.page_size,
        commit=header.commit,
        checksum=header.post_checksum,
    )


def _goal_made(made: Made) -> Goal:
    assert made.txid is not None
    return Goal(
        txid=made.txid,
        timestamp=made.timestamp,
        page_size=made.page_size,
        commit=made.commit,
        checksum=made.checksum or 0,
    )
