"""The status as an event, every few seconds, for observers that keep gauges."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Pulse"]

_EVERY = 5.0


class Pulse:
    """Calls ``tell`` now and then in a thread of its own, and once more at its end."""

    def __init__(self, tell: Callable[[], None], every: float = _EVERY) -> None:
        self._tell, self._every = tell, every
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="sqlitereplica-status", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after a last call."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            ends = self._stopping.is_set()
            self._tell()
            if ends:
                return
            self._stopping.wait(self._every)
