"""The bytes of a replica's files, fetched ahead.

What is to be read is a sequence of chunks, in the order in which they are used; a few
threads fetch those that come next. So a large snapshot arrives by several range requests
at once, and many small files do not cost a round trip each. What is in flight or waits
to be read is bounded by bytes, whatever the sizes of the chunks. ``Ahead`` does this.

``Prefetch`` cuts all files of a plan into chunks. Of LTX files the last one's beginning is
fetched first of all: its header says how large the result becomes and whether its checksum
is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from sqlitereplica.ltx import HEADER_SIZE, BinaryReader, Decoder, FileInfo, Header
from sqlitereplica.store import LTXStore

__all__ = [
    "CHUNK_SIZE",
    "THREADS",
    "Ahead",
    "Chunk",
    "LTXPrefetch",
    "Prefetch",
    "cut",
]

CHUNK_SIZE = 4 << 20
WINDOW_SIZE = 32 << 20
THREADS = 8
_MOST_WAITING = 256  # chunks: files may be tiny


class _Sized(Protocol):
    @property
    def size(self) -> int:
        """Bytes to fetch."""


F = TypeVar("F", bound=_Sized)


class Chunk(NamedTuple, Generic[F]):
    """Bytes ``start..end`` of a file."""

    file: F
    start: int
    end: int
    """Behind its last byte."""


def cut(file: F, start: int = 0, end: int | None = None) -> Iterator[Chunk[F]]:
    """Yield what is from ``start`` to ``end`` in chunks of at most CHUNK_SIZE."""
    end = file.size if end is None else end
    for at in range(start, end, CHUNK_SIZE):
        yield Chunk(file, at, min(at + CHUNK_SIZE, end))


class Ahead(Generic[F]):
    """Fetches chunks in order, ahead of who takes them; a context manager.

    Errors of the store come out where the bytes are taken.
    """

    def __init__(
        self,
        get: Callable[[F, int, int], bytes],
        chunks: Iterable[Chunk[F]],
        *,
        first: Chunk[F] | None = None,
        threads: int = THREADS,
        window: int = WINDOW_SIZE,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Begin to fetch, ``first`` before all others, whatever its place among them.

        ``get`` returns a range of a file; ``on_bytes`` is told how many bytes each chunk
        had when it is taken; ``window`` bounds what is fetched and not taken yet.
        """
        self._get = get
        self._on_bytes = on_bytes
        self._window = window
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="restore")
        self._chunks = iter(chunks)
        self._next = next(self._chunks, None)
        self._waiting: deque[tuple[Chunk[F], Future[bytes]]] = deque()
        self._ahead = 0  # bytes of the chunks in _waiting
        self._first = first
        self._first_bytes = None if first is None else self._submit(first)
        self._fill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def next(self) -> Chunk[F] | None:
        """The chunk that ``take`` returns next."""
        return self._waiting[0][0] if self._waiting else None

    def first(self) -> bytes:
        """Return the bytes of the first chunk, without taking it."""
        return b"" if self._first_bytes is None else self._first_bytes.result()

    def take(self) -> bytes:
        """Return the bytes of the next chunk; there must be one."""
        chunk, future = self._waiting.popleft()
        try:
            data = future.result()
        finally:
            self._ahead -= chunk.end - chunk.start
        self._fill()
        self._on_bytes(len(data))
        return data

    def skip(self, file: F) -> None:
        """Pass over the chunks of a file that come next."""
        while self._waiting and self._waiting[0][0].file is file:
            chunk, future = self._waiting.popleft()
            future.cancel()
            self._ahead -= chunk.end - chunk.start
        while self._next is not None and self._next.file is file:
            self._next = next(self._chunks, None)
        self._fill()

    def _fill(self) -> None:
        """Begin to fetch what comes next, as far as the window allows."""
        while self._next is not None and len(self._waiting) < _MOST_WAITING:
            size = self._next.end - self._next.start
            if self._waiting and self._ahead + size > self._window:
                return
            if self._next == self._first and self._first_bytes is not None:
                future = self._first_bytes
            else:
                future = self._submit(self._next)
            self._waiting.append((self._next, future))
            self._ahead += size
            self._next = next(self._chunks, None)

    def _submit(self, chunk: Chunk[F]) -> Future[bytes]:
        return self._pool.submit(self._get, chunk.file, chunk.start, chunk.end)


class Prefetch(Generic[F]):
    """Fetches the files of a plan; a context manager that ends its threads.

    Errors of the store come out where the bytes are read, in the order of the plan.
    """

    def __init__(
        self,
        get: Callable[[F, int, int], bytes],
        plan: Sequence[F],
        *,
        first: F | None = None,
        threads: int = THREADS,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Begin to fetch, with the beginning of ``first`` before all others.

        ``get`` returns a range of a file; ``on_bytes`` is told how many bytes each chunk
        had.
        """
        self._plan = plan
        self._place = 0  # of the file that is being read
        self._ahead: Ahead[F] = Ahead(
            get,
            (chunk for file in plan for chunk in cut(file)),
            first=None if first is None else next(cut(first), None),
            threads=threads,
            window=min(WINDOW_SIZE, threads * CHUNK_SIZE),
            on_bytes=on_bytes,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._ahead.__exit__(*raised)

    def __iter__(self) -> Iterator[tuple[F, BinaryReader]]:
        """Yield each file with a reader of it, which is good until a later one is used.

        What was not read of a file is passed over then.
        """
        for place, file in enumerate(self._plan):
            yield file, _Reader(self, file, place)

    def take(self, file: F, place: int) -> bytes:
        """Return the next chunk of a file, by its place; ``b""`` if it has no more."""
        while self._place < place:
            self._ahead.skip(self._plan[self._place])
            self._place += 1
        chunk = self._ahead.next
        if chunk is None or chunk.file is not file:
            return b""
        return self._ahead.take()


class LTXPrefetch(Prefetch[FileInfo]):
    """Fetches LTX files."""

    def __init__(
        self,
        store: LTXStore,
        plan: Sequence[FileInfo],
        *,
        goal: bool = True,
        threads: int = THREADS,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Begin to fetch. ``goal``: ``last_header`` will be asked for."""
        super().__init__(
            store.get,
            plan,
            first=plan[-1] if goal else None,
            threads=threads,
            on_bytes=on_bytes,
        )

    def last_header(self) -> Header:
        """Return the header of the last file, which is proven unless the file is large.

        Raises:
            InvalidFileError: It, or the file, is not valid.
            StoreError: It cannot be fetched.
        """
        data = self._ahead.first()
        if len(data) < self._plan[-1].size:
            return Header.unpack(data[:HEADER_SIZE])
        decoder = Decoder(BytesIO(data))
        for _ in decoder.pages():
            pass
        return decoder.header


class _Reader(Generic[F]):
    """The bytes of one file, in order."""

    def __init__(self, source: Prefetch[F], file: F, place: int) -> None:
        self._source = source
        self._file, self._place = file, place
        self._chunk = memoryview(b"")

    def read(self, n: int, /) -> bytes:
        """Return 1..n bytes, or ``b""`` at the end of the file."""
        if not self._chunk:
            self._chunk = memoryview(self._source.take(self._file, self._place))
        part = bytes(self._chunk[:n])
        self._chunk = self._chunk[n:]
        return part
