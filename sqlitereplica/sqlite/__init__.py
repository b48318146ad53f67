"""The source database: the application's own SQLite, its WAL and its wal-index."""

from sqlitereplica.sqlite.commitwatch import CommitWatch, Look
from sqlitereplica.sqlite.connection import Connect, SourceBusyError, SourceConnection
from sqlitereplica.sqlite.hazards import copy_of
from sqlitereplica.sqlite.source import SourceDatabase, branch_map, is_ready
from sqlitereplica.sqlite.wal import FRAME_HEADER_SIZE, last_frames, split
from sqlitereplica.sqlite.walindex import WalIndex

__all__ = [
    "FRAME_HEADER_SIZE",
    "CommitWatch",
    "Connect",
    "Look",
    "SourceBusyError",
    "SourceConnection",
    "SourceDatabase",
    "WalIndex",
    "branch_map",
    "copy_of",
    "is_ready",
    "last_frames",
    "split",
]
