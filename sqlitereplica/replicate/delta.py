"""Requests from replicas to capture: bring me from what I hold to what the database is.

A replica's worker knows what its store holds, as a page table or as nothing; only the
capture thread may pin a state of the database. So the worker hands over a request and takes
back either the news that it is in step already, or a view with the numbers of the pages
that differ, which it encodes in its own thread while capture goes on.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

from sqlitereplica.capture import (
    ContinuityLostError,
    PageTable,
    State,
    View,
    header_for,
    write_ltx,
)
from sqlitereplica.errors import StoreError
from sqlitereplica.ltx import SNAPSHOT_LEVEL, Buffer, Header, encode, page_checksums

__all__ = [
    "Delta",
    "DeltaRequest",
    "Upload",
    "made_locally",
    "proved",
    "reading",
    "uploads_for",
]

_IN_MEMORY = 4 << 20

Upload = tuple[int, int, int, bytes | Path]
"""(level, min_txid, max_txid, content) of a file to be put."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What a replica lacks to reach ``state``; ``view`` is None when it lacks nothing.

    ``sums`` are the checksums of the pages ``pgnos`` in that state, in their order.
    ``was_in_step`` is whether it lacked nothing when it was asked: what it lacks now was
    committed since.
    """

    state: State
    view: View | None
    pgnos: array[int]
    sums: array[int]
    was_in_step: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the view go, whatever happened: it holds the WAL."""
        if self.view is not None:
            self.view.release()


class DeltaRequest:
    """One request; made by a worker, answered by the capture thread. Thread-safe."""

    def __init__(
        self,
        *,
        replica: str,
        base: PageTable | None,
        subscribe: bool = True,
        compare: bool = True,
        always: bool = False,
    ) -> None:
        """Ask for what leads from ``base`` to the present.

        ``base`` is what the replica holds, None for nothing that can be used;
        ``subscribe`` puts the replica in the spool's line after the state of the answer.
        Without ``compare``
        only a view is wanted, of whatever is committed: no pages are named, no increment
        is made, and ``state`` is an older one than that of the view. With ``always`` the
        answer has a page in any case, the first one if none differs.
        """
        self.replica, self.base, self.always = replica, base, always
        self.subscribe, self.compare = subscribe, compare
        self.answered = threading.Event()
        self.answer: Delta | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    def resolve(self, answer: Delta) -> bool:
        """Give the answer.

        False when nobody waits for it any more.
        """
        with self._lock:
            if self._cancelled:
                return False
            self.answer = answer
            self.answered.set()
            return True

    def cancel(self) -> None:
        """Stop waiting; a view that was answered already is released."""
        with self._lock:
            self._cancelled = True
            answer = self.answer
        if answer is not None and answer.view is not None:
            answer.view.release()

    @property
    def cancelled(self) -> bool:
        """True when nobody waits for the answer."""
        return self._cancelled


def uploads_for(
    delta: Delta, *, txid: int, whole: bool, pre_checksum: int, path: Path
) -> list[Upload]:
    """Encode the files that bring a replica to ``delta.state``, and release the view.

    ``txid`` is the number that the state gets there. A replica without history gets its
    first level-0 file. One whose history cannot be continued (``whole``: a gap, another
    page size) gets all pages twice: as a snapshot at level 9, where restores begin, and as
    the level-0 file of that number. The latter may not be left out or cut short: the
    newest level-0 file is where Litestream takes over, and a compaction over it must
    carry every page that changed. Large files go to ``path`` and beside it.

    Raises:
        StoreError: no space for it.
        ViewEndedError: the database was let go; the files would be wrong.
        ContinuityLostError: they would be wrong since our locks did not hold.
    """
    state = delta.state
    with reading(delta):
        step = header_for(state, txid, txid, 0 if whole else pre_checksum)
        uploads: list[Upload] = [(0, txid, txid, _encode(delta, step, path))]
        if whole:
            first = header_for(state, txid, 1, 0)
            data = _encode(delta, first, path.with_suffix(".9.ltx"))
            uploads.insert(0, (SNAPSHOT_LEVEL, 1, txid, data))
        return uploads


@contextmanager
def reading(delta: Delta) -> Iterator[View]:
    """Read the view, release it, and only then believe what was read."""
    view = delta.view
    assert view is not None
    try:
        yield view
    except Exception:
        # Pages cut short, for one: it may be that what was read is no state any more.
        view.check()
        raise
    finally:
        view.release()
    view.check()


@contextmanager
def made_locally(path: Path) -> Iterator[None]:
    """Translate what the disk of the metadata folder says while a file is made there.

    Raises:
        StoreError: ``kind`` ``"source"``.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written, so nothing can be uploaded: {error}",
            operation="put",
            transient=False,
            kind="source",
        ) from error


def _encode(delta: Delta, header: Header, path: Path) -> bytes | Path:
    pages = proved(delta)
    if len(delta.pgnos) * delta.state.page_size <= _IN_MEMORY:
        return encode(header, pages)
    with made_locally(path):
        write_ltx(path, header, pages)
    return path


def proved(delta: Delta) -> Iterator[tuple[int, Buffer]]:
    """Read the pages, each of which is certainly that of the state.

    They are parts of larger reads: who keeps one copies it.

    The locks under which they are read can be dropped by anything in this process that
    opens and closes the file, and pages of another state would pass for this one's for
    ever: later comparisons go by the checksum that the header tells.
    """
    # As two iterators: what is done for each page is the loop of a chain, in C.
    return chain.from_iterable(_proved_runs(delta))


def _proved_runs(delta: Delta) -> Iterator[Iterator[tuple[int, Buffer]]]:
    view = delta.view
    assert view is not None
    done = 0
    for first, run in view.runs(delta.pgnos):
        known = delta.sums[done : done + len(run)]
        if page_checksums(first, run) != known:
            raise ContinuityLostError(view.path, "a page changed under our locks")
        yield enumerate(run, first)
        done += len(run)
