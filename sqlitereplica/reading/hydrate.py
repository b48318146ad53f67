"""A local copy of the state, restored in the background while it is read from the replica.

When it is there, the pages of that state come from the copy, and only those that changed
since are fetched. The copy is made by ``restore``, so all of its checksums are verified. It
may be kept: the next one then only fetches what differs.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from fsspec.callbacks import Callback

from sqlitereplica.errors import InvalidFileError, SQLiteReplicaError
from sqlitereplica.ltx import Header
from sqlitereplica.restore import RestoreResult, restore
from sqlitereplica.sqlite import descriptors
from sqlitereplica.store import LTXStore

__all__ = ["Hydration", "LocalCopy"]

logger = logging.getLogger(__name__)

_PATIENCE = 30.0

State = Literal["restoring", "complete", "failed"]


class LocalCopy:
    """A state in a local file that nobody changes.

    One that is kept may be opened by the application, whose locks no close of ours drops.
    """

    def __init__(self, result: RestoreResult) -> None:
        """Open the database that was restored."""
        assert result.txid and result.timestamp and result.page_size and result.commit
        self.header = Header(
            page_size=result.page_size,
            commit=result.commit,
            min_txid=1,
            max_txid=result.txid,
            timestamp=round(result.timestamp.timestamp() * 1000),
            post_checksum=result.checksum or 0,
        )
        self.pgnos: Collection[int] = range(1, result.commit + 1)
        self._fd, self._key = descriptors.acquire(os.fspath(result.path))

    def read(self, pgno: int) -> bytes:
        """Return a page."""
        size = self.header.page_size
        page = os.pread(self._fd, size, (pgno - 1) * size)
        if len(page) < size:
            raise InvalidFileError("the local copy was cut short", kind="truncated")
        return page

    def close(self) -> None:
        """Let the file go."""
        descriptors.release(self._key)


class Hydration:
    """Makes the copy, in a thread of its own. ``state`` says how far it is."""

    def __init__(
        self, store: LTXStore, txid: int, path: str | os.PathLike[str] | None
    ) -> None:
        """Begin. Without a path the copy is temporary."""
        self.state: State = "restoring"
        self.copy: LocalCopy | None = None
        self._store, self._txid = store, txid
        self._folder = None
        if path is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sqlitereplica-")
            path = Path(self._folder.name, "copy.db")
        self.path = Path(path)
        self._progress = _Progress()
        name = "replica-hydrate"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def percent(self) -> int:
        """How much of it is there, 0..100."""
        return 100 if self.state == "complete" else self._progress.percent

    def close(self) -> None:
        """Give up if it is not there yet; delete it if it is temporary."""
        self._progress.stop = True
        self._thread.join(_PATIENCE)
        if self._folder is not None:
            self._folder.cleanup()
        if self.copy is not None:
            self.copy.close()

    def _run(self) -> None:
        try:
            result = restore(
                self._store,
                self.path,
                txid=self._txid,
                if_exists="replace",
                verify=None,
                callback=self._progress,
            )
            self.copy = LocalCopy(result)
            self.state = "complete"
        except _StoppedError:
            self.state = "failed"
        except (SQLiteReplicaError, OSError) as error:
            logger.warning(
                "%s: no local copy was made, it is read in place: %s",
                self._store.name,
                error,
                extra={"action": "read-hydrate", "replica": self._store.name},
            )
            self.state = "failed"


class _StoppedError(Exception):
    """The copy is not wanted any more."""


class _Progress(Callback):  # type: ignore[misc]
    """Counts the bytes of the restore, and ends it when it is told to."""

    stop = False

    def relative_update(self, inc: int = 1) -> None:
        """Count a piece that was fetched."""
        if self.stop:
            raise _StoppedError
        super().relative_update(inc)

    @property
    def percent(self) -> int:
        """What was fetched of what there is to fetch, 0..99."""
        return min(99, int(100 * self.value / self.size)) if self.size else 0
