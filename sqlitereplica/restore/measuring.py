"""How long a restore took, for an observer."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlitereplica.events import Event, Observer, guarded

__all__ = ["measured"]


@contextmanager
def measured(
    observer: Observer | None, path: str | os.PathLike[str]
) -> Iterator[Callable[..., None]]:
    """Report what is done in the block as one event, in the caller's thread.

    What is given (a replica, and data) is called with the result.
    """
    found: dict[str, Any] = {"replica": "", "data": {}}

    def told(replica: str, **data: Any) -> None:
        found.update(replica=replica, data=data)

    began, failure = time.monotonic(), None
    try:
        yield told
    except Exception as error:
        failure = error
        raise
    finally:
        if observer is not None:
            seconds = time.monotonic() - began
            guarded(observer)(
                Event(
                    action="restore",
                    database=os.path.realpath(path),
                    level=logging.DEBUG if failure is None else logging.ERROR,
                    replica=found["replica"],
                    error=failure,
                    data={"seconds": seconds, **found["data"]},
                )
            )
