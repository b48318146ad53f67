"""The states of a replica one after another, and every file held against them.

Theory. Files come in the order of their first TXID (``reading_order``). The walk stands
at the first reached state that a file joins. There the file is read, and what the state
would become with it is computed from its pages alone, without changing anything: the
database checksum, which must be the one that the header records (our extension), and a
fingerprint, which must be that of every other file that ends with the same TXID. So
compacted files and snapshots are held against the increments that they replace, page by
page, whoever wrote them.

Then the walk goes on with the file that ends first. These steps miss no state: stand at t,
let s be the next one reached. Some file that ends with s joins a state k <= t, so it
begins at k + 1 or before, and joins at t as well.

The database checksum alone would not do. It is an exclusive or of checksums that are
linear: two pages that change in the same bits leave it as it was, as one ``UPDATE`` of two
rows at the same place in their pages does. The fingerprint adds up hashes that are not
linear; it is never stored.

Who is wrong, when two files disagree? If one of them follows from the state before by its
recorded checksums and the other is a snapshot that nothing confirms, the snapshot. Else
the one that came later: the first was there for restores all along.

Memory: 8 bytes a page for the state, at most 12 a page of the file that is read. What
small files change is kept until the walk has passed; a large one that the walk needs
after others were read in between is read again. That happens only where a chain of
shorter files ends within a longer one.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain, count
from operator import xor
from typing import NamedTuple

from sqlitereplica.errors import (
    InvalidFileError,
    PosMismatchError,
    SQLiteReplicaError,
)
from sqlitereplica.ltx import (
    EMPTY_CHECKSUM,
    BinaryReader,
    Decoder,
    FileInfo,
    Header,
    lock_pgno,
    page_checksum,
)
from sqlitereplica.restore.coverage import FileKey, key_of
from sqlitereplica.restore.image import check_commit

__all__ = ["FileFailedError", "Walk", "reading_order"]

_KEPT_BYTES = 16 << 20
_OVERHEAD = 512  # bytes that the changes of a file take beside their pages
_FINGERPRINT_MASK = 2**64 - 1


class FileFailedError(Exception):
    """``file`` is not what it should be, or could not be read: ``error`` says why."""

    def __init__(self, file: FileInfo, error: SQLiteReplicaError) -> None:
        super().__init__(str(error))
        self.file = file
        self.error = error


def reading_order(files: Iterable[FileInfo]) -> list[FileInfo]:
    """Sort files as a walk takes them: of those that begin together the longest first."""
    return sorted(files, key=lambda f: (f.min_txid, -f.max_txid, f.level))


class _Changes(NamedTuple):
    """What a file does to a state: checksums of the pages that it brings, ascending."""

    header: Header
    pgnos: Sequence[int]
    sums: array[int]

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return _OVERHEAD + 12 * len(self.sums)


class _Outcome(NamedTuple):
    """A state, by what tells it from others. ``holes`` counts pages that are missing."""

    checksum: int
    fingerprint: int
    holes: int


class _Pages:
    """The checksum of every page of one state, 0 for a missing one and the lock page."""

    def __init__(self, page_size: int) -> None:
        """Begin with the database without pages."""
        self.page_size = page_size
        self.state = _Outcome(EMPTY_CHECKSUM, 0, 0)
        self._sums: array[int] = array("Q")
        self._lock = lock_pgno(page_size)

    def after(self, changes: _Changes) -> _Outcome:
        """Return what the state would become; nothing is changed."""
        sums, commit = self._sums, changes.header.commit
        known = min(len(sums), commit)
        dropped = sums[known:]
        at = bisect_right(changes.pgnos, known)
        replaced = changes.pgnos[:at]
        old = array("Q", (sums[pgno - 1] for pgno in replaced))
        fingerprint = (
            self.state.fingerprint
            - _digest(range(known + 1, len(sums) + 1), dropped)
            - _digest(replaced, old)
            + _digest(changes.pgnos, changes.sums)
        )
        holes = (
            self.state.holes
            - (dropped.count(0) - self._locked(known, len(sums)))
            - old.count(0)
            + (commit - known - self._locked(known, commit))
            - (len(changes.pgnos) - at)
        )
        checksum = reduce(xor, chain(dropped, old, changes.sums), self.state.checksum)
        return _Outcome(
            EMPTY_CHECKSUM | checksum, fingerprint & _FINGERPRINT_MASK, holes
        )

    def apply(self, changes: _Changes, outcome: _Outcome) -> None:
        """Become what ``after`` returned."""
        self.state = outcome
        sums, commit = self._sums, changes.header.commit
        if not sums and isinstance(changes.pgnos, range):
            self._sums = changes.sums
            return
        del sums[commit:]
        sums.frombytes(bytes(8 * (commit - len(sums))))
        for pgno, value in zip(changes.pgnos, changes.sums, strict=True):
            sums[pgno - 1] = value

    def _locked(self, start: int, end: int) -> int:
        """Count the lock page if it is behind ``start`` and not behind ``end``."""
        return int(start < self._lock <= end)


def _digest(pgnos: Iterable[int], sums: Iterable[int]) -> int:
    """Add up hashes of pages; what is missing counts nothing."""
    return sum(hash(page) for page in zip(pgnos, sums, strict=True) if page[1])


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a file has shown of the state that it ends with.

    ``checksum`` 0 and ``fingerprint`` None are unknown. ``confirmed``: the file follows
    from what was before, or another one agrees with it.
    """

    file: FileInfo
    checksum: int
    fingerprint: int | None = None
    confirmed: bool = False

    def agrees(self, other: _Seen) -> bool:
        """False if the two cannot be the same state."""
        if self.fingerprint is not None and other.fingerprint is not None:
            return self.fingerprint == other.fingerprint
        return not (self.checksum and other.checksum) or self.checksum == other.checksum


class Walk:
    """Holds files against the states that they lead from and to. Not thread-safe.

    ``timestamps`` are those of the headers; ``signed`` counts the files that record
    database checksums.
    """

    def __init__(self, reopen: Callable[[FileInfo], BinaryReader]) -> None:
        """Begin before all states. ``reopen`` gives a file that is needed again."""
        self.timestamps: dict[FileKey, int] = {}
        self.signed = 0
        self._reopen = reopen
        self._txid = 0
        self._pages = _Pages(512)  # of any size: only whole databases join here
        self._steps: list[tuple[int, bool, int, FileInfo]] = []  # a heap
        self._dropped: set[FileInfo] = set()
        self._kept = _Kept()
        self._seen: dict[int, _Seen] = {}
        self._holey: dict[FileInfo, int] = {}
        self._bytes = 0
        self._counter = count()

    def check(self, file: FileInfo, reader: BinaryReader) -> None:
        """Read a file and compare it with all that is known. In ``reading_order``.

        A file that begins before what was passed already, since it is new, is compared
        as far as that goes.

        Raises:
            FileFailedError: A file is wrong: this one, or one that was read before; then
                ``discard`` that and read this one anew. Nothing has changed.
        """
        while self._txid < file.min_txid - 1 and self._step():
            pass
        self._kept.make_room(file)
        changes = self._read(file, reader)
        header = changes.header
        joins = self._txid < file.max_txid and file.min_txid <= self._txid + 1
        holes = 0
        try:
            joins = joins and self._fits(header)
            follows = self._compare_before(header)
            if joins or header.is_snapshot:
                holes = self._compare_content(file, changes, follows)
            else:
                self._compare_after(_Seen(file, header.post_checksum))
        except SQLiteReplicaError as error:
            raise FileFailedError(file, error) from error
        self._bytes += file.size
        self.timestamps[key_of(file)] = header.timestamp
        self.signed += header.post_checksum != 0
        if joins:
            step = (file.max_txid, holes > 0, next(self._counter), file)
            heapq.heappush(self._steps, step)
            self._kept.add(file, changes)

    def discard(self, file: FileInfo) -> None:
        """Go on without a file."""
        self._dropped.add(file)
        self._kept.pop(file)
        self._holey.pop(file, None)
        seen = self._seen.get(file.max_txid)
        if seen is not None and seen.file == file:
            del self._seen[file.max_txid]

    def retain(self, keys: Collection[FileKey]) -> None:
        """Go on without the files that are not among these: they are gone."""
        for *_, file in self._steps:
            if key_of(file) not in keys:
                self._dropped.add(file)
                self._kept.pop(file)

    def incomplete(self) -> dict[FileInfo, int]:
        """Files after which pages are missing that no other file brings, and how many."""
        return {f: n for f, n in self._holey.items() if f.max_txid not in self._seen}

    # -- reading and going on --------------------------------------------------------

    def _read(self, file: FileInfo, reader: BinaryReader) -> _Changes:
        try:
            return self._decode(file, Decoder(reader))
        except (InvalidFileError, PosMismatchError) as error:
            raise FileFailedError(file, error) from error

    def _decode(self, file: FileInfo, decoder: Decoder) -> _Changes:
        header = decoder.header
        if (header.min_txid, header.max_txid) != (file.min_txid, file.max_txid):
            raise InvalidFileError(
                f"it holds transactions {header.min_txid} to {header.max_txid}",
                kind="name",
            )
        # Of a state never more is allocated than all files so far could fill.
        check_commit(header, self._bytes + file.size)
        pgnos, sums = array("I"), array("Q")
        for pgno, page in decoder.pages():
            pgnos.append(pgno)
            sums.append(page_checksum(pgno, page))
        if header.is_snapshot and lock_pgno(header.page_size) > header.commit:
            return _Changes(header, range(1, header.commit + 1), sums)
        return _Changes(header, pgnos, sums)

    def _step(self) -> bool:
        """Go on to the next state; False if no file leads on."""
        steps = self._steps
        while steps and (steps[0][0] <= self._txid or steps[0][-1] in self._dropped):
            self._kept.pop(heapq.heappop(steps)[-1])
        if not steps:
            return False
        file = steps[0][-1]
        changes = self._kept.pop(file) or self._read(file, self._reopen(file))
        pages = self._base(changes.header)
        outcome = pages.after(changes)
        seen = self._seen.get(file.max_txid)
        if (
            outcome.holes == 0
            and seen is not None
            and not seen.agrees(_Seen(file, outcome.checksum, outcome.fingerprint))
        ):
            raise FileFailedError(file, _conflict(seen))
        heapq.heappop(steps)
        pages.apply(changes, outcome)
        self._pages, self._txid = pages, file.max_txid
        return True

    def _base(self, header: Header) -> _Pages:
        return _Pages(header.page_size) if header.is_snapshot else self._pages

    # -- comparing -------------------------------------------------------------------

    def _fits(self, header: Header) -> bool:
        """Whether the page size is that of the state; else a snapshot must give the next.

        Who changes the page size begins anew, with a snapshot and all pages in level 0.
        """
        before, found = self._pages.page_size, header.page_size
        if header.is_snapshot or before == found:
            return True
        if header.max_txid in self._seen:
            return False
        raise InvalidFileError(f"page size {found} after {before}", kind="page-size")

    def _compare_before(self, header: Header) -> bool:
        """Return whether a file follows from the state before, as far as it records that.

        Raises PosMismatchError if it was made of another database.
        """
        before, found = self._seen.get(header.min_txid - 1), header.pre_checksum
        if not found or before is None or not before.checksum:
            return False
        if found != before.checksum:
            raise PosMismatchError(
                f"it was made of another database than {before.file.name} of level"
                f" {before.file.level} left: checksum {found:016x} instead of"
                f" {before.checksum:016x}",
                expected_txid=header.min_txid,
                found_txid=header.min_txid,
                kind="foreign",
            )
        return True

    def _compare_content(self, file: FileInfo, changes: _Changes, follows: bool) -> int:
        """Hold a file against the state; return how many pages are missing then."""
        header = changes.header
        outcome = self._base(header).after(changes)
        if outcome.holes:
            self._holey[file] = outcome.holes
            return outcome.holes
        recorded = header.post_checksum
        if recorded not in (0, outcome.checksum):
            raise InvalidFileError(
                "its pages do not lead to the database that it records: checksum"
                f" {outcome.checksum:016x} instead of {recorded:016x}",
                kind="content",
            )
        seen = _Seen(file, outcome.checksum, outcome.fingerprint, follows)
        self._compare_after(seen)
        return 0

    def _compare_after(self, new: _Seen) -> None:
        """Compare with other files that end with the same state."""
        txid = new.file.max_txid
        seen = self._seen.get(txid)
        if seen is None:
            self._seen[txid] = new
        elif seen.agrees(new):
            best = seen if seen.fingerprint is not None else new
            self._seen[txid] = replace(best, confirmed=True)
        elif new.confirmed and not seen.confirmed and seen.file.min_txid == 1:
            raise FileFailedError(seen.file, _conflict(new))
        else:
            raise _conflict(seen)


class _Kept:
    """Changes of files that the walk may need soon, bounded by bytes."""

    def __init__(self) -> None:
        self._changes: dict[FileInfo, _Changes] = {}
        self._furthest: list[tuple[int, int, FileInfo]] = []  # a heap
        self._size = 0
        self._counter = count()

    def add(self, file: FileInfo, changes: _Changes) -> None:
        """Keep the changes of a file."""
        self.pop(file)
        self._changes[file] = changes
        self._size += changes.size
        entry = (-file.max_txid, next(self._counter), file)
        heapq.heappush(self._furthest, entry)

    def pop(self, file: FileInfo) -> _Changes | None:
        """Give the changes of a file back, if they are still there."""
        changes = self._changes.pop(file, None)
        if changes is not None:
            self._size -= changes.size
        return changes

    def make_room(self, coming: FileInfo) -> None:
        """Drop what is needed last, but not what is needed before ``coming``."""
        furthest = self._furthest
        while furthest:
            file = furthest[0][-1]
            if file in self._changes:
                last = len(self._changes) == 1 and file.max_txid <= coming.max_txid
                if self._size <= _KEPT_BYTES or last:
                    return
                self.pop(file)
            heapq.heappop(furthest)


def _conflict(other: _Seen) -> PosMismatchError:
    file = other.file
    return PosMismatchError(
        f"it gives another state {file.max_txid} than {file.name} of level {file.level}:"
        " one of the two, or of the files that lead to it, is wrong",
        expected_txid=file.max_txid,
        found_txid=file.max_txid,
        kind="conflict",
    )
