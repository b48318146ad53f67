"""What a checkpoint does: the frames of a WAL, copied into the database file.

A TRUNCATE checkpoint of SQLite writes the newest frame of each page, up to the last frame
that commits, and gives the file the size which that one states. Frames behind it belong to
a transaction that never ended, and count for nothing.

Here frames come as a stream and are written as they come, the newest copy of a page last.
To hold a transaction back until it commits would take memory without bound. So a WAL that
does not end with a commit has been written too far: this is found at its end, and whoever
drives this begins again and stops in time (``UnfinishedError``). That is rare: Litestream 0.3
cuts a transaction only if it reads while it writes, and then only the last one counts.

What bounds a size that a frame states: SQLite does not write pages that a transaction
adds and frees again (here they are zeros, as after a checkpoint), but it writes the pages
of the freelist that name them, four bytes each. So a frame makes a database grow by a
quarter of its bytes in pages, at most.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlitereplica.errors import InvalidFileError
from sqlitereplica.restore.output import Output
from sqlitereplica.sqlite.walstream import WalFrames

__all__ = ["Backfill", "UnfinishedError"]


class UnfinishedError(Exception):
    """A WAL does not end with a commit: only its first ``frames`` frames count."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        self.frames = frames


class Backfill:
    """One WAL on its way into a database file.

    ``pgnos`` has the pages of all frames so far, if that was asked for.
    """

    def __init__(
        self,
        output: Output,
        *,
        page_size: int,
        commit: int,
        most_frames: int,
        limit: int | None = None,
        remember: bool = False,
    ) -> None:
        """Begin. The file has ``commit`` pages.

        The WAL has ``most_frames`` at most, of which ``limit`` count. ``remember`` is
        whether to keep ``pgnos``, which takes memory for each page.
        """
        self.pgnos: set[int] = set()
        self._output = output
        self._page_size = page_size
        self._before = self._commit = commit
        self._growth = page_size // 4  # by a frame
        self._last_pgno = commit + most_frames * self._growth
        self._limit = limit
        self._remember = remember
        self._frames = 0
        self._committed = 0  # frames up to the last commit

    def add(self, frames: WalFrames) -> None:
        """Write the next frames.

        Raises:
            InvalidFileError: A page lies where it cannot.
        """
        count = len(frames.pgnos)
        if self._limit is not None:
            count = max(0, min(count, self._limit - self._frames))
        newest = {pgno: number for number, pgno in enumerate(frames.pgnos[:count])}
        if newest and max(newest) > self._last_pgno:
            raise InvalidFileError(
                f"a WAL frame has page {max(newest)}, but there can be no more than"
                f" {self._last_pgno} pages",
                kind="wal-pgno",
            )
        if self._remember:
            self.pgnos.update(newest)
        for run in _runs(sorted(newest)):
            pages = [frames.page(newest[pgno]) for pgno in run]
            self._output.write((run.start - 1) * self._page_size, pages)
        for number in range(count - 1, -1, -1):
            if frames.commits[number]:
                self._commit = frames.commits[number]
                self._committed = self._frames + number + 1
                break
        self._frames += count

    def finish(self) -> int:
        """Give the file its size and return that, in pages.

        Raises:
            UnfinishedError: Frames were written that do not count.
            InvalidFileError: That is larger than the frames can make it.
        """
        if self._committed < self._frames:
            raise UnfinishedError(self._committed)
        if self._commit > self._before + self._frames * self._growth:
            raise InvalidFileError(
                f"{self._frames} WAL frames cannot make {self._commit} pages of"
                f" {self._before}",
                kind="commit",
            )
        self._output.resize(self._commit * self._page_size)
        return self._commit


def _runs(pgnos: list[int]) -> Iterator[range]:
    """Yield the page numbers that follow each other."""
    run = range(0)
    for pgno in pgnos:
        if pgno != run.stop and run:
            yield run
            run = range(0)
        run = range(run.start if run else pgno, pgno + 1)
    if run:
        yield run
