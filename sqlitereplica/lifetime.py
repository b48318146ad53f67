"""What is started at the beginning of a ``with`` block and stopped at its end."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from sqlitereplica.errors import SQLiteReplicaError

__all__ = ["Lifetime"]


class Lifetime:
    """Makes a context manager, also for asyncio, of a class that has start and stop.

    What a block raised is more telling than what goes wrong while it is stopped for that:
    the latter is a note of the former, or is raised if there is no other.
    """

    def start(self) -> None:
        """Begin."""
        raise NotImplementedError

    def stop(self) -> None:
        """Flush what is to be flushed, and end."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except (SQLiteReplicaError, OSError) as failure:
            if error is None:
                raise
            error.add_note(f"while stopping: {failure}")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await asyncio.to_thread(self.__exit__, *raised)
