"""What ``verify`` found, as a value: for people, cron jobs, notebooks and repairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from sqlitereplica.errors import VerificationError
from sqlitereplica.ltx import FileInfo, format_filename
from sqlitereplica.markup import card, moment_text
from sqlitereplica.restore.check import ForeignKeyViolation
from sqlitereplica.restore.coverage import Note, RestorableRange
from sqlitereplica.sizes import size_text
from sqlitereplica.store import Pin
from sqlitereplica.store.reach import Gap

__all__ = [
    "Finding",
    "Level",
    "RestoreProof",
    "Scope",
    "VerifyReport",
    "findings",
]

Level: TypeAlias = Literal["listing", "checksums", "restore"]
Scope: TypeAlias = Literal["history", "latest"]

_MOST_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A file that is damaged or lost, for who heals it.

    Attributes:
        kind: What is wrong, a stable word; see ``docs/howto/verify.md``. ``"lost"``: the
            transactions are in no sound file.
        level: Where the file is; None for ``"lost"``: a file of any level heals that.
        min_txid: The first transaction in the file, or lost.
        max_txid: The last transaction.
        size: Bytes in the listing; 0 for ``"lost"``.
        timestamp: Milliseconds since the epoch in the listing; 0 for ``"lost"``.
        reason: The same for people.
        needed: True if a state cannot be restored as long as this is not healed; False
            if other files give every state that this one should. Heal these, too:
            whoever trusts the file may delete the others.
    """

    kind: str
    level: int | None
    min_txid: int
    max_txid: int
    size: int
    timestamp: int
    reason: str
    needed: bool

    @property
    def name(self) -> str:
        """The name of the file; of what is lost, that of one file that would heal it."""
        return format_filename(self.min_txid, self.max_txid)

    @property
    def file(self) -> FileInfo | None:
        """The file as it is listed, to be read or deleted; None for what is lost."""
        if self.level is None:
            return None
        txids = self.min_txid, self.max_txid
        return FileInfo(self.level, *txids, self.size, self.timestamp)

    def __str__(self) -> str:
        if self.level is None:
            return self.reason
        needed = "; states are lost with it" if self.needed else ""
        return f"level {self.level}, {self.name}: {self.reason}{needed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreProof:
    """A restore that was really made, and what SQLite says of the database.

    Attributes:
        txid: Its last transaction; None if Litestream 0.3 wrote the files.
        time: When that was captured; aware, UTC.
        page_size: Bytes of a page.
        commit: Pages of the database.
        files: How many files it was made of.
        checksum: The database checksum, if the replica has it; it was compared.
        check: What ran: ``"full"``, ``"quick"`` or None.
        integrity: What that found, a few lines; empty for a sound database.
        foreign_key_violations: The first few.
        more_violations: Whether there are more than these.
    """

    txid: int | None
    time: datetime
    page_size: int
    commit: int
    files: int
    checksum: int | None
    check: str | None
    integrity: tuple[str, ...]
    foreign_key_violations: tuple[ForeignKeyViolation, ...]
    more_violations: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class VerifyReport:
    """What ``verify`` found out about one replica.

    Attributes:
        replica: Its name, a URL without secrets.
        level: What was done: ``"listing"``, ``"checksums"`` or ``"restore"``.
        scope: With which files: ``"history"`` or ``"latest"``.
        started: When it began; aware, UTC.
        ended: When it ended.
        duration_seconds: How long it took.
        files: Files in the replica.
        total_bytes: Their bytes.
        bytes_read: Bytes that were fetched.
        files_read: Files that were read in full.
        files_signed: How many of these record database checksums, so that what they
            hold was proven and not only that it is undamaged. Litestream's do not.
        ranges: What can be restored.
        gaps: What cannot, though later files are there.
        lost: The transactions in gaps that are in no sound file.
        bad_files: Files that are damaged, missing or not what their name says.
        notes: What is odd and harmless.
        latest_txid: The newest transaction that can be restored, or None.
        latest_error: Why the newest transaction in the replica cannot be restored.
        expected_txid: The ``at_least`` that was asked for.
        lost_pins: Pins of states that cannot be restored.
        damaged_pins: The names of pins that cannot be read.
        restored: The restore that was made, at level ``"restore"``.
        restore_error: Why it failed.
    """

    replica: str
    level: Level
    scope: Scope
    started: datetime
    ended: datetime
    duration_seconds: float
    files: int
    total_bytes: int
    bytes_read: int
    files_read: int
    files_signed: int
    ranges: tuple[RestorableRange, ...]
    gaps: tuple[Gap, ...]
    lost: tuple[Gap, ...]
    bad_files: tuple[Finding, ...]
    notes: tuple[Note, ...]
    latest_txid: int | None
    latest_error: str | None
    expected_txid: int | None = None
    lost_pins: tuple[Pin, ...] = ()
    damaged_pins: tuple[str, ...] = ()
    restored: RestoreProof | None = None
    restore_error: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong, the worst first, as lines for people."""
        return tuple(self._problems())

    @property
    def ok(self) -> bool:
        """True if nothing is wrong: the newest state, the history and every file."""
        return not any(True for _ in self._problems())

    @property
    def latest_ok(self) -> bool:
        """True if the newest state can be restored, whatever else is wrong."""
        return not any(True for _ in self._problems_of_latest())

    def raise_for_problems(self) -> VerifyReport:
        """Return the report if nothing is wrong.

        Raises:
            VerificationError: Something is; its message is the report.
        """
        if self.ok:
            return self
        kind = "history" if self.latest_ok else "latest"
        raise VerificationError(str(self), report=self, kind=kind)

    def _problems_of_latest(self) -> Iterator[str]:
        if self.latest_error is not None:
            yield self.latest_error
        if self.expected_txid is not None and self.expected_txid > (
            self.latest_txid or 0
        ):
            yield (
                f"transaction {self.expected_txid} should be there: the newest that can"
                f" be restored is {self.latest_txid}"
            )
        if self.restore_error not in (None, self.latest_error):
            yield f"the restore failed: {self.restore_error}"
        if self.restored is not None:
            yield from (f"SQLite: {text}" for text in self.restored.integrity)
            violations = self.restored.foreign_key_violations
            yield from (f"foreign key: {violation}" for violation in violations)
            if self.restored.more_violations:
                yield "foreign key: and more rows"

    def _problems(self) -> Iterator[str]:
        yield from self._problems_of_latest()
        yield from (f"{gap} cannot be restored" for gap in self.gaps)
        for pin in self.lost_pins:
            yield f"the pin {pin.name!r} keeps transaction {pin.txid}, which is lost"
        yield from (f"the pin {name!r} cannot be read" for name in self.damaged_pins)
        yield from (f"{lost}: in no sound file" for lost in self.lost)
        yield from map(str, self.bad_files)

    # -- other forms -----------------------------------------------------------------

    def __repr__(self) -> str:
        lines = [f"VerifyReport of {self.replica}: {self._verdict()}"]
        lines += [f"  {name + ':':<12}{text}" for name, text in self._summary()]
        lines += [f"  - {problem}" for problem in _shown(self.problems)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return card(
            self._verdict(),
            self.replica,
            self._summary(),
            ok=self.ok,
            lines=_shown(self.problems),
        )

    def to_json(self) -> bytes:
        """All of it as one JSON object; times in RFC 3339."""
        import msgspec

        found = {"ok": self.ok, "latest_ok": self.latest_ok, **asdict(self)}
        found["problems"] = self.problems
        found["gaps"] = [gap._asdict() for gap in self.gaps]
        found["lost"] = [lost._asdict() for lost in self.lost]
        return msgspec.json.encode(found)

    def _verdict(self) -> str:
        if self.ok:
            return "ok"
        count = len(self.problems)
        latest = "" if self.latest_ok else ", the newest state cannot be trusted"
        return f"{count} problem{'s' if count > 1 else ''}{latest}"

    def _summary(self) -> Iterator[tuple[str, str]]:
        """Yield names and texts, neither of them escaped."""
        of = "" if self.level == "listing" else f", {self.scope}"
        yield "level", self.level + of
        yield "files", f"{self.files:,}, {size_text(self.total_bytes)}"
        if self.bytes_read:
            took = f"{size_text(self.bytes_read)} in {self.duration_seconds:.3g} s"
            signed = f", {self.files_signed:,} files with database checksums"
            yield "read", took + (signed if self.files_read else "")
        for text in _shown([_range_text(span) for span in self.ranges]):
            yield "restorable", text
        if self.restored is not None:
            proof = self.restored
            size = size_text(proof.page_size * proof.commit)
            check = f"checked in {proof.check}" if proof.check else "not checked"
            state = f"transaction {proof.txid}"
            if proof.txid is None:
                state = f"the state of {moment_text(proof.time)}"
            yield "restored", f"{state}, {size}, {check}"
        for note in self.notes:
            yield "note", note.text


def findings(report: VerifyReport) -> tuple[Finding, ...]:
    """Return what has to be healed: damaged files, and transactions that are lost.

    Those that are needed come first, by their transactions.
    """
    lost = (
        Finding(
            kind="lost",
            level=None,
            min_txid=span.min_txid,
            max_txid=span.max_txid,
            size=0,
            timestamp=0,
            reason=f"{span}: in no sound file",
            needed=True,
        )
        for span in report.lost
    )
    found = [*report.bad_files, *lost]
    return tuple(sorted(found, key=lambda f: (not f.needed, f.min_txid, f.max_txid)))


def _shown(texts: Sequence[str]) -> Iterator[str]:
    """Yield the first few, and how many more there are."""
    yield from texts[:_MOST_SHOWN]
    more = len(texts) - _MOST_SHOWN
    if more > 0:
        yield f"and {more:,} more"


def _range_text(span: RestorableRange) -> str:
    first, last = moment_text(span.min_time), moment_text(span.max_time)
    if span.states == 1:
        return f"transaction {span.min_txid}, of {last}"
    txids = f"transactions {span.min_txid} to {span.max_txid}"
    return f"{txids}, {span.states:,} states, {first} to {last}"
