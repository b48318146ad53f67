"""What engine, tickets and threads need of a worker, whatever it writes to."""

from __future__ import annotations

from typing import Protocol

from sqlitereplica.capture import PageTable
from sqlitereplica.replicate.health import Health
from sqlitereplica.replicate.worker import Phase

__all__ = ["AnyWorker"]


class AnyWorker(Protocol):
    """A replica being written: by files in a store, or as a mirror."""

    name: str
    phase: Phase
    acked: int
    txid: int
    health: Health

    @property
    def pause(self) -> float:
        """Seconds until the next look; 0 for none by itself."""

    def advance(self) -> bool:
        """Do one unit of work. False when there is nothing to do for now."""

    def fail(self, error: Exception) -> None:
        """Note a failure of ``advance``."""

    def close(self) -> None:
        """Leave nothing half-done behind; no ``advance`` follows."""

    def fall_behind(self, base: PageTable | None) -> None:
        """Lose the place in the spool."""

    def give_up(self, error: Exception) -> None:
        """Nothing will come of this replica any more."""

    def txid_of(self, seq: int) -> int | None:
        """The TXID that a state of capture has or gets here; None if unknown."""
