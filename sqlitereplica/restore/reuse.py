"""Restoring over an old copy: only what it lacks is fetched.

``ways`` tells how. In the end all pages are read back from the new file and must have the
checksums that are known of each, and these the database checksum of the last file: so
neither a copy that somebody changes meanwhile nor page checksums that are wrong get
through.

It only saves bytes. What it cannot use it leaves to the full restore and says why; it is
never the cause of an error.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
    StoreError,
)
from sqlitereplica.ltx import FRAME_HEADER_SIZE, FileInfo, Header, lock_pgno
from sqlitereplica.restore.assemble import Wanted, warn_of_gap
from sqlitereplica.restore.fetch import LTXPrefetch
from sqlitereplica.restore.frames import fetch_pages, find_frames
from sqlitereplica.restore.image import Image, State, check_commit
from sqlitereplica.restore.oldcopy import OldCopy, UnfitCopyError
from sqlitereplica.restore.output import Made, Output
from sqlitereplica.restore.ways import Way, WayFinder
from sqlitereplica.store import LTXStore

__all__ = ["Reuse"]

logger = logging.getLogger(__name__)

_MOST_LISTINGS = 3
_REPLICA_FAILED = (InvalidFileError, NotRestorableError, PosMismatchError, StoreError)

T = TypeVar("T")


class CopyOutput(Output, Protocol):
    """A file that can begin as a copy."""

    def copy(self, old: OldCopy, size: int) -> None:
        """Begin with the first ``size`` bytes of the old copy."""

    def has_pages(self, page_size: int, sums: array[int]) -> bool:
        """Tell whether the pages that were written have these checksums."""


class Reuse:
    """A restore over an old copy. ``files`` is the replica's listing, ``plan`` made of it."""

    def __init__(
        self,
        store: LTXStore,
        wanted: Wanted,
        files: Sequence[FileInfo],
        plan: Sequence[FileInfo],
        old: OldCopy,
        *,
        on_plan: Callable[[int], object],
        on_bytes: Callable[[int], object],
    ) -> None:
        """Prepare. ``on_plan`` is told the bytes to fetch, ``on_bytes`` those fetched."""
        self._store = store
        self._wanted = wanted
        self._files, self._plan = files, plan
        self._old = old
        self._on_plan = on_plan
        self._on_bytes = on_bytes
        self._finder = WayFinder(store, old, on_plan=on_plan, on_bytes=on_bytes)
        self._listings = 1

    def find(self) -> Way | None:
        """Return the way to go; None if a full restore is better."""
        return self._attempt(lambda: self._finder.find(self._files, self._plan))

    def leave(self, way: Way) -> Made:
        """Return what is there already, when there is nothing to do."""
        self._warn_of_gap(way.goal.max_txid)
        return way.state().made()

    def follow(self, way: Way, output: CopyOutput) -> Made | None:
        """Make the state in ``output``; None, with nothing there, if that fails.

        Raises:
            OSError: The output cannot be written.
        """
        going: Way | None = way

        def attempt() -> State:
            nonlocal going
            again = going or self._finder.find(self._files, self._plan)
            going = None
            return self._follow(again, output)

        state = self._attempt(attempt)
        if state is None:
            output.clear()
            return None
        self._warn_of_gap(state.header.max_txid)
        return state.made()

    def _warn_of_gap(self, end: int) -> None:
        warn_of_gap(self._store, self._wanted, self._files, end)

    def _attempt(self, action: Callable[[], T]) -> T | None:
        """Do something that may fail; files that are gone are looked for anew."""
        while True:
            try:
                return action()
            except UnfitCopyError as why:
                level, reason = logging.INFO, str(why)
            except _REPLICA_FAILED as error:
                if self._list_anew(error):
                    continue
                level, reason = logging.WARNING, str(error)
            logger.log(
                level,
                "the old database cannot be made use of: %s",
                reason,
                extra={"action": "restore-in-full", "replica": self._store.label},
            )
            return None

    def _list_anew(self, error: Exception) -> bool:
        """Plan again if the error is that a file is gone; False if that is no use."""
        missing = isinstance(error, StoreError) and error.kind == "missing"
        if not missing or self._listings == _MOST_LISTINGS:
            return False
        self._listings += 1
        try:
            self._files = self._wanted.list(self._store)
            self._plan = self._wanted.plan(self._files)
        except (StoreError, NotRestorableError):
            return False  # the full restore will say so
        return True

    def _follow(self, way: Way, output: CopyOutput) -> State:
        """Make the state in ``output``; it is proven when this returns.

        Raises:
            UnfitCopyError: The copy cannot be read, or changes while it is.
            InvalidFileError: A file is damaged, or the page checksums are wrong.
            PosMismatchError: Files do not join.
            StoreError: Something cannot be fetched.
            OSError: The output cannot be written.
        """
        self._on_plan(way.size)
        self._begin(way, output)
        image = Image.over_copy(
            output.write, way.start, way.sums, way.lacking, horizon=way.goal.commit
        )
        if way.steps:
            with LTXPrefetch(
                self._store, way.steps, goal=False, on_bytes=self._on_bytes
            ) as fetched:
                for file, reader in fetched:
                    image.apply(file, reader)
        brought = self._bring(image, way)
        state = image.verify()
        if _state_of(state.header) != _state_of(way.goal):
            raise InvalidFileError("the last file had another header", kind="header")
        assert state.sums is not None
        if not output.has_pages(way.goal.page_size, state.sums):
            raise UnfitCopyError("it changed while it was read")
        return state._replace(files=state.files + brought)

    def _begin(self, way: Way, output: CopyOutput) -> None:
        """Make room in the output and copy what may stay."""
        size, commit = way.goal.page_size, way.goal.commit
        held = way.start.commit * FRAME_HEADER_SIZE
        check_commit(way.goal, held + sum(file.size for file in way.steps))
        try:
            output.reserve(commit * size)
        except OSError as error:
            # Said by a header that nothing has proven yet: the full restore will know.
            raise UnfitCopyError(str(error)) from error
        output.copy(self._old, min(way.start.commit, commit) * size)
        lock = lock_pgno(size)
        if lock <= commit:
            output.write((lock - 1) * size, [bytes(size)])

    def _bring(self, image: Image, way: Way) -> int:
        """Fetch the pages that the image still lacks; return the number of files."""
        lacking = sum(map(image.lacks, way.lacking))
        if way.base is None or not lacking:
            self._on_plan(0)
            return 0
        self._on_plan(way.lacking_size(lacking))
        frames = find_frames(
            self._store,
            way.base,
            way.start.commit,
            image.lacks,
            on_bytes=self._on_bytes,
        )
        self._on_plan(sum(c.end - c.start for c in frames.chunks(way.base)))
        pages = fetch_pages(
            self._store, way.base, frames, way.goal.page_size, on_bytes=self._on_bytes
        )
        for pgno, page in pages:
            image.bring(pgno, page)
        return 1


def _state_of(header: Header) -> tuple[int, int, int, int]:
    """Return what is the same in all files that end with a transaction."""
    return header.page_size, header.commit, header.max_txid, header.post_checksum
