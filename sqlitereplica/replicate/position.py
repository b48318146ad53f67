"""Where a replica stands: read from its newest file, judged by a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlitereplica.errors import (
    InvalidFileError,
    NotRestorableError,
    PosMismatchError,
)
from sqlitereplica.ltx import HEADER_SIZE, Decoder, FileInfo, Header
from sqlitereplica.restore import plan_restore
from sqlitereplica.store import LTXStore

__all__ = ["Position", "judge", "newest_file", "read_position"]

_SMALL = 4 << 20
"""Bytes of a file that is read whole: one request all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The newest state that a replica holds. ``txid`` 0: none at all."""

    txid: int = 0
    checksum: int = 0
    """Database checksum of that state; 0 when the file's writer recorded none."""
    timestamp: int = 0
    node_id: int = 0
    """Whose capture wrote it; 0 for nobody's."""
    page_size: int = 0
    plan: tuple[FileInfo, ...] = ()
    """The files that restore it; empty when no chain of files reaches it."""
    files: tuple[FileInfo, ...] = ()
    """All files of the replica."""

    @property
    def broken(self) -> bool:
        """True when there is history that cannot be restored to its end."""
        return self.txid > 0 and not self.plan


def newest_file(files: Sequence[FileInfo]) -> FileInfo | None:
    """The file that ends last; among those the lowest level, the most precise one."""
    return max(files, key=lambda f: (f.max_txid, -f.level), default=None)


def judge(files: Sequence[FileInfo], newest: FileInfo) -> tuple[FileInfo, ...]:
    """The plan that restores the newest state, () when there is none."""
    try:
        plan = plan_restore(files)
    except (NotRestorableError, PosMismatchError):
        # The answer to "can it be restored?" is no; the caller sends a snapshot.
        return ()
    return plan if plan and plan[-1].max_txid == newest.max_txid else ()


def read_position(store: LTXStore) -> Position:
    """List a replica and read the header of its newest file: two round trips.

    A newest file that is no LTX file ends a history that cannot be continued. So does any
    where this host can write and not read: nobody knows what it holds.

    Raises:
        StoreError: the store failed.
    """
    files = store.list_all()
    newest = newest_file(files)
    if newest is None:
        return Position()
    header = _read_header(store, newest) if store.is_readable else None
    if header is None:
        return Position(
            txid=newest.max_txid, timestamp=newest.timestamp, files=tuple(files)
        )
    return Position(
        txid=newest.max_txid,
        checksum=header.post_checksum,
        timestamp=header.timestamp,
        node_id=header.node_id,
        page_size=header.page_size,
        plan=judge(files, newest),
        files=tuple(files),
    )


def _read_header(store: LTXStore, file: FileInfo) -> Header | None:
    """The header of a file; None when it is damaged, or of another file.

    What looks wrong is read once more: after a damaged file only a snapshot leads on, and
    that may be large.
    """
    for _ in range(2):
        try:
            header = _read_verified(store, file)
        except InvalidFileError:
            continue
        if (header.min_txid, header.max_txid) == (file.min_txid, file.max_txid):
            return header
    return None


def _read_verified(store: LTXStore, file: FileInfo) -> Header:
    """Read a header; if the file is small all of it, since its checksum is at its end."""
    if file.size > _SMALL:
        return Header.unpack(store.get(file, 0, HEADER_SIZE))
    with store.open_file(file) as reader:
        decoder = Decoder(reader)
        for _ in decoder.pages():
            pass
    return decoder.header
