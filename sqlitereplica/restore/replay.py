"""From the files of Litestream 0.3 to the image of one of its states.

A snapshot is copied, then one WAL after the other is applied (``generations.py`` says
why), all of it as a stream: memory does not depend on the size of the database, of a
snapshot or of a WAL. Every snapshot is proven by the checksum of its LZ4 frame, every
frame of a WAL by SQLite's checksums from the header of the WAL on, so that nothing is
missing within it, and segments have to join to the byte.

The one thing that no checksum tells: a snapshot was read while its own WAL grew, and a
checkpoint may have brought some of that WAL into it. Applying that WAL to its end, or at
least as far, repairs it. For a state in the middle of that WAL its later frames are
looked at, too (``ahead.py``): if they are in the snapshot already, an older one has to
serve. Litestream does not look, and may make a state of two times.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from sqlitereplica.errors import InvalidFileError, NotRestorableError, StoreError
from sqlitereplica.ltx import BinaryReader
from sqlitereplica.restore.ahead import Ahead
from sqlitereplica.restore.backfill import Backfill, UnfinishedError
from sqlitereplica.restore.fetch import Prefetch
from sqlitereplica.restore.generations import GenerationPlan, gap_at, plan_generation
from sqlitereplica.restore.lz4 import MOST_EXPANSION, decode_frame
from sqlitereplica.restore.output import Made, Output
from sqlitereplica.sqlite.walstream import WalFrames, WalStream
from sqlitereplica.store import GenerationFile, LTXStore
from sqlitereplica.store.reach import to_datetime

__all__ = ["Replay"]

logger = logging.getLogger(__name__)

_MOST_RETRIES = 3
_MAGIC = b"SQLite format 3\0"
_HEADER_SIZE = 100
_PAGE_SIZES = [1 << bits for bits in range(9, 17)]

_Readers = Iterable[tuple[GenerationFile, BinaryReader]]


class Replay:
    """One restore from the files of Litestream 0.3 in one replica."""

    def __init__(
        self,
        store: LTXStore,
        before: int | None,
        files: Sequence[GenerationFile],
        plan: GenerationPlan,
        output: Output,
        *,
        on_plan: Callable[[int], object],
        on_bytes: Callable[[int], object],
    ) -> None:
        """Prepare; ``plan`` was made of ``files`` for the time ``before``.

        ``on_plan`` is told the bytes to fetch, ``on_bytes`` those fetched.
        """
        self._store = store
        self._plan = plan
        self._before = before
        self._files = files
        self._output = output
        self._on_plan = on_plan
        self._on_bytes = on_bytes
        self._current: GenerationFile | None = None
        self._useless: set[GenerationFile] = set()  # snapshots
        self._limits: dict[tuple[str, int], int] = {}  # frames that count, of a WAL
        self._retries = _MOST_RETRIES

    def run(self) -> Made:
        """Put the database together in the output.

        Raises:
            NotRestorableError: Files are missing, or the state cannot be told apart.
            InvalidFileError: A file is damaged and no others can replace it.
            StoreError: The replica cannot be read.
        """
        while True:
            try:
                made = self._apply(self._plan)
                self._warn_of_overlooked()
                return made
            except UnfinishedError as wal:
                assert self._current is not None, "it is the one that has just ended"
                self._limits[self._current.generation, self._current.index] = wal.frames
            except StoreError as error:
                if error.kind != "missing" or not self._retries:
                    raise
                self._retries -= 1
                self._plan_anew()
            except (InvalidFileError, NotRestorableError) as error:
                self._avoid_snapshot(error)

    def _plan_anew(self) -> None:
        """List the replica again, from which files went away, and begin again."""
        self._files = self._store.list_generations()
        self._plan = self._choose()
        logger.info(
            "files of the restore plan are gone: starting over",
            extra={"action": "restore-replan", "replica": self._store.label},
        )

    def _choose(self) -> GenerationPlan:
        return plan_generation(self._files, before=self._before, without=self._useless)

    def _warn_of_overlooked(self) -> None:
        """Say so if the state is older than it had to be, for a snapshot is missing."""
        file = self._plan.overlooked
        if file is not None:
            logger.warning(
                "an older state is restored although there is the later segment %s:"
                " its generation has no snapshot for that: %s",
                file.name,
                self._store.name,
                extra={"action": "restore-gap", "replica": self._store.label},
            )

    def _avoid_snapshot(self, error: InvalidFileError | NotRestorableError) -> None:
        """Plan with an older snapshot, if the error is about this one, or raise it."""
        current = self._current
        if isinstance(error, NotRestorableError):
            error = error.named(self._store.name)
        elif current is not None:
            before = "" if current.offset is None else " or before it in the same WAL"
            error.add_note(f"in {current.name}{before}, {self._store.name}")
        if current != self._plan.snapshot:
            raise error
        self._useless.add(current)
        try:
            plan = self._choose()
        except NotRestorableError:
            raise error from None
        if plan.snapshot.generation != current.generation:
            raise error
        logger.warning(
            "snapshot cannot be used (%s), restoring from an older one: %s, %s",
            error,
            current.name,
            self._store.name,
            extra={"action": "restore-avoid", "replica": self._store.label},
        )
        self._plan = plan

    def _apply(self, plan: GenerationPlan) -> Made:
        """Fetch and apply all files of a plan."""
        self._on_plan(sum(file.size for file in plan.files))
        self._output.clear()
        with Prefetch(
            self._store.get_generation_file, plan.files, on_bytes=self._on_bytes
        ) as fetched:
            files = iter(fetched)
            self._current, reader = next(files)
            page_size, commit = _copy_snapshot(self._current, reader, self._output)
            for _, wal in groupby(files, key=lambda item: item[0].index):
                commit = self._apply_wal(plan, wal, page_size, commit)
        return Made(page_size, commit, plan.timestamp, 1 + len(plan.segments))

    def _apply_wal(
        self, plan: GenerationPlan, files: _Readers, page_size: int, commit: int
    ) -> int:
        """Apply the segments of one WAL; return the size of the database, in pages."""
        items, later = list(files), set(plan.beyond)
        segments = [item for item in items if item[0] not in later]
        beyond = items[len(segments) :]
        first = items[0][0]
        size = sum(file.size for file, _ in segments)
        wal = WalStream(page_size)
        backfill = Backfill(
            self._output,
            page_size=page_size,
            commit=commit,
            most_frames=size * MOST_EXPANSION // page_size,
            limit=self._limits.get((first.generation, first.index)),
            remember=bool(beyond),
        )
        if segments:
            for frames in self._read(wal, plan, segments):
                backfill.add(frames)
            commit = backfill.finish()
        if beyond:
            ahead = Ahead(
                lambda pgno: self._output.read((pgno - 1) * page_size, page_size),
                commit,
                backfill.pgnos,
            )
            self._refuse_mixed(wal, plan, beyond, ahead)
        return commit

    def _read(
        self, wal: WalStream, plan: GenerationPlan, files: _Readers
    ) -> Iterator[WalFrames]:
        """Yield the frames in segments of one WAL."""
        for file, reader in files:
            self._current = file
            if file.offset != wal.size:
                done = plan.segments[: plan.segments.index(file)]
                raise gap_at(plan.snapshot, done, file)
            for piece in decode_frame(reader):
                yield from wal.feed(piece)
            wal.end_segment()
        yield from wal.flush()

    def _refuse_mixed(
        self, wal: WalStream, plan: GenerationPlan, files: _Readers, ahead: Ahead
    ) -> None:
        """Raise NotRestorableError if the snapshot was ahead of the state made of it.

        Segments that are damaged, or lie behind a gap, can tell nothing.
        """
        for file, reader in files:
            if file.offset != wal.size:
                break
            try:
                for frames in self._read(wal, plan, [(file, reader)]):
                    ahead.add(frames)
            except InvalidFileError as error:
                logger.warning(
                    "later segment cannot be compared with the snapshot (%s): %s, %s",
                    error,
                    file.name,
                    self._store.name,
                    extra={"action": "restore-unproven", "replica": self._store.label},
                )
                break
        if ahead.is_mixed():
            self._current = plan.snapshot
            raise _mixed(plan)


def _copy_snapshot(
    file: GenerationFile, reader: BinaryReader, output: Output
) -> tuple[int, int]:
    """Write a snapshot; return the size of its pages and how many there are."""
    head, size = b"", 0
    for piece in decode_frame(reader):
        if len(head) < _HEADER_SIZE:
            head += piece[: _HEADER_SIZE - len(head)]
            output.reserve(_expected_size(head, file.size * MOST_EXPANSION))
        output.write(size, [piece])
        size += len(piece)
    page_size = _page_size(head)
    if not head.startswith(_MAGIC) or page_size not in _PAGE_SIZES:
        raise InvalidFileError("the snapshot is no SQLite database", kind="base")
    if size % page_size:
        raise InvalidFileError(
            f"the snapshot ends within a page: {size} bytes, in pages of {page_size}",
            kind="truncated",
        )
    return page_size, size // page_size


def _page_size(head: bytes) -> int:
    size = int.from_bytes(head[16:18], "big")
    return 65536 if size == 1 else size


def _expected_size(head: bytes, most: int) -> int:
    """Return the bytes that a database will have by its header, 0 if that is no good.

    The header may be old, but it is a better guess than to fill the disk and see.
    """
    size = int.from_bytes(head[28:32], "big") * _page_size(head)
    return size if head[24:28] == head[92:96] and size <= most else 0


def _mixed(plan: GenerationPlan) -> NotRestorableError:
    """Return the error for a snapshot that is ahead of the time asked for."""
    after = to_datetime(max(file.committed_by for file in plan.beyond) + 1)
    return NotRestorableError(
        f"the snapshot {plan.snapshot.name} has parts of transactions that were stored"
        f" after that time. The next state that is whole is at={after.isoformat()!r}.",
        kind="time",
        earliest=after,
    )
