"""What a promoted file was, for the Replicator that continues from there.

A Replicator that starts on a database compares it with its replica, page by page. What the
replica holds it learns from its own page table, or by reading all of the replica. A file
that was promoted has just been in exactly the newest state of the replica, so its follower
leaves the page checksums of that state in the metadata folder. They are used only if
transaction, time, size and database checksum are those of the newest file that is there.

Format: the LTX header of the state (100 bytes), then the list of ``ltx/sums.py``.
"""

from __future__ import annotations

import os
from array import array
from io import BytesIO
from pathlib import Path

from sqlitereplica.capture import PageTable
from sqlitereplica.errors import InvalidFileError
from sqlitereplica.ltx import HEADER_SIZE, Header, decode_sums, encode_sums
from sqlitereplica.replicate.position import Position, read_position
from sqlitereplica.restore.following import Following
from sqlitereplica.restore.held import Goal

__all__ = ["find_given_away", "find_promoted", "leave_promoted"]

_NAME = "promoted"


def leave_promoted(folder: Path, header: Header, sums: array[int]) -> None:
    """Leave the page checksums of the state that ``header`` ends with."""
    path = folder / _NAME
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(header.pack() + encode_sums(header, sums))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def find_promoted(folder: Path, position: Position) -> PageTable | None:
    """The page table of the state at a position, if it was left here; None if not."""
    try:
        data = (folder / _NAME).read_bytes()
    except OSError:
        return None  # it only saves reading the replica
    try:
        header = Header.unpack(data[:HEADER_SIZE])
        state = header.max_txid, header.post_checksum, header.timestamp
        if state != (position.txid, position.checksum, position.timestamp):
            return None
        return PageTable(
            header.page_size, decode_sums(BytesIO(data[HEADER_SIZE:]), header)
        )
    except InvalidFileError:
        return None  # torn, or of another version: as if it were not there


def find_given_away(folder: Path, following: Following, node: int | None) -> bool:
    """Whether the file was given away already, in the newest state, by a killed process.

    With a ``node`` only if that one wrote the newest state: its fence.
    """
    position = read_position(following.store)
    table = find_promoted(folder, position)
    if table is None or (node is not None and position.node_id != node):
        return False
    goal = Goal(
        txid=position.txid,
        timestamp=position.timestamp,
        page_size=table.page_size,
        commit=table.commit,
        checksum=position.checksum,
    )
    return following.find_given_away(goal, table.sums)
