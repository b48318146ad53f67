"""Bring a large file to disk while it is still being written.

An fsync at the end of a gigabyte waits for all of it; begun behind the writer, most of it
is on disk by then. Only an earlier start of what is done anyway: the file is durable when
``finish`` returns, and if any part of it failed it raises, for a failed fsync is never tried
again on the same file.
"""

from __future__ import annotations

import os
import threading

__all__ = ["Writeback"]

_EVERY = 32 << 20
_sync_data = getattr(os, "fdatasync", os.fsync)


class Writeback:
    """Follows the writer of one open file. Belongs to the writer's thread."""

    def __init__(self, fd: int, every: int = _EVERY) -> None:
        """Begin; a file of less than ``every`` bytes is only fsynced at its end."""
        self._fd, self._every = fd, every
        self._unsynced = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def wrote(self, size: int) -> None:
        """``size`` more bytes were written."""
        self._unsynced += size
        if self._unsynced < self._every or self._is_busy():
            return
        self._unsynced = 0
        thread = threading.Thread(
            target=self._sync, name="sqlitereplica-writeback", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter is ending: all is left for the end
        self._thread = thread

    def finish(self) -> None:
        """Return when the file is on disk.

        Raises:
            OSError: some of it is not; the file must not be used.
        """
        self.wait()
        if self._error is not None:
            raise self._error
        os.fsync(self._fd)

    def wait(self) -> None:
        """Return when the descriptor is not in use any more and may be closed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _sync(self) -> None:
        try:
            _sync_data(self._fd)
        except OSError as error:
            self._error = error
