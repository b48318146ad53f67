"""What the history of a replica needs if nothing is committed any more: pure decisions.

For a database that is left alone (``group/``): its Replicator ends, and is started again
when something is due. That costs a listing, so what is due is gathered rather than done at
the first moment:

* Compaction waits for the next boundary of the highest level. Then everything that waits in
  lower levels is merged through all of them in one go. A single file that waits is left
  where it is: merged with nothing it would be the same bytes again.
* A snapshot comes at the first multiple of its interval behind the oldest increment that
  the newest image lacks, as for a database that runs.
* Retention comes when the newest file is as old as the longest span: by then everything
  that time alone makes unneeded is so. (What is unneeded already, and waits for the end of
  its grace, the retention task knows.)

Each of them makes no new work of its own kind, so a database that is left alone is started
a few times and then never again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlitereplica.errors import NotRestorableError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.retention import unneeded_files
from sqlitereplica.replicate.schedule import compaction_inputs, snapshot_due
from sqlitereplica.restore.plan import decisive, plan_restore

__all__ = ["foresee"]

_SETTLED = 61_000
"""Milliseconds after which no file is too new to count for a snapshot."""


def foresee(
    files: Sequence[FileInfo],
    now: int,
    *,
    levels: Sequence[int],
    snapshot_interval: int | None,
    amplification: float,
    policy: Retention,
    pins: Collection[int] = (),
) -> int | None:
    """Say when there is something to do, in milliseconds since the epoch.

    A time not after ``now`` means that there is something already; None that there never
    will be.
    """
    if not files:
        return None
    times = [
        _compaction(files, levels),
        _snapshot(files, now, snapshot_interval, amplification),
        _retention(files, now, policy, pins),
    ]
    return min((time for time in times if time is not None), default=None)


def _compaction(files: Sequence[FileInfo], levels: Sequence[int]) -> int | None:
    waiting = [
        run.files
        for level in range(1, len(levels) + 1)
        if len((run := compaction_inputs(files, level)).files) > 1
    ]
    if not waiting:
        return None
    newest = max(file.timestamp for run in waiting for file in run)
    return _after(newest, levels[-1])


def _snapshot(
    files: Sequence[FileInfo], now: int, interval: int | None, amplification: float
) -> int | None:
    settled = now + _SETTLED
    for time in (now, settled):
        due = snapshot_due(files, time, interval=None, amplification=amplification)
        if due is not None:
            return time
    if interval is None:
        return None
    try:
        image, *increments = decisive(plan_restore(files))
    except NotRestorableError:  # said above
        return now
    if not increments:
        return None
    lacking = (f.timestamp for f in files if f.max_txid > image.max_txid)
    return _after(min(lacking), interval)


def _retention(
    files: Sequence[FileInfo], now: int, policy: Retention, pins: Collection[int]
) -> int | None:
    end = max(file.timestamp for file in files) + policy.window_ms + 1
    if not policy.delete or end <= now:
        return None
    return end if unneeded_files(files, policy, end, pins) else None


def _after(time: int, interval: int) -> int:
    """The first multiple behind a time; a millisecond more, for those that ask for later."""
    return time - time % interval + interval + 1
