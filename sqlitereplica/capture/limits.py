"""When the WAL is checkpointed: numbers, and the pure decision on them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlitereplica.sqlite import WalIndex

__all__ = ["CheckpointLimits", "wants_passive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLimits:
    """Thresholds in WAL frames (of one page and 24 bytes each).

    Well under the application's own autocheckpoint (1000 frames by default): above that
    every commit of the application tries a checkpoint of its own, in vain while we read.
    """

    soft: int = 500
    """From here on we checkpoint (PASSIVE) whenever the WAL moved; no write lock."""
    force: int = 900
    """From here on we take the write lock for a few milliseconds to let the WAL reset."""
    stuck: int = 4000
    """The same, when all is backfilled and the WAL goes on growing."""
    truncate: int = 16 * 1024 * 1024
    """Bytes of the ``-wal`` file from which it is truncated when that is safe."""
    stride: int = 64
    """New frames between two PASSIVE checkpoints."""


def wants_passive(limits: CheckpointLimits, index: WalIndex, last: int) -> bool:
    """True when a PASSIVE checkpoint is worth its price.

    ``last`` is mxFrame at our last one in this WAL, 0 if there was none.
    """
    return index.mx_frame >= limits.soft and (
        last == 0
        or index.mx_frame < last
        or index.mx_frame >= last + limits.stride
        or (index.mx_frame >= limits.force and index.mx_frame > last)
    )
