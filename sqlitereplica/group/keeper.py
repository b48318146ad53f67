"""Looks at the files of a group and decides, for each database, what is to become of it.

One thread, the *scanner* (``group.py``), looks at all files now and then (``sweep``) and at
those that run more often (``tend``). Callers that want to be sure look at all files
themselves. What is decided is in ``decide.py``; it is carried out by the pool.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable
from datetime import UTC, datetime

from sqlitereplica.errors import DatabaseStateError
from sqlitereplica.group.decide import Rules, State, Step, Turn, judge, turn
from sqlitereplica.group.folder import Folder
from sqlitereplica.group.member import Member
from sqlitereplica.group.naming import Naming
from sqlitereplica.group.pool import Pool, Report
from sqlitereplica.group.record import Parked
from sqlitereplica.group.signature import Signature, look
from sqlitereplica.replicate.inside import is_in_step, problem_of

__all__ = ["Keeper"]

_CLASH_AGAIN = 60.0
_GONE_KEPT = 256


class Keeper:
    """See the module's text. Thread-safe."""

    def __init__(
        self,
        folder: Folder,
        naming: Naming,
        pool: Pool,
        *,
        noted: Callable[[str], Parked | None],
        rules: Rules,
        report: Report,
        takes_in: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``noted`` is what an earlier process noted of the database of a name.

        ``takes_in``: whether databases count that come after the first look.
        """
        self.pool = pool
        self.errors: dict[str, Exception] = {}
        """Of folders, and of names that lead to no file."""
        self.gone: dict[str, None] = {}
        self.removed = 0
        self.looked_at: datetime | None = None
        self.look_seconds = 0.0
        self._folder, self._naming, self._noted = folder, naming, noted
        self._rules, self._report = rules, report
        self._clock, self._now = clock, now
        self._looking, self._takes_in = threading.Lock(), takes_in

    # -- all of them -----------------------------------------------------------------

    def sweep(self) -> None:
        """Look at the files of all databases, and for new ones if they are wanted."""
        with self._looking:
            began = self._clock()
            if self._takes_in or self.looked_at is None:
                self._list()
            now = self._now()
            for member in self.pool.table:
                self._look(member, now)
            self.looked_at = datetime.fromtimestamp(now, UTC)
            self.look_seconds = self._clock() - began
        self.pool.dispatch()

    @property
    def folders(self) -> list[str]:
        """The folders that there are, by their paths below the group's."""
        return self._folder.folders

    def look_at(self, names: Collection[str], *, listing: bool) -> None:
        """Look at these databases, and at new ones if one of the names is not known.

        With ``listing`` new ones are looked for in any case, if they are wanted at all.
        """
        table = self.pool.table
        with self._looking:
            unknown = any(n not in table and self._folder.has_name(n) for n in names)
            new = self._list() if self._takes_in and (listing or unknown) else []
            now = self._now()
            for name in (*names, *new):
                member = table.get(name)
                if member is not None:
                    self._look(member, now)
        self.pool.dispatch()

    def _list(self) -> list[str]:
        """Take in what is new; returns the names."""
        found = self._folder.look()
        for rel in found.errors.keys() - self.errors.keys():
            self._report("group-error", rel, logging.WARNING, found.errors[rel])
        self.errors = found.errors
        new = [rel for rel in found.names if rel not in self.pool.table]
        for rel in new:
            self._take_in(rel)
        return new

    def _take_in(self, rel: str) -> None:
        member, noted = Member(rel, State.EMPTY), self._noted(rel)
        with self.pool.cond:
            self.gone.pop(rel, None)
            self.pool.table.add(member)
            if noted is not None and self._clash(member, noted.signature) is None:
                member.known, member.due_at = noted.signature, noted.tend_at
                self.pool.become(member, State.PARKED)

    def _look(self, member: Member, now: float) -> None:
        try:
            seen = look(self._naming.database(member.rel))
        except OSError as error:
            self._cannot_look(member, error)
            return
        same = seen == member.known and member.state is State.PARKED
        if same and (member.due_at is None or now < member.due_at):
            return  # as good as all of ten thousand
        with self.pool.cond:
            self._judge(member, seen, now)

    def _cannot_look(self, member: Member, error: OSError) -> None:
        """One that runs says itself what is wrong."""
        with self.pool.cond:
            is_told = member.state is State.FAILED and member.due_at is not None
            if is_told and self._now() < (member.due_at or 0.0):
                return
            if member.state in (State.PARKED, State.EMPTY, State.FAILED):
                self.pool.fail(member, error)

    def _judge(self, member: Member, seen: Signature | None, now: float) -> None:
        if member.is_gone:
            return
        step = judge(member.state, member.known, seen, now=now, due_at=member.due_at)
        if step is Step.REMOVED:
            self.removed += 1
            self.gone[member.rel] = None
            while len(self.gone) > _GONE_KEPT:
                del self.gone[next(iter(self.gone))]
            self.pool.remove(member)
        elif step is Step.EMPTY:
            member.known = member.error = None
            self.pool.become(member, State.EMPTY)
        elif step is Step.SHORT:
            path = self._naming.database(member.rel)
            self.pool.fail(member, _too_short(path), until_not=seen)
        elif step is not Step.STAY and seen is not None:
            clash = self._clash(member, seen)
            if clash is None:
                self.pool.enqueue(member)
            else:
                self.pool.fail(member, clash, pause=_CLASH_AGAIN)

    def _clash(self, member: Member, seen: Signature) -> DatabaseStateError | None:
        """Claim what only one may have; the error if another has it."""
        file = (seen.device, seen.inode)
        keys: list[Hashable] = [file, *self._naming.clash_keys(member.rel)]
        other = self.pool.table.claim(member, keys)
        if other is None:
            return None
        path, owner = (self._naming.database(m.rel) for m in (member, other))
        what = "is the same file as" if file in other.claims else "has the replica of"
        return DatabaseStateError(f"{path} {what} {owner}", path=path, kind="twice")

    def failed(self, error: Exception) -> None:
        """A thread let an error out: a bug, which must be seen."""
        self._report("group-error", "", logging.ERROR, error)

    # -- those that run --------------------------------------------------------------

    def tend(self) -> None:
        """Look at those that run, park who may be parked, start who waits."""
        with self.pool.cond:
            running = [m for m in self.pool.table.slotted if m.state is State.RUNNING]
        for member in running:
            self._tend(member)
        self.pool.dispatch()

    def _tend(self, member: Member) -> None:
        replicator, now = member.replicator, self._clock()
        try:
            seen = look(self._naming.database(member.rel))
        except OSError:
            return  # its Replicator says what is wrong
        if replicator is None:
            return
        if seen is None:
            with self.pool.cond:
                self._judge(member, seen, self._now())
            return
        if seen != member.known:
            member.known, member.quiet_since = seen, now
        problem = problem_of(replicator)
        if getattr(problem, "kind", "") == "not-a-database":
            assert problem is not None
            self.pool.end(member, problem)
            return
        quiet = now - member.quiet_since
        how = turn(
            quiet=quiet,
            ran=now - member.since,
            in_step=quiet >= self._rules.least_quiet and is_in_step(replicator),
            used=member.users > 0,
            contended=bool(self.pool.queue),
            rules=self._rules,
        )
        if how is not Turn.STAY:
            self.pool.park(member, anyway=how is Turn.ROTATE)


def _too_short(path: str) -> DatabaseStateError:
    return DatabaseStateError(
        f"{path} is no database: it is smaller than the smallest one",
        path=path,
        kind="not-a-database",
    )
