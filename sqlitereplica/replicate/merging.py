"""Merging files of a replica into a local one: for compaction, snapshots and repair.

All inputs of a merge are open at once, so what each reads ahead is bounded by their number:
the memory is a page and a piece of each, whatever their sizes. A file put lately is read
from local disk, others by range requests of the store, each of which is tried again by
itself. The first piece of every remote input is fetched in parallel: there may be thousands
of small ones, and a round trip for each in turn would take minutes.

Nothing that is read is believed: a decoder has verified its file when its pages end, and the
file that comes of a merge is used only if all have. A full image proves itself as a whole,
too: its pages must have the database checksum that the last input recorded.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlitereplica.capture import PageTable, write_ltx
from sqlitereplica.errors import (
    ChecksumMismatchError,
    InvalidFileError,
    StoreError,
)
from sqlitereplica.ltx import (
    BinaryReader,
    Decoder,
    FileInfo,
    Header,
    merge,
    page_checksum,
)
from sqlitereplica.replicate.recent import Recent
from sqlitereplica.store import LTXStore

__all__ = [
    "BrokenFileError",
    "Merged",
    "Pace",
    "merge_files",
    "merging",
    "paced",
    "write_image",
]

Pace = Callable[[int], object]
"""Called with the bytes of pages worked on; may sleep, or raise to end the work."""

_MOST_AHEAD = 16 << 20
_MOST_AHEAD_LOCAL = 4 << 20  # a read is no round trip there
_PIECE = (16 << 10, 1 << 20)
_THREADS = 8
_PACE_BYTES = 1 << 20
_LOST = ("missing", "short")


class BrokenFileError(InvalidFileError):
    """A file of the replica is damaged or gone: ``info`` says which, the cause why."""

    def __init__(self, info: FileInfo, error: InvalidFileError | StoreError) -> None:
        super().__init__(f"level {info.level}, {info.name}: {error}", kind=error.kind)
        self.info = info


@dataclass(frozen=True, slots=True)
class Merged:
    """A file made locally. ``table`` has the page checksums of a full image."""

    header: Header
    path: Path
    table: PageTable | None = None


@contextmanager
def merging(
    store: LTXStore, recent: Recent | None, files: Sequence[FileInfo]
) -> Iterator[tuple[Header, Iterator[tuple[int, bytes]]]]:
    """Open consecutive files; gives the header and the pages of their merger.

    Raises:
        BrokenFileError: a file is not valid, not the one listed, or gone.
        PosMismatchError: they do not join.
        StoreError: the store failed.
    """
    with ExitStack() as stack:
        inputs: list[tuple[FileInfo, BinaryReader, int]] = []
        remote: list[_Ranges] = []
        for info in files:
            kept = recent.open(info) if recent is not None else None
            is_local = kept is not None or store.is_local
            piece = _piece(len(files), is_local=is_local)
            if kept is not None:
                inputs.append((info, stack.enter_context(kept), piece))
                continue
            reader = _Ranges(store, info, piece)
            inputs.append((info, reader, piece))
            if not is_local:
                remote.append(reader)
        if len(remote) > 1:
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="merge") as pool:
                list(pool.map(_Ranges.begin, remote))
        yield merge([_Input(*one) for one in inputs])


def _piece(inputs: int, *, is_local: bool) -> int:
    """How many bytes each of so many inputs reads at a time."""
    least, most = _PIECE
    ahead = _MOST_AHEAD_LOCAL if is_local else _MOST_AHEAD
    return max(least, min(most, ahead // inputs))


def merge_files(
    store: LTXStore,
    recent: Recent | None,
    files: Sequence[FileInfo],
    path: Path,
    pace: Pace,
) -> Merged:
    """Merge consecutive files of a replica into a new local file; raises as ``merging``.

    Of a full image the page checksums come with it, and ChecksumMismatchError is raised
    when they are not those of the database that the last input says it leads to.
    """
    with merging(store, recent, files) as (header, merged):
        pages = paced(merged, header.page_size, pace)
        if header.is_snapshot:
            return write_image(path, header, pages)
        write_ltx(path, header, pages)
        return Merged(header, path)


def write_image(
    path: Path, header: Header, pages: Iterable[tuple[int, bytes]]
) -> Merged:
    """Write a full image to a new local file and prove it.

    Raises:
        ChecksumMismatchError: the pages are not those of the state in the header.
        InvalidFileError: pages are missing.
        OSError: no space, for one.
    """
    sums = array("Q", bytes(8 * header.commit))

    def watched() -> Iterator[tuple[int, bytes]]:
        for pgno, page in pages:
            sums[pgno - 1] = page_checksum(pgno, page)
            yield pgno, page

    write_ltx(path, header, watched())
    table = PageTable(header.page_size, sums)
    if header.post_checksum not in (0, table.checksum):
        path.unlink()
        raise ChecksumMismatchError(
            "database", expected=header.post_checksum, actual=table.checksum
        )
    return Merged(header, path, table)


def paced(
    pages: Iterable[tuple[int, bytes]], page_size: int, pace: Pace
) -> Iterator[tuple[int, bytes]]:
    """The same pages, with a call of ``pace`` for each MiB of them."""
    size = 0
    for item in pages:
        yield item
        size += page_size
        if size >= _PACE_BYTES:
            pace(size)
            size = 0


class _Input(Decoder):
    """A decoder whose errors say which file of the replica they are about."""

    def __init__(self, info: FileInfo, reader: BinaryReader, piece: int) -> None:
        self._info = info
        with _about(info):
            super().__init__(reader, read_size=piece)
            low, high = self.header.min_txid, self.header.max_txid
            if (low, high) != (info.min_txid, info.max_txid):
                raise InvalidFileError(
                    f"it holds transactions {low}..{high}", kind="name"
                )

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """The pages, as ``Decoder.pages``."""
        with _about(self._info):
            yield from super().pages()


@contextmanager
def _about(info: FileInfo) -> Iterator[None]:
    try:
        yield
    except InvalidFileError as error:
        raise BrokenFileError(info, error) from error
    except StoreError as error:
        if error.kind not in _LOST:
            raise
        raise BrokenFileError(info, error) from error


class _Ranges:
    """One file of a store, read in pieces in order."""

    def __init__(self, store: LTXStore, info: FileInfo, piece: int) -> None:
        self._store, self._info, self._piece = store, info, piece
        self._at = 0
        self._first: bytes | None = None

    def begin(self) -> None:
        """Fetch the first piece."""
        with _about(self._info):
            self._first = self._store.get(self._info, 0, self._piece)

    def read(self, n: int, /) -> bytes:
        """The next bytes; ``b""`` at the end."""
        if self._first is not None:
            data, self._first = self._first, None
        else:
            end = self._at + min(n, self._piece)
            data = self._store.get(self._info, self._at, end)
        self._at += len(data)
        return data
