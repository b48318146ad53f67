"""What one flush captured, on its way to the replicas.

An increment is numbered by ``seq``, the capture's own counter. Each replica counts TXIDs
on its own (it may have history from elsewhere, or have been away), so the number in the
file is given when it is encoded; replicas in step get the same bytes.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sqlitereplica.ltx import Buffer, Decoder, Encoder, Header, encode
from sqlitereplica.store import Writeback

__all__ = ["Increment", "State", "header_for", "write_ltx"]

_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A committed state of the source, as capture numbers it."""

    seq: int
    timestamp: int
    """Milliseconds since the epoch at which it was captured; never falls."""
    page_size: int
    commit: int
    checksum: int
    node_id: int = 0
    """Whose capture it is: random, kept in the metadata folder; 0 for nobody's."""


@dataclass(eq=False, slots=True)
class Increment:
    """The pages that lead from one state to the next. Thread-safe.

    ``body`` is the pages, an encoded file in memory or on disk, or None when they could
    not be kept: replicas then need a delta.
    """

    state: State
    pre_checksum: int
    pgnos: tuple[int, ...]
    body: dict[int, bytes] | bytes | Path | None
    _txid: int = 0
    _file_size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def content(self, txid: int) -> bytes | Path | None:
        """The LTX file that carries TXID ``txid``; encodes it when first asked."""
        with self._lock:
            if isinstance(self.body, dict):
                pages = sorted(self.body.items())
                self.body = encode(self.header(txid), pages)
                self._txid = txid
            if self.body is None or self._txid == txid:
                return self.body
            return _renumbered(self.body, self.header(txid))

    @contextmanager
    def pages(self) -> Iterator[Iterator[tuple[int, bytes]] | None]:
        """The pages themselves, ascending; None when they are not kept any more.

        For who has no use for a file: nothing is encoded.
        """
        with self._lock:
            body = self.body
        if isinstance(body, dict):
            yield iter(sorted(body.items()))
        elif isinstance(body, bytes):
            yield Decoder(io.BytesIO(body)).pages()
        elif body is None:
            yield None
        else:
            try:
                file = body.open("rb")
            except FileNotFoundError:
                yield None  # discarded just now
                return
            with file:
                yield Decoder(file).pages()

    def header(self, txid: int, min_txid: int | None = None) -> Header:
        """The LTX header of this increment under a replica's number."""
        return header_for(self.state, txid, min_txid or txid, self.pre_checksum)

    def adopt(self, path: Path) -> None:
        """Take a file that was encoded under the number ``state.seq`` as the body."""
        self._file_size = _on_disk(path.stat().st_size)
        self.body, self._txid = path, self.state.seq

    def in_memory(self) -> int:
        """Bytes of memory that the body takes."""
        body = self.body
        if isinstance(body, dict):
            return len(body) * self.state.page_size
        return len(body) if isinstance(body, bytes) else 0

    def on_disk(self) -> int:
        """Bytes of disk that the body takes."""
        return self._file_size if isinstance(self.body, Path) else 0

    def spill(self, folder: Path) -> None:
        """Move the body to a file in ``folder``; to be called by who discards it.

        Raises:
            OSError: no space, for one; the body stays in memory.
        """
        if not isinstance(self.body, dict | bytes):
            return  # without waiting for who may just be making a large file of it
        data = self.content(self._txid or self.state.seq)
        assert isinstance(data, bytes)
        path = folder / f"{self.state.seq:016x}.ltx"
        with new_file(path) as file:
            file.write(data)
        with self._lock:
            self.body, self._file_size = path, _on_disk(len(data))

    def discard(self) -> None:
        """Drop the body, everywhere; files that cannot be deleted go at the next start."""
        with self._lock:
            body, self.body = self.body, None
        if isinstance(body, Path):
            with suppress(OSError):
                for path in (body, *body.parent.glob(f"{body.stem}.*.ltx")):
                    path.unlink(missing_ok=True)


def _on_disk(size: int) -> int:
    """What a file takes: whole blocks, or many small ones would pass for little."""
    return -(-size // _BLOCK) * _BLOCK


def header_for(state: State, txid: int, min_txid: int, pre_checksum: int) -> Header:
    """An LTX header for a file that ends in ``state``.

    WALOffset 32 with WALSize 0 tells a Litestream daemon that takes over nothing about
    the WAL, so it begins by comparing nothing and copying all, which is always right
    (litestream.md 0.2).
    """
    return Header(
        page_size=state.page_size,
        commit=state.commit,
        min_txid=min_txid,
        max_txid=txid,
        timestamp=state.timestamp,
        wal_offset=32,
        node_id=state.node_id,
        pre_checksum=0 if min_txid == 1 else pre_checksum,
        post_checksum=state.checksum,
    )


def write_ltx(path: Path, header: Header, pages: Iterable[tuple[int, Buffer]]) -> None:
    """Encode a file of any size to ``path`` and fsync it; nothing is left on failure.

    Raises:
        OSError: no space, for one.
        InvalidFileError: the pages are not those of the header.
    """
    with new_file(path) as file:
        writeback = Writeback(file.fileno())

        def write(data: Buffer) -> None:
            file.write(data)
            writeback.wrote(len(data))

        try:
            encoder = Encoder(write, header)
            encoder.add(pages)
            encoder.finish()
            file.flush()
            writeback.finish()
        finally:
            writeback.wait()


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that did not exist before; nothing is left of it on failure.

    Never an old one emptied: a local store links finished files into the replica, so an
    old file may be a published one under its other name.
    """
    path.unlink(missing_ok=True)
    try:
        with path.open("xb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _renumbered(body: bytes | Path, header: Header) -> bytes | Path:
    """The same file under other TXIDs; its checksum covers them, so it is re-encoded."""
    if isinstance(body, bytes):
        return encode(header, Decoder(io.BytesIO(body)).pages())
    path = body.with_name(f"{body.stem}.{header.max_txid:x}.ltx")
    with body.open("rb") as file:
        write_ltx(path, header, Decoder(file).pages())
    return path
