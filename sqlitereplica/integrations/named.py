"""Several Replicators by name, started, stopped and reported together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.replicate import Replicator

__all__ = ["Replicators"]


class Replicators(Mapping[str, Replicator]):
    """Replicators by the names that the framework has for their databases. Thread-safe."""

    def __init__(
        self,
        members: Mapping[str, Replicator] | None = None,
        limits: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Hold them; none is started. ``limits`` are those of ``Replicator.health``."""
        self._members = dict(members or {})
        self._limits = dict(limits or {})
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Replicator:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def add(
        self, name: str, replicator: Replicator, limits: Mapping[str, Any] | None = None
    ) -> None:
        """Start one more.

        Raises as ``Replicator.start``; it is held all the same, and reported.
        """
        with self._lock:
            self._members[name] = replicator
            self._limits[name] = limits or {}
        replicator.start()

    def remove(self, name: str) -> None:
        """Stop one and forget it; raises as ``Replicator.stop``."""
        with self._lock:
            replicator = self._members.pop(name)
        replicator.stop()

    def start(self) -> None:
        """Start all that do not run yet.

        Raises:
            SQLiteReplicaError, OSError: what the first failed with; the others were started.
        """
        _raise_first([_error_of(replicator.start) for replicator in self._all()])

    def stop(self, timeout: float | None = None) -> None:
        """Flush and stop all at once, so that one does not use up the time of another.

        Raises:
            SQLiteReplicaError: what the first failed with; all are stopped all the same.
        """
        members = self._all()
        errors: list[SQLiteReplicaError | OSError | None] = [None] * len(members)

        def stop(at: int, replicator: Replicator) -> None:
            errors[at] = _error_of(lambda: replicator.stop(timeout))

        threads = [
            threading.Thread(target=stop, args=pair, name="sqlitereplica-stop")
            for pair in enumerate(members)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _raise_first(errors)

    def _all(self) -> list[Replicator]:
        with self._lock:
            return list(self._members.values())

    def report(self) -> dict[str, Any]:
        """Their health, for JSON: ``ok``, and for each of ``databases`` all that there is."""
        import msgspec

        found = {
            name: replicator.health(**self._limits.get(name, {}))
            for name, replicator in dict(self._members).items()
        }
        return {
            "ok": all(health.ok for health in found.values()),
            "databases": {
                name: {
                    "ok": health.ok,
                    "reasons": list(health.reasons),
                    **msgspec.to_builtins(health.status),
                }
                for name, health in found.items()
            },
        }


def _error_of(do: Callable[[], None]) -> SQLiteReplicaError | OSError | None:
    try:
        do()
    except (SQLiteReplicaError, OSError) as error:
        return error
    return None


def _raise_first(errors: Sequence[SQLiteReplicaError | OSError | None]) -> None:
    """Raise the first error, which names the others; return if there is none."""
    found = [error for error in errors if error is not None]
    if not found:
        return
    for other in found[1:]:
        found[0].add_note(f"also: {other}")
    raise found[0]
