"""A full image read from the source, without holding it from checkpoints.

A view pins the WAL, and a large database takes long to read. So it is read in pieces: each
view is held for the milliseconds that one piece takes, and the WAL is reset between them.
The pieces are of different states; what they have in common is that the checksum of every
page is known. The last request compares these with the table of the then newest state, and
names the pages that changed since they were read. They are read in rounds until few are
left; those are read under one view at last. Merging the pieces with these pages gives
exactly that newest state, which its database checksum proves.

An image is named by a TXID of the replica, so the state that it shows has to have one
there: the worker is waited for until it has put the increment that leads to it.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sqlitereplica.capture import (
    ContinuityLostError,
    PageTable,
    header_for,
    write_ltx,
)
from sqlitereplica.errors import ChecksumMismatchError, InvalidFileError
from sqlitereplica.ltx import MAX_COMMIT, Decoder, Header, merge, page_checksum
from sqlitereplica.replicate.delta import Delta, DeltaRequest
from sqlitereplica.replicate.merging import Merged, Pace, paced, write_image
from sqlitereplica.replicate.workshop import Workshop
from sqlitereplica.sqlite import SourceBusyError

__all__ = ["LineLostError", "SourceImage"]

_PIECE_BYTES = 8 << 20
_FEW_BYTES = 32 << 20
_MOST_ROUNDS = 4
_WAIT = 0.01
_END_OF_TIME = 1 << 62


class LineLostError(SourceBusyError):
    """The replica was taken out of the line, so a state has no TXID there: begin again."""

    def __init__(self, path: str) -> None:
        super().__init__(
            "the replica had to be compared anew while a snapshot was made", path=path
        )


class SourceImage:
    """Makes one full image from the source. Belongs to one thread."""

    def __init__(
        self,
        shop: Workshop,
        ask: Callable[[DeltaRequest], None],
        *,
        pace: Pace,
        sleep: Callable[[float], None] = time.sleep,
        piece_bytes: int = _PIECE_BYTES,
    ) -> None:
        """``ask`` hands a request to the capture thread."""
        self._shop, self._ask, self._pace = shop, ask, pace
        self._line = shop.worker
        self._path = shop.scratch("snapshot")
        self._sleep = sleep
        self._piece_bytes = piece_bytes
        self._parts: list[Path] = []
        self._table = PageTable(512)

    def make(self) -> Merged:
        """Return the image of a state that the replica holds.

        Raises:
            StoppedError: the Replicator stops.
            LineLostError: to be tried again.
            ViewEndedError: the database was let go meanwhile; to be tried again.
            ContinuityLostError: what was read is not the state captured.
            OSError: no space, for one.
        """
        try:
            with self._request(compare=False) as first:
                assert first.view is not None
                pages = first.view.commit
                self._table = PageTable(
                    first.state.page_size, array("Q", bytes(8 * pages))
                )
            self._read(range(1, pages + 1))
            for _ in range(_MOST_ROUNDS):
                with self._request(base=self._table) as delta:
                    size = len(delta.pgnos) * delta.state.page_size
                    if size <= _FEW_BYTES:
                        return self._finish(delta)
                    stale = delta.pgnos
                self._read(stale)
            with self._request(base=self._table) as delta:
                return self._finish(delta)
        finally:
            for part in self._parts:
                part.unlink(missing_ok=True)

    # -- pieces ----------------------------------------------------------------------

    def _read(self, pgnos: Sequence[int]) -> None:
        """Read pages into one more file, a view for each piece of them."""
        part = self._new_part()
        number = len(self._parts) + 1
        header = Header(
            page_size=self._table.page_size,
            commit=MAX_COMMIT,  # of a mixture of states nothing better can be said
            min_txid=number,
            max_txid=number,
            timestamp=0,
        )
        write_ltx(part, header, self._pieces(pgnos))

    def _new_part(self) -> Path:
        part = self._path.with_suffix(f".{len(self._parts)}.part")
        self._parts.append(part)
        return part

    def _pieces(self, pgnos: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        most = max(1, self._piece_bytes // self._table.page_size)
        for at in range(0, len(pgnos), most):
            piece = self._read_piece(pgnos[at : at + most])
            last = piece[-1][0] if piece else 0
            sums = [(pgno, page_checksum(pgno, page)) for pgno, page in piece]
            self._table.apply(max(self._table.commit, last), sums)
            yield from piece
            self._pace(len(piece) * self._table.page_size)

    def _read_piece(self, pgnos: Sequence[int]) -> list[tuple[int, bytes]]:
        with self._request(compare=False) as delta:
            view = delta.view
            assert view is not None
            piece = list(view.pages(p for p in pgnos if p <= view.commit))
            self._check(delta)
        if any(len(page) != self._table.page_size for _, page in piece):
            raise self._wrong()  # the WAL was cut
        return piece

    def _finish(self, delta: Delta) -> Merged:
        """Add what still differs and write the image of the state of ``delta``."""
        state = delta.state
        assert delta.view is not None
        if len(delta.pgnos):
            part = self._new_part()
            number = len(self._parts) + 1
            header = header_for(state, number, number, 0)
            try:
                write_ltx(part, header, delta.view.pages(delta.pgnos))
            except InvalidFileError as error:
                delta.view.check()
                raise self._wrong() from error
        self._check(delta)
        delta.view.release()
        txid = self._await_txid(state.seq)
        header = header_for(state, txid, 1, 0)
        # The state is as old as the increment that led to it, not as this file.
        header = replace(header, timestamp=min(header.timestamp, self._time_of(txid)))
        with ExitStack() as stack:
            files = [stack.enter_context(part.open("rb")) for part in self._parts]
            _, pages = merge([Decoder(file) for file in files])
            kept = ((pgno, page) for pgno, page in pages if pgno <= header.commit)
            found = paced(kept, header.page_size, self._pace)
            try:
                return write_image(self._path, header, found)
            except ChecksumMismatchError as error:
                raise self._wrong() from error

    def _wrong(self) -> ContinuityLostError:
        what = "pages changed under our locks"
        return ContinuityLostError(self._shop.database, what)

    # -- the capture thread and the worker -------------------------------------------

    def _request(self, *, base: PageTable | None = None, compare: bool = True) -> Delta:
        request = DeltaRequest(
            replica=self._shop.name, base=base, subscribe=False, compare=compare
        )
        self._ask(request)
        while not request.answered.wait(_WAIT):
            if self._shop.stopped():
                request.cancel()
            self._shop.go_on()
        assert request.answer is not None, "only subscribers are asked back"
        return request.answer

    def _check(self, delta: Delta) -> None:
        """Raise unless what was read under the view counts."""
        assert delta.view is not None
        delta.view.check()
        if delta.state.page_size != self._table.page_size:
            raise LineLostError(self._shop.database)

    def _time_of(self, txid: int) -> int:
        """The time (ms) of the file that brought a state."""
        files = self._shop.catalog.files()
        times = [f.timestamp for f in files if f.max_txid == txid and f.timestamp]
        return min(times, default=_END_OF_TIME)

    def _await_txid(self, seq: int) -> int:
        """The TXID of a state, once the replica has it."""
        while True:
            txid = self._line.txid_of(seq)
            # Asked again behind ``acked``, which a new line may have set.
            done = self._line.acked >= seq and self._line.txid_of(seq) == txid
            if txid is None:
                raise LineLostError(self._shop.database)
            if done:
                return txid
            self._shop.go_on()
            self._sleep(_WAIT)
