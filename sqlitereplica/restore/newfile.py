"""The beginning of a followed file: made beside its name, whole, and then given it."""

from __future__ import annotations

from collections.abc import Callable

from sqlitereplica.errors import ChecksumMismatchError
from sqlitereplica.ltx import database_checksum, lock_pgno, page_checksum
from sqlitereplica.restore.held import (
    Goal,
    Held,
    HeldFile,
    as_plain,
    cookie_of,
    head_of,
)
from sqlitereplica.restore.pages import StoredPages
from sqlitereplica.restore.target import Scratch, Target

__all__ = ["create_live", "stored_pages"]

_FIRST_COUNTER = 1


def stored_pages(scratch: Scratch, goal: Goal) -> StoredPages:
    """The pages of a database in a temporary file."""
    return StoredPages(
        scratch,
        page_size=goal.page_size,
        commit=goal.commit,
        lock=lock_pgno(goal.page_size),
    )


def create_live(
    path: str,
    notes: HeldFile,
    make: Callable[[Scratch], Goal],
    source: bytes = bytes(8),
    mode: int = 0o666,
) -> Held:
    """Make the file; ``make`` writes all its pages and returns the state that they are.

    ``mode`` are its permissions, less the umask.

    The state is noted first: a file without a note would be a stranger's.

    Raises:
        TargetExistsError: Something is at the path.
        ChecksumMismatchError: The pages are not that state.
        OSError: It cannot be written.
    """
    target = Target(path, "error")
    target.is_kept()
    with target.scratch(mode) as scratch:
        goal = make(scratch)
        pages = stored_pages(scratch, goal)
        checksum = database_checksum(
            page_checksum(pgno, pages.page(pgno)) for pgno in pages.pgnos()
        )
        if goal.checksum not in (0, checksum):
            raise ChecksumMismatchError(
                "database", expected=goal.checksum, actual=checksum
            )
        first = pages.page(1)
        cookie = cookie_of(first)
        held = Held(
            txid=goal.txid,
            timestamp=goal.timestamp,
            page_size=goal.page_size,
            commit=goal.commit,
            checksum=checksum,
            counter=_FIRST_COUNTER,
            head=head_of(first),
            cookie=cookie,
            source=source,
        )
        scratch.write(0, [as_plain(first, goal.commit, _FIRST_COUNTER, cookie)])
        scratch.finish(goal.commit * goal.page_size)
        notes.note(held)
        target.publish(scratch)
        notes.arrived()
    return held
