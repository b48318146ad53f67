"""The WAL's tail: every committed frame exactly once, without writing to the database.

Theory of operation (design section 4; reliability.md section 3 for what was measured).

A reader that begins when the WAL holds frames not yet backfilled takes a *mark*: from then
on nobody can reset the WAL, and checkpoints copy frames up to the mark. A reader that
begins when everything is backfilled takes READ_LOCK(0): a writer may reset the WAL, but
nobody can backfill, and so nobody can reset it a *second* time. Hence

    Invariant: at every moment one of our two readers is in a read transaction, and if it
    holds READ_LOCK(0), all frames of the WAL at which it began have been captured.

Under a mark no frame can vanish. Under READ_LOCK(0) only captured frames can, and frames
of the WAL that follows stay until we have looked. Readers alternate, hand over hand: the
next begins before the last ends. What a beginning reader got is known when the wal-index
header is the same before and after: then that header is its snapshot, and whether it was
fully backfilled tells which lock it took. (One doubt is left: with READ_LOCK(0) taken by a
checkpointer at that instant, SQLite falls back to a mark. That is safe, and one more hand
over in quiet gets the lock meant.)

The WAL is made to reset near a thousand frames, since above ``wal_autocheckpoint`` every
commit of the application tries a checkpoint of its own: PASSIVE from our third connection
first; under a writer that never pauses, the fourth takes the write lock for the few
milliseconds that capture, backfill and hand over need. TRUNCATE is only tried under
READ_LOCK(0) with nothing new: it finds nothing to do or is refused, and cannot lose a frame.

SQLite before 3.51.3 has a bug (reliability.md section 2): a checkpointer that reads the
header, is overtaken by a reset, and then goes on with the old header copies wrong frames
into the database and publishes a wrong nBackfill. It needs READ_LOCK(0) for that, which we
hold at every reset. So after a reset we keep it until we have had the checkpoint lock for a
moment ourselves: whoever read the old header has then ended, and whoever comes later reads
the new one. That makes the application's own checkpoints safe, too, while we are attached.
Only one that waits for our READ_LOCK(0) must not wait in vain, for it has the write lock and
keeps every writer waiting with it. It read the header after it got the write lock, under
which nobody resets, so it may go on. It is known by this: for a while the checkpoint lock is
refused and the header stays the same, and then the write lock is refused, too. One that was
overtaken does not wait (it has no write lock, and then SQLite asks for READ_LOCK(0) once).

What is not possible under these locks (a reset under our mark, a backfill under
READ_LOCK(0)) means that somebody dropped them: ``ContinuityLostError``, attach anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlitereplica.capture.limits import CheckpointLimits, wants_passive
from sqlitereplica.capture.tally import Checkpoints
from sqlitereplica.capture.view import View
from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.sqlite import SourceBusyError, SourceDatabase, WalIndex

__all__ = ["ContinuityLostError", "WalTail"]

_HAND_OVER_TRIES = 50
_CHECKPOINT_TRIES = 50
_WAITS_AFTER = 0.05
_FORCE_WAIT = 0.2
_FORCE_SPIN = 0.02
_FORCE_PAUSE = 0.00005
_FORCE_HOLD = 0.02
_FORCE_BACKOFF = (0.01, 1.0)
_CHECKPOINT_PAUSE = 1.0


class ContinuityLostError(DatabaseStateError):
    """The WAL did something that our locks exclude; frames may have been missed."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path}: {what}, so its locks were dropped by something in this process"
            " that opened and closed the file; comparing the database anew",
            path=path,
            kind="continuity",
        )


class WalTail:
    """Follows the WAL of an attached database. Belongs to the capture thread."""

    def __init__(
        self,
        source: SourceDatabase,
        sink: Callable[[WalIndex, int], None],
        *,
        limits: CheckpointLimits | None = None,
        checkpoints: Checkpoints | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the first lock; capture begins with the frames after this moment.

        ``sink(index, first)`` is given frames ``first..index.mx_frame`` to read, under a
        lock that keeps them until it returns.
        """
        self._source = source
        self._sink = sink
        self._limits = limits or CheckpointLimits()
        self._checkpoints = checkpoints or Checkpoints(clock)
        self._clock, self._sleep = clock, sleep
        self._held, self._other = source.reader, source.other
        self._view: View | None = None
        self._overtaken = False
        """A reset came, and a checkpointer may still go by the header of before it."""
        self._refused: tuple[WalIndex, float] | None = None
        """The header at which the checkpoint lock was refused, and since when."""
        self._writing = False
        """The barrier has the write lock."""
        self._last_passive = 0
        self._force_delay, self._force_at = 0.0, 0.0
        self._quiet_at = (-1, 0)
        self._checkpoint_at = 0.0
        self.checkpoint_error: DatabaseStateError | None = None
        """Why checkpoints fail at present, so that the WAL grows; None when they do not."""
        self.resets = self.forced = self.peak_frames = 0
        self.salts = b""
        self.frame = 0
        self.captured = 0
        """Frames given to the sink so far."""
        self.begin_index = self._begin_first()

    def _begin_first(self) -> WalIndex:
        for _ in range(_HAND_OVER_TRIES):
            before = self._look()
            self._held.begin_read()
            if self._look() == before:
                self._became(before)
                self.salts, self.frame = before.salts, before.mx_frame
                self._seen = before
                return before
            self._held.rollback()
        raise SourceBusyError("too busy to begin", path=self._source.path)

    def _became(self, index: WalIndex) -> None:
        """Note which lock the held reader has, from the header at which it began."""
        self._held_from = index
        self.mark = not index.fully_backfilled
        self._confirmed = self.mark

    def _look(self) -> WalIndex:
        """The wal-index header, repaired first if a writer died while writing it."""
        try:
            return self._source.header()
        except SourceBusyError:
            # Any read transaction makes SQLite recover the wal-index.
            self._source.checkpointer.execute("select 1 from sqlite_master limit 1")
            return self._source.header()

    # -- capture ---------------------------------------------------------------------

    def capture(self) -> bool:
        """Give new committed frames to the sink. True when there were any."""
        index = self._seen = self._look()
        self.peak_frames = max(self.peak_frames, index.mx_frame)
        if index.salts != self.salts:
            self._follow_reset(index)
        if index.mx_frame == self.frame:
            return False
        if index.mx_frame < self.frame:
            raise ContinuityLostError(self._source.path, "committed frames vanished")
        self._sink(index, self.frame + 1)
        self.captured += index.mx_frame - self.frame
        self.frame = index.mx_frame
        return True

    def _follow_reset(self, index: WalIndex) -> None:
        if self.mark:
            raise ContinuityLostError(self._source.path, "the WAL was reset")
        # mxFrame 0 with an old nBackfill is a reset seen half-way.
        if index.mx_frame and index.n_backfill:
            raise ContinuityLostError(self._source.path, "a new WAL was backfilled")
        self.resets += 1
        self._overtaken, self._refused = True, None
        self.salts, self.frame = index.salts, 0
        self._last_passive = 0

    def hand_over(self, tries: int = _HAND_OVER_TRIES) -> bool:
        """Begin the other reader, learn what it holds, and only then end the first.

        False, with the first lock still held, when the database was too busy.
        """
        for _ in range(tries):
            if self._overtaken and not self._outlive_checkpointers():
                return False
            before = self._look()
            try:
                self._other.begin_read()
            except SourceBusyError:
                return False
            if self._is_snapshot(before):
                self._held.rollback()
                self._held, self._other = self._other, self._held
                self._became(before)
                return True
            self._other.rollback()
            self.capture()
        return False

    def _outlive_checkpointers(self) -> bool:
        """Have the checkpoint lock once, so that none goes on with the header of before.

        The checkpoint itself does nothing, since READ_LOCK(0) is held; that it was not
        refused as busy says that it had the lock.
        """
        try:
            with self._checkpoints.counted("passive"):
                for _ in range(_CHECKPOINT_TRIES):
                    if self._source.checkpointer.checkpoint("passive"):
                        self._overtaken = False
                        return True
                    self._sleep(0)
        except SourceBusyError:
            raise
        except DatabaseStateError as error:
            self.checkpoint_error = error
            return False
        self._overtaken = not self._is_waited_for()
        return not self._overtaken

    def _is_waited_for(self) -> bool:
        """Whether the checkpointer that has the lock waits for our READ_LOCK(0)."""
        if self._writing:
            return False  # nobody else has the write lock
        index, now = self._look(), self._clock()
        if self._refused is None or self._refused[0] != index:
            self._refused = index, now
        if now - self._refused[1] < _WAITS_AFTER:
            return False
        try:
            self._source.barrier.begin_write()
        except SourceBusyError:
            return True
        self._source.barrier.rollback()
        return False

    def _is_snapshot(self, before: WalIndex) -> bool:
        """True when the reader just begun stands at ``before``, and may be relied on.

        Not when a commit came in between: which lock it got is then unknown. Nor when it
        got READ_LOCK(0) with frames not captured yet, since that lets them go. Nor when
        the WAL was reset and capture does not know it yet: checkpointers come first.
        """
        try:
            after = self._look()
        except BaseException:
            self._other.rollback()
            raise
        if before != after or after.salts != self.salts:
            return False
        return after.mx_frame == self.frame or not after.fully_backfilled

    def step(self) -> bool:
        """Look once and do what is due. True when there were new frames."""
        self._end_view()
        new = self.capture()
        behind = self._behind()
        if behind or (self.mark and self._seen.fully_backfilled):
            # Keeps the mark fresh, and lets the application's own RESTART and TRUNCATE
            # checkpoints through. Under a busy writer most tries are in vain.
            once = new and behind < self._limits.soft
            self.hand_over(1 if once else _HAND_OVER_TRIES)
        elif not self._confirmed:
            self._confirmed = self.hand_over()
        if self._view is None and self._clock() >= self._checkpoint_at:
            self._try_checkpoint(new)
        return new

    def _behind(self) -> int:
        """Captured frames that came after the held reader began."""
        if self.salts != self._held_from.salts:
            return self.frame
        return self.frame - self._held_from.mx_frame

    # -- checkpoints -----------------------------------------------------------------

    def _try_checkpoint(self, new: bool) -> None:
        """Checkpoint; that it fails (a full disk, for one) must not end capture."""
        try:
            self._checkpoint(new)
        except (SourceBusyError, ContinuityLostError):
            raise
        except DatabaseStateError as error:
            self.checkpoint_error = error
            self._checkpoint_at = self._clock() + _CHECKPOINT_PAUSE

    def _checkpoint(self, new: bool) -> None:
        index = self._seen
        if not self.mark:
            if not new:
                self._truncate(index)
            return
        if not wants_passive(self._limits, index, self._last_passive):
            return
        self._last_passive = index.mx_frame
        if self._behind():
            self.hand_over()
        self._run_checkpoint("passive")
        self.checkpoint_error = None
        full = self._look().fully_backfilled
        if full:
            self.capture()
            self.hand_over()
        # A writer whose next transaction began before we were done goes on with this
        # WAL although it is backfilled, and so on: for ever, when it makes no pause.
        most = self._limits.stuck if full else self._limits.force
        if index.mx_frame >= most and self._clock() >= self._force_at:
            # What is left to be backfilled is little, so the lock is held shortly.
            self._force()

    def _run_checkpoint(self, mode: str) -> None:
        with self._checkpoints.counted(mode):
            self._source.checkpointer.checkpoint(mode)

    def _force(self) -> None:
        """A busy writer never leaves nBackfill == mxFrame: stop it for a moment."""
        if not self._take_write_lock():
            self._back_off()
            return
        self.forced += 1
        try:
            self.capture()
            self.hand_over()
            deadline = self._clock() + _FORCE_HOLD
            while not self._look().fully_backfilled:
                # The application may hold the checkpoint lock for a moment.
                self._run_checkpoint("passive")
                if self._clock() > deadline:
                    break
            self.hand_over()
        finally:
            self._drop_write_lock()
        if self.mark:
            # Some reader of the application stands in the way, perhaps for long.
            self._back_off()
        else:
            self._force_delay = 0.0

    def _take_write_lock(self) -> bool:
        began = self._clock()
        while True:
            try:
                self._source.barrier.begin_write()
                self._writing = True
                return True
            except SourceBusyError:
                waited = self._clock() - began
                if waited > _FORCE_WAIT:
                    return False
                # A busy writer leaves gaps of microseconds, one of long transactions
                # of little more.
                self._sleep(0 if waited < _FORCE_SPIN else _FORCE_PAUSE)

    def _drop_write_lock(self) -> None:
        self._writing = False
        self._source.barrier.rollback()

    def _back_off(self) -> None:
        least, most = _FORCE_BACKOFF
        self._force_delay = min(most, max(least, 2 * self._force_delay))
        self._force_at = self._clock() + self._force_delay

    def _truncate(self, index: WalIndex) -> None:
        """Shrink a ``-wal`` file that grew large, once per quiet moment."""
        moment = (self.resets, self.frame)
        if self._quiet_at == moment or not self._confirmed:
            return
        if index.fully_backfilled:
            self._quiet_at = moment
            if self._source.wal_file_size() > self._limits.truncate:
                self._run_checkpoint("truncate")

    # -- views -----------------------------------------------------------------------

    def view(self, capture_commit: Callable[[], int]) -> View:
        """Pin the captured state for reading; one at a time.

        ``capture_commit()`` is the size in pages of the state captured so far.

        Raises:
            SourceBusyError: a view is out already, or writers left no gap.
        """
        if self._view is not None:
            raise SourceBusyError("a view is being read", path=self._source.path)
        if not self._pin_viewer() and not self._pin_viewer_behind_barrier():
            raise SourceBusyError("too busy for a view", path=self._source.path)
        self._view = View(self._source, self._view_index, capture_commit())
        return self._view

    def _pin_viewer(self) -> bool:
        viewer = self._source.viewer
        for _ in range(_HAND_OVER_TRIES):
            self.capture()
            before = self._look()
            if (before.salts, before.mx_frame) != (self.salts, self.frame):
                continue
            viewer.begin_read()
            try:
                settled = self._look() == before
            except BaseException:
                viewer.rollback()
                raise
            if settled:
                self._view_index = before
                return True
            viewer.rollback()
        return False

    def _pin_viewer_behind_barrier(self) -> bool:
        if not self._take_write_lock():
            return False
        try:
            return self._pin_viewer()
        finally:
            self._drop_write_lock()

    @property
    def viewing(self) -> bool:
        """True while a view holds the WAL."""
        self._end_view()
        return self._view is not None

    def abandon(self) -> None:
        """Say, before the locks go, that a view still out must not be believed."""
        if self._view is not None:
            self._view.valid = False

    def _end_view(self) -> None:
        if self._view is not None and self._view.released.is_set():
            self._view = None
            self._source.viewer.rollback()
