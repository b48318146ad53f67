"""Whether a snapshot has parts of transactions that come later than a state made of it.

A snapshot is the database file, read while its WAL grew. Checkpoints may have brought some
of that WAL into it: all pages of which the last frame lies before a certain commit, k. The
state of an earlier commit, e, is made by writing the frames up to e over the snapshot. If
k is later than e, that goes wrong: pages with frames up to e are as of e, and others as
of k.

This is to be seen by the frames behind e. Take the last transaction that may be in the
snapshot: some of its pages are there as it left them, and none speaks against it. (A page
does that differs, unless it was written over since: by the frames up to e, or by the
snapshot having, or leaving out for, a later frame.) Were the transactions up to that one
in the snapshot, what was made is right only if they change nothing in it any more: then it
is the state of k, whole, and that was committed before the snapshot was stored.

Pages that transactions rewrite without a change look the same, so a right state may be
taken for a wrong one, if such a transaction has no other page. The reverse would need a
checkpoint that was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sqlitereplica.sqlite.walstream import WalFrames

__all__ = ["Ahead"]


class _Suspect(NamedTuple):
    """A transaction that may be in the snapshot."""

    number: int
    unlike: set[int]
    """Its pages that differ, and were not written over up to e."""
    is_mixed: bool
    """Whether it, and those before, change what was made."""


class Ahead:
    """Compares what was made of a snapshot with the frames that follow."""

    def __init__(
        self, read: Callable[[int], bytes], commit: int, written: set[int]
    ) -> None:
        """Begin with a database of ``commit`` pages.

        ``read`` returns one by its number; ``written`` are those that do not come from
        the snapshot.
        """
        self._read = read
        self._commit = commit
        self._written = written
        self._number = 0
        self._last: dict[int, int] = {}  # the last transaction of a page
        self._pages: dict[int, bool] = {}  # of this transaction: are they the same?
        self._changed: set[int] = set()  # pages that the transactions so far change
        self._suspects: list[_Suspect] = []

    def add(self, frames: WalFrames) -> None:
        """Take in frames."""
        for number, pgno in enumerate(frames.pgnos):
            known = pgno <= self._commit
            same = known and self._read(pgno) == frames.page(number)
            if same:
                self._changed.discard(pgno)
            else:
                self._changed.add(pgno)
            self._last[pgno] = self._number
            if known and pgno not in self._written:
                self._pages[pgno] = same
            if frames.commits[number]:
                self._end_transaction()

    def is_mixed(self) -> bool:
        """Tell whether what was made may be of two times."""
        for number, unlike, is_mixed in reversed(self._suspects):
            if all(self._last[pgno] > number for pgno in unlike):
                return is_mixed
        return False

    def _end_transaction(self) -> None:
        if any(self._pages.values()):
            unlike = {pgno for pgno, same in self._pages.items() if not same}
            suspect = _Suspect(self._number, unlike, bool(self._changed))
            self._suspects.append(suspect)
        self._pages = {}
        self._number += 1
