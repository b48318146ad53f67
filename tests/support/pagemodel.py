"""A database as a dictionary of pages, and LTX files of it that begin and end anywhere."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable

from hypothesis import strategies as st

from sqlitereplica import ltx
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore.image import Image
from sqlitereplica.restore.plan import decisive

__all__ = [
    "PAGE_SIZE",
    "History",
    "State",
    "checksum",
    "encode",
    "header_of",
    "histories",
    "overlay",
    "page_sums",
    "restored",
    "state_after",
]

PAGE_SIZE = 512
State = tuple[bytes, ...]
History = list[tuple[int, dict[int, bytes]]]
"""Per transaction the size after it, in pages, and the pages it wrote."""


@st.composite
def histories(draw: st.DrawFn, *, alike: bool = False) -> History:
    """Transactions that grow, shrink and overwrite; each writes what it adds.

    ``alike``: pages differ in little, so that one change often makes up for another in
    the database checksum. Otherwise no two are the same.
    """
    history: History = []
    size = 0
    for txid in range(1, draw(st.integers(1, 9)) + 1):
        new = draw(st.integers(1, 9))
        chosen = draw(st.sets(st.integers(1, new), max_size=4))
        changed = chosen | set(range(size + 1, new + 1))
        value = draw(st.integers(0, 3)) if alike else txid
        pages = {p: _page(p if alike else 100 * txid + p, value) for p in changed}
        history.append((new, pages))
        size = new
    return history


def _page(seed: int, value: int) -> bytes:
    """A page that cannot be compressed; another value changes the same bits of any."""
    return random.Random(seed).randbytes(PAGE_SIZE - 1) + bytes([value])


def overlay(pages: dict[int, bytes], history: History) -> dict[int, bytes]:
    """Pages after further transactions."""
    for size, written in history:
        pages = {p: data for p, data in (pages | written).items() if p <= size}
    return pages


def state_after(history: History, txid: int) -> State:
    """The database after a transaction; 0 gives the one without pages."""
    return tuple(data for _, data in sorted(overlay({}, history[:txid]).items()))


def encode(
    history: History, first: int, last: int, *, timestamp: int | None = None
) -> bytes:
    """The file of these transactions; its header is as of ``header_of``."""
    header = header_of(history, first, last, timestamp=timestamp)
    return ltx.encode(header, sorted(overlay({}, history[first - 1 : last]).items()))


def header_of(
    history: History, first: int, last: int, *, timestamp: int | None = None
) -> ltx.Header:
    """The header of the file of these transactions, with our checksum extension.

    Its time is by default as many milliseconds as the number of the last transaction.
    """
    state = state_after(history, last)
    return ltx.Header(
        page_size=PAGE_SIZE,
        commit=len(state),
        min_txid=first,
        max_txid=last,
        timestamp=last if timestamp is None else timestamp,
        pre_checksum=checksum(state_after(history, first - 1)) if first > 1 else 0,
        post_checksum=checksum(state),
    )


def page_sums(state: State) -> list[int]:
    """The checksums of the pages of a state."""
    return [ltx.page_checksum(pgno, page) for pgno, page in enumerate(state, 1)]


def checksum(state: State) -> int:
    """The database checksum of a state."""
    return ltx.database_checksum(page_sums(state))


def restored(plan: Iterable[tuple[FileInfo, bytes]]) -> tuple[bytes, ltx.Header]:
    """What a restore makes of the files of a plan, verified, and the last header."""
    content_of = dict(plan)
    files = decisive(list(content_of))
    goal = ltx.Header.unpack(content_of[files[-1]])
    content = bytearray()

    def write(offset: int, pages: list[bytes]) -> None:
        joined = b"".join(pages)
        content.extend(bytes(max(0, offset + len(joined) - len(content))))
        content[offset : offset + len(joined)] = joined

    image = Image(write, horizon=goal.commit, checksums=True)
    for file in files:
        image.apply(file, io.BytesIO(content_of[file]))
    assert len(content) <= goal.commit * PAGE_SIZE
    verified = image.verify()
    assert verified.checksum == goal.post_checksum and verified.header == goal
    return bytes(content), goal
