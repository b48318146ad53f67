"""A database file that is read, by any SQLite in any process, while we replace its pages.

Theory. The file is kept in rollback (DELETE) journal mode. To bring it from one state to the
next we do what SQLite does, in its order:

1. ``BEGIN EXCLUSIVE`` on a connection of our own takes SQLite's exclusive lock and writes
   nothing. (That SQLite is the one that the application uses: design section 3.)
2. Read the old content of the pages that will change or be cut off, into a journal in
   SQLite's format under another name. Compute the checksum of the database as it will be
   and compare it with the one that was replicated: nothing is touched if it is another.
3. Sync the journal, give it the name by which SQLite knows it, sync the folder. Then note the
   next state beside the file (``held.py``).
4. Write the pages, cut or extend the file, sync it.
5. Delete the journal: that is the commit. ``ROLLBACK`` ends the lock.

Invariants. Killed before 3, nothing has happened. Killed after it and before 5, the journal
is hot and whoever opens the file next, we or a reader, puts the old state back. The
journal gets its name only when all of it is on disk, so that no power loss shows half of
it. A power loss may also bring back the journal of the step before, which is deleted without
a sync, until the folder is synced in 3: only then the note on the state before that one is
overwritten. Whatever fails in 4 is left to that very mechanism; a sync that failed is not
tried again.

Readers notice: page 1 has another change counter after each step. They are waited for, not
stopped: SQLite's lock that keeps new ones out while the present ones finish is held for a
moment at a time only, and in between they get in. The moments grow where readers that
overlap would keep us out for ever. They begin short, and end at ``patience``, as no other
call of ours into SQLite, and no fork, happens meanwhile (``sqlite/forking.py``).

A fork in the middle of a step does no harm: the child closes the connection, which changes
nothing in the file, and of the journal nothing waits in a buffer that it could write again.
"""

from __future__ import annotations

import os
import secrets
import stat
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import chain, takewhile
from pathlib import Path

from sqlitereplica.errors import (
    ChecksumMismatchError,
    DatabaseStateError,
    InvalidFileError,
)
from sqlitereplica.ltx import (
    EMPTY_CHECKSUM,
    lock_pgno,
    page_checksum,
    snapshot_page_count,
)
from sqlitereplica.restore.aside import sync_directory
from sqlitereplica.restore.held import (
    Goal,
    Held,
    HeldFile,
    as_plain,
    cookie_of,
    counter_of,
    head_of,
    next_cookie,
    with_head,
)
from sqlitereplica.restore.pages import Pages, write_at
from sqlitereplica.sqlite import (
    Connect,
    SourceBusyError,
    SourceConnection,
    descriptors,
    hazards,
)
from sqlitereplica.sqlite.journal import (
    JOURNAL_HEADER_SIZE,
    journal_header,
    journal_record,
)

__all__ = ["LiveFile"]

_SHORTEST = 0.02
_RUN_SIZE = 1 << 20
_MOST_STEP = 1 << 16


class LiveFile:
    """The file and who it is known by; made, used and closed in one thread."""

    def __init__(
        self,
        path: str,
        connect: Connect,
        notes: HeldFile,
        *,
        copy: str,
        reclaim: bool = False,
        patience: float = 0.5,
    ) -> None:
        """Open a database that is there, after SQLite has put right what a crash left.

        ``reclaim``: one that somebody switched to WAL is switched back.

        Raises:
            MixedSQLiteCopiesError: Another copy of SQLite has the file open here.
            SourceBusyError: A lock is taken; try again.
            DatabaseStateError: It is no database, or ``connect`` is no plain factory.
        """
        self.path = path
        self._notes = notes
        self._patience, self._longest = _SHORTEST, patience
        self._guard: hazards.Guard | None = None
        self._key: descriptors.FileId | None = None
        hazards.check_before_open(path, copy)
        self._connection = SourceConnection(connect, path)
        try:
            self._connection.begin_read()
            self._connection.rollback()
            self._check_modes(reclaim)
            self._fd, self._key = descriptors.acquire_writable(path)
            self._guard = hazards.guard(path, self._key, copy)
            self.held = notes.find(self._counter())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go."""
        if self._guard is not None:
            hazards.unguard(self._guard)
            self._guard = None
        try:
            self._connection.close()
        finally:
            if self._key is not None:
                descriptors.release(self._key)
                self._key = None

    def _check_modes(self, reclaim: bool) -> None:
        if self._connection.execute("pragma locking_mode")[0][0] != "normal":
            raise DatabaseStateError(
                f"{self.path}: connect= sets locking_mode=EXCLUSIVE, which would keep"
                " readers out: pass a factory that does not",
                path=self.path,
                kind="exclusive",
            )
        mode = self._connection.execute("pragma journal_mode")[0][0]
        if mode == "wal" and reclaim:
            mode = self._connection.execute("pragma journal_mode=delete")[0][0]
        if mode == "wal":
            raise DatabaseStateError(
                f"{self.path} was switched to WAL mode by somebody else: it is a copy"
                " that only its follower writes; do not set the journal mode in"
                " connections that read it",
                path=self.path,
                kind="written",
            )

    # -- looking ---------------------------------------------------------------------

    def is_there(self) -> bool:
        """Whether the file still has its name."""
        return descriptors.file_id(self.path) == self._key

    def is_as_held(self) -> bool:
        """Whether nobody else has written to the file, as far as page 1 tells."""
        held = self.held
        return (
            held is not None
            and self._counter() == held.counter
            and os.fstat(self._fd).st_size == held.commit * held.page_size
        )

    def _counter(self) -> int | None:
        return counter_of(os.pread(self._fd, 100, 0))

    def page_sums(self) -> array[int]:
        """The checksums of all pages as they were replicated, 0 for the lock page."""
        held = self.held
        assert held is not None
        lock = lock_pgno(held.page_size)
        return array(
            "Q",
            (
                0 if pgno == lock else page_checksum(pgno, self._read(pgno, held))
                for pgno in range(1, held.commit + 1)
            ),
        )

    def first_page(self) -> bytes:
        """Page 1, as it was replicated."""
        assert self.held is not None
        return self._read(1, self.held)

    def _read(self, pgno: int, held: Held) -> bytes:
        page = os.pread(self._fd, held.page_size, (pgno - 1) * held.page_size)
        if len(page) != held.page_size:
            raise self._written("it has been cut")
        return with_head(page, held.head) if pgno == 1 else page

    def _written(self, how: str) -> DatabaseStateError:
        return DatabaseStateError(
            f"{self.path} was written to by somebody else ({how}); it is a copy that"
            " only its follower writes",
            path=self.path,
            kind="written",
        )

    # -- giving it away --------------------------------------------------------------

    def give_away(self) -> bool:
        """Make it a database in WAL mode that anybody may write to.

        The notes go first: killed in between, it is a database that no follower of ours
        touches again. False: readers kept it from the switch, which a Replicator makes.
        """
        self._notes.forget()
        try:
            self._connection.execute("pragma journal_mode=wal")
        except SourceBusyError:
            return False
        return True

    # -- changing --------------------------------------------------------------------

    def apply(self, pages: Pages, goal: Goal, source: bytes = bytes(8)) -> Held:
        """Bring the file to a state, from the one that it holds; durable on return.

        ``pages`` have all by which the states differ, and may have others.

        Raises:
            SourceBusyError: Readers are in the way; try again.
            ChecksumMismatchError: The pages do not lead to that state; nothing was done.
            InvalidFileError: Pages are missing; nothing was done.
            DatabaseStateError: Somebody else has written to the file.
            OSError: It cannot be written; it is as before.
        """
        with self._alone():
            old = self.held
            if old is None or not self.is_as_held():
                raise self._written("its change counter is another one")
            return self._step(_Change(self._read, pages, old, goal), source)

    def replace(self, pages: Pages, goal: Goal, source: bytes = bytes(8)) -> Held:
        """Bring the file to a state, whatever is in it; ``pages`` have all of it.

        Raises as ``apply``.
        """
        with self._alone():
            old = self.held if self.is_as_held() else None
            change = _Change(
                self._read, pages, old or self._unknown(), goal, whole=True
            )
            return self._step(change, source)

    def _unknown(self) -> Held:
        """What there is to say of a database that is no state of ours."""
        head = os.pread(self._fd, 100, 0)
        size = self._connection.execute("pragma page_size")[0][0]
        return Held(
            txid=0,
            timestamp=0,
            page_size=size,
            commit=os.fstat(self._fd).st_size // size,
            counter=int.from_bytes(head[24:28], "big"),
            head=head_of(head),
            cookie=cookie_of(head),
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Have nobody read or write; what was begun and failed is undone by SQLite."""
        if self._guard is not None:
            self._guard.check()
        if not self.is_there():
            raise DatabaseStateError(
                f"{self.path} was replaced or removed", path=self.path, kind="replaced"
            )
        self._begin()
        try:
            yield
        except BaseException:
            self._connection.rollback()
            self._undo()
            raise
        self._connection.rollback()

    def _begin(self) -> None:
        """Take SQLite's exclusive lock; longer each time that it could not be had."""
        milliseconds = round(self._patience * 1000)
        self._connection.execute(f"pragma busy_timeout={milliseconds}")
        self._patience = min(self._longest, 2 * self._patience)
        self._connection.execute("begin exclusive")
        self._patience = _SHORTEST

    def _undo(self) -> None:
        """Have SQLite put the old state back, if the journal has its name already."""
        try:
            self._connection.execute("select 1 from sqlite_master limit 1")
        except SourceBusyError:
            pass  # whoever is in the way has come by the journal as well
        self.held = self._notes.find(self._counter())

    def _step(self, change: _Change, source: bytes) -> Held:
        journal = self.path + "-journal"
        temporary = journal + ".tmp"
        try:
            following = change.save(temporary, source, os.fstat(self._fd))
            os.rename(temporary, journal)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(os.path.dirname(self.path))
        self._notes.note(following)
        change.write(self._fd)
        os.unlink(journal)
        self._notes.arrived()
        self.held = following
        return following


class _Change:
    """One step of the file: what it takes away and what it brings.

    The old state is taken for none (``whole``) when it is not known, or has pages of
    another size; the checksum is then that of the new pages alone.
    """

    def __init__(
        self,
        read: Callable[[int, Held], bytes],
        pages: Pages,
        old: Held,
        goal: Goal,
        *,
        whole: bool = False,
    ) -> None:
        self._read, self._pages = read, pages
        self._old, self._goal = old, goal
        resized = old.page_size != goal.page_size
        self._whole = whole or resized
        self._kept = 0 if resized else min(old.commit, goal.commit)
        self._counter = _after(old.counter)
        self._written = array("I")
        self._first, self._cookie = b"", 0
        self._brings_first = False
        self._sum = 0 if self._whole else old.checksum

    def save(self, path: str, source: bytes, like: os.stat_result) -> Held:
        """Write the journal, durably; return the state that comes next.

        Who may read and write the file, ``like`` that, may do so with its journal, and
        nobody else: it has pages of it. Raises as ``LiveFile.apply``.
        """
        old, goal = self._old, self._goal
        nonce, records = secrets.randbits(32), 0
        with _new_file(path, like) as journal:
            at, waiting = JOURNAL_HEADER_SIZE, bytearray()
            for pgno, page in chain(self._replaced(), self._cut_off()):
                waiting += journal_record(pgno, page, nonce)
                records += 1
                if len(waiting) >= _RUN_SIZE:
                    at += write_at(journal.fileno(), waiting, at)
                    waiting = bytearray()
            write_at(journal.fileno(), waiting, at)
            checksum = EMPTY_CHECKSUM | self._sum
            if goal.checksum not in (0, checksum):
                raise ChecksumMismatchError(
                    "database", expected=goal.checksum, actual=checksum
                )
            header = journal_header(records, nonce, old.commit, old.page_size)
            write_at(journal.fileno(), header, 0)
            os.fsync(journal.fileno())
        return Held(
            txid=goal.txid,
            timestamp=goal.timestamp,
            page_size=goal.page_size,
            commit=goal.commit,
            checksum=checksum,
            counter=self._counter,
            head=head_of(self._first),
            cookie=self._cookie,
            source=source,
        )

    def _replaced(self) -> Iterator[tuple[int, bytes]]:
        """Yield the old pages, as they are in the file, that get another content."""
        kept, whole = self._kept, self._whole
        brought = 0
        for pgno in self._pgnos():
            old = self._read(pgno, self._old) if pgno <= kept else None
            new = self._page(pgno, old)
            brought += whole or pgno > kept
            self._sum ^= page_checksum(pgno, new)
            if old is not None and not whole:
                self._sum ^= page_checksum(pgno, old)
            if pgno == 1:
                known = old if self._old.txid else None
                self._first, self._cookie = new, next_cookie(self._old, known, new)
            elif new == old:
                continue
            self._written.append(pgno)
            if old is not None:
                yield pgno, self._raw(pgno, old)
        self._check_all(brought)

    def _pgnos(self) -> Iterator[int]:
        """The pages to look at: those that are brought, and in any case page 1."""
        found = takewhile(lambda p: p <= self._goal.commit, self._pages.pgnos())
        first = next(found, 0)
        self._brings_first = first == 1
        return chain([1] if first < 2 else [1, first], found)

    def _page(self, pgno: int, old: bytes | None) -> bytes:
        if pgno > 1 or self._brings_first:
            return self._pages.page(pgno)
        if old is None or self._whole:
            raise InvalidFileError("page 1 is missing", kind="incomplete")
        return old

    def _check_all(self, brought: int) -> None:
        """Raise InvalidFileError unless the pages that nothing else has were brought."""
        size, commit = self._goal.page_size, self._goal.commit
        kept = 0 if self._whole else self._kept
        expected = snapshot_page_count(size, commit) - snapshot_page_count(size, kept)
        if brought != expected:
            raise InvalidFileError(
                f"{brought} of {expected} new pages are there", kind="incomplete"
            )

    def _cut_off(self) -> Iterator[tuple[int, bytes]]:
        """Yield the old pages behind the end of the new state."""
        old = self._old
        lock = lock_pgno(old.page_size)
        for pgno in range(self._kept + 1, old.commit + 1):
            if pgno == lock:
                continue
            page = self._read(pgno, old)
            if not self._whole:
                self._sum ^= page_checksum(pgno, page)
            yield pgno, self._raw(pgno, page)

    def _raw(self, pgno: int, page: bytes) -> bytes:
        """An old page as it is in the file."""
        old = self._old
        if pgno != 1:
            return page
        if not old.txid:
            return page  # of an unknown state, so nothing in it was taken back
        return as_plain(page, old.commit, old.counter, old.cookie)

    def write(self, fd: int) -> None:
        """Write the pages and give the file its size, durably."""
        size, commit = self._goal.page_size, self._goal.commit
        run: list[bytes] = []
        first = 0
        for pgno in self._written:
            if run and (pgno != first + len(run) or len(run) * size >= _RUN_SIZE):
                write_at(fd, b"".join(run), (first - 1) * size)
                run = []
            if not run:
                first = pgno
            run.append(self._new(pgno))
        write_at(fd, b"".join(run), (first - 1) * size)
        if os.fstat(fd).st_size != commit * size:
            os.ftruncate(fd, commit * size)
        os.fsync(fd)

    def _new(self, pgno: int) -> bytes:
        if pgno == 1:
            commit = self._goal.commit
            return as_plain(self._first, commit, self._counter, self._cookie)
        return self._pages.page(pgno)


def _new_file(path: str, like: os.stat_result) -> FileIO:
    """An empty file with the permissions of another one, and its owner if we may."""
    Path(path).unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    file = FileIO(os.open(path, flags, 0o600), "r+")
    if hasattr(os, "fchmod"):
        if os.geteuid() == 0:
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
    return file


def _after(counter: int) -> int:
    """Another counter, which nobody reaches by counting on a little."""
    return (counter + 2 + secrets.randbelow(_MOST_STEP)) % (1 << 32)
