"""What becomes of Replicators when their process forks or ends.

At the end of the process each that runs is stopped, with a last flush. In the child of
a fork everything that belongs to the parent is closed or forgotten, before any other code
runs there, and each that was started joins in anew.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlitereplica.errors import SQLiteReplicaError
from sqlitereplica.events import Event
from sqlitereplica.replicate.channel import forget_sockets
from sqlitereplica.replicate.desk import forget_desk
from sqlitereplica.replicate.driver import forget_driver
from sqlitereplica.replicate.ending import at_exit
from sqlitereplica.replicate.housekeeper import forget_housekeeper
from sqlitereplica.replicate.metafolder import forget_folders

if TYPE_CHECKING:
    from sqlitereplica.replicate.replicator import Replicator

__all__ = ["inherited", "made", "started"]

made: weakref.WeakSet[Replicator] = weakref.WeakSet()
started: set[Replicator] = set()
"""Strong references: one that nobody holds any more still flushes at exit."""
inherited: list[Any] = []
"""What the parent's were, in the child of a fork: never used, nor freed."""


def _flush_all() -> None:
    """When the main thread has ended, and others go on: they are replicated as before."""
    for replicator in list(started):
        with suppress(SQLiteReplicaError):  # tried again at the end, if not before
            replicator._flush()


def _stop_all() -> None:
    """At the end of the process: flush what runs; failures can only be reported."""
    for replicator in list(started):
        try:
            replicator.stop()
        except Exception as error:  # noqa: BLE001  (the others are to be flushed, too)
            event = Event(
                action="exit-flush-failed",
                database=replicator.database,
                level=40,
                error=error,
            )
            replicator._options.observer(event)


def _after_fork_in_child() -> None:
    """Close what only the parent may have, and have every Replicator join in anew."""
    forget_driver()
    forget_housekeeper()
    forget_desk()
    forget_sockets()
    forget_folders()
    for replicator in list(made):
        replicator._after_fork()


at_exit(_stop_all, _flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
