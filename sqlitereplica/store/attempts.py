"""Every operation on a store goes through here: counted, translated, tried again.

What is tried again is what may help: a failure that may pass, after a pause, and a refusal
of credentials, once there are others.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from fsspec import AbstractFileSystem

from sqlitereplica.errors import StoreError
from sqlitereplica.store.credentials import Rotation
from sqlitereplica.store.retry import RetryPolicy
from sqlitereplica.store.translate import (
    is_refusal,
    secrets_in,
    surrounding,
    translated,
)

__all__ = ["Attempts", "Operation", "Sent", "size_of"]

T = TypeVar("T")
Sent: TypeAlias = bytes | Path


@dataclass(frozen=True, slots=True)
class Operation:
    """One attempt at one operation."""

    name: str
    """``"put"``, ``"get"``, ``"list"`` or ``"delete"``."""
    seconds: float
    size: int
    """Bytes that went or came; 0 where nobody counts them."""
    error: StoreError | None


class Attempts:
    """Runs the operations of one store. Thread-safe."""

    def __init__(
        self,
        fs: AbstractFileSystem,
        protocol: str,
        *,
        rotation: Rotation | None,
        retry: RetryPolicy,
        sleep: Callable[[float], None],
        rng: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fs, self._rotation, self._retry = fs, rotation, retry
        self._own = secrets_in(fs.storage_options) | surrounding(protocol)
        self._sleep, self._rng, self._clock = sleep, rng, clock
        self._lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        """Attempts so far, by operation."""
        self.watch: Callable[[Operation], None] | None = None
        """Is told of every attempt."""

    @property
    def secrets(self) -> frozenset[str]:
        """What no message may show."""
        rotation = self._rotation
        return self._own | (rotation.secrets if rotation else frozenset())

    def run(self, name: str, key: str, action: Callable[[], T], sent: Sent) -> T:
        """Do it; raises StoreError when that is in vain."""
        pauses = self._retry.pauses(self._rng)
        renewed = False
        while True:
            version = self._rotation.version if self._rotation else 0
            try:
                return self._once(name, key, action, sent)
            except StoreError as error:
                if not renewed and self._renew(error, version):
                    renewed = True
                    continue
                again = error.transient and error.kind != "source"
                pause = next(pauses, None) if again else None
                if pause is None:
                    raise
                self._sleep(pause)

    def _once(self, name: str, key: str, action: Callable[[], T], sent: Sent) -> T:
        with self._lock:
            self.requests[name] += 1
        began = self._clock()
        try:
            with translated(name, key, self.secrets):
                done = action()
        except StoreError as error:
            self._tell(name, began, 0, error)
            raise
        size = _counted(done if isinstance(done, bytes) else sent)
        self._tell(name, began, size, None)
        return done

    def _tell(
        self, name: str, began: float, size: int, error: StoreError | None
    ) -> None:
        if self.watch is not None:
            self.watch(Operation(name, self._clock() - began, size, error))

    def _renew(self, error: StoreError, version: int) -> bool:
        """After a failure: True when there are other credentials to try again with."""
        rotation = self._rotation
        if rotation is None or not is_refusal(error):
            return False
        return rotation.renew(self._fs, version)


def size_of(data: Sent) -> int:
    """Bytes that there are to send."""
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def _counted(data: Sent) -> int:
    """Bytes; 0 for a file that is gone already."""
    try:
        return size_of(data)
    except OSError:
        return 0
