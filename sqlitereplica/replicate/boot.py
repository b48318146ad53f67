"""The start of an application on an empty disk: fetch the database, then replicate it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal, TypeAlias

from sqlitereplica.events import Event
from sqlitereplica.replicate.options import Options
from sqlitereplica.restore.restore import restore
from sqlitereplica.sqlite import is_ready

__all__ = ["RestoreWhen", "fetch_if_missing"]

RestoreWhen: TypeAlias = Literal["if-missing"]


def fetch_if_missing(options: Options) -> Options:
    """Restore the database from the best replica if there is none, and there is a backup.

    To be called by who has the lock of the metadata folder: others wait for it. A process
    that is killed meanwhile leaves no database, so the next one does it again.

    With a lease another host may go on writing until that is ours, and what was restored
    before would be stale by then: so it is fetched as by a standby, which ends with the
    newest state. Returned are the options to go on with.

    Raises:
        SQLiteReplicaError, OSError: as ``restore``. No database is begun in its place: a
            replica that cannot be reached may hold one.
    """
    if options.lease is not None:
        return options if is_ready(options.path) else replace(options, standby=True)
    result = restore(options.replicas, options.path, if_exists="skip", missing="skip")
    options.observer(
        Event(
            action="boot",
            database=options.path,
            level=logging.INFO,
            replica=result.source or "",
            data={"reason": result.reason, "txid": result.txid or 0},
        )
    )
    return options
