"""From the WAL of a live database to increments; page checksums; checkpoints."""

from sqlitereplica.capture.capture import Capture
from sqlitereplica.capture.increment import Increment, State, header_for, write_ltx
from sqlitereplica.capture.limits import CheckpointLimits
from sqlitereplica.capture.table import Changes, PageTable
from sqlitereplica.capture.tablefile import TableFile
from sqlitereplica.capture.tail import ContinuityLostError
from sqlitereplica.capture.tally import CHECKPOINT_MODES
from sqlitereplica.capture.view import View, ViewEndedError

__all__ = [
    "CHECKPOINT_MODES",
    "Capture",
    "Changes",
    "CheckpointLimits",
    "ContinuityLostError",
    "Increment",
    "PageTable",
    "State",
    "TableFile",
    "View",
    "ViewEndedError",
    "header_for",
    "write_ltx",
]
