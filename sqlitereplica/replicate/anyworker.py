"""What workers have in common, whatever they write to, and what engine and threads need of one.

Every failure is kept in ``health`` and tried again after a pause that doubles; each unit of
work is one call of ``advance``, so that tests can step a worker without its thread.
"""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from sqlitereplica.capture import ContinuityLostError, PageTable, ViewEndedError
from sqlitereplica.events import Observer, Reporter
from sqlitereplica.replicate.delta import DeltaRequest
from sqlitereplica.replicate.health import Health
from sqlitereplica.replicate.position import Position
from sqlitereplica.replicate.spool import Spool

__all__ = ["AnyWorker", "Coordinator", "Phase"]


class Phase(enum.Enum):
    """Where a worker is; the value is the word for it in a status."""

    CONNECT = "connecting"
    COMPARE = "comparing"
    CATCH_UP = "catching-up"
    STREAM = "streaming"
    FAILED = "failed"


class Coordinator(Protocol):
    """What a worker needs of the engine."""

    def request(self, request: DeltaRequest) -> None:
        """Queue a request for the capture thread."""

    def doubt(self, error: ContinuityLostError) -> None:
        """Called when what was read is not the state that it should be."""

    def progressed(self) -> None:
        """Called after every confirmation and every failure."""

    def urgent(self) -> bool:
        """Whether somebody waits in ``sync()``."""

    def connected(self, position: Position) -> None:
        """Called with the position of a replica before it is compared."""


class AnyWorker(ABC):
    """A replica being written: by files in a store, or as a mirror.

    ``advance`` and ``close`` belong to one thread at a time.
    """

    def __init__(
        self,
        name: str,
        *,
        database: str,
        spool: Spool,
        coordinator: Coordinator,
        observer: Observer,
        clock: Callable[[], float],
        now: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self.name = name
        self.phase = Phase.CONNECT
        self.acked = self.txid = 0
        self.health = Health()
        self._spool, self._coordinator = spool, coordinator
        self._report = Reporter(observer, database, name)
        self._clock, self._now, self._rng = clock, now, rng
        self._request: DeltaRequest | None = None
        self._reset = threading.Event()
        self._line: tuple[int, int] | None = None
        """While in step: the first seq of this row of increments, and TXID - seq."""

    # -- called by others ------------------------------------------------------------

    def fall_behind(self, base: PageTable | None) -> None:
        """Lose the place in the spool; ``base`` is what a store there holds at least."""
        self._reset.set()

    def txid_of(self, seq: int) -> int | None:
        """The TXID that a state of capture has or gets here; None when that is unknown."""
        line = self._line
        return None if line is None or seq < line[0] else seq + line[1]

    def give_up(self, error: Exception) -> None:  # noqa: B027
        """Nothing will come of this replica any more: say so to who waits for it alone."""

    def close(self) -> None:
        """Leave nothing half-done behind; to be called when no ``advance`` follows."""
        self._begin_again()

    @property
    def pause(self) -> float:
        """Seconds until the next look; 0 for none by itself, unless something failed."""
        return self.health.pause(self._clock(), urgent=self._coordinator.urgent())

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Note a failure of ``advance``; the next call tries again after a pause."""

    # -- one unit of work ------------------------------------------------------------

    def advance(self) -> bool:
        """Do one unit of work. False when there is nothing to do for now."""
        if self._reset.is_set():
            self._reset.clear()
            self._begin_again()
        if not self._is_due():
            return False
        try:
            moved = self._act()
        except ViewEndedError:
            # Not a failure of this replica: capture let the database go, and has told
            # why to whoever waited. It attaches anew; who comes from now on waits for it.
            self._begin_again()
            return True
        except ContinuityLostError as error:
            self._coordinator.doubt(error)
            self._begin_again()
            return True
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it shows in status, log and sync(), and is tried again.
            self.fail(error)
            return True
        if moved:
            self._coordinator.progressed()
        return moved

    @abstractmethod
    def _is_due(self) -> bool:
        """Whether it is time, after a failure."""

    @abstractmethod
    def _act(self) -> bool:
        """What ``advance`` does in the present phase."""

    def _begin_again(self) -> None:
        """Back to the first phase, leaving nothing half-done behind."""
        self._spool.unsubscribe(self.name)
        if self._request is not None:
            self._request.cancel()
        self._request = self._line = None
        if self.phase is not Phase.FAILED:
            self.phase = Phase.CONNECT

    def _confirm(self, seq: int) -> None:
        """The replica holds more than before: only that ends a row of failures."""
        self.acked = seq
        if self.health.succeeded(self._now()):
            self._report("replica-ok", level=20)
