"""Every error this library raises on purpose, grouped by what the caller should do.

::

    SQLiteReplicaError
    ├── InvalidFileError (ValueError)      an LTX file or a WAL is malformed: do not use it
    │   ├── ChecksumMismatchError          ... its bytes are not the ones that were written
    │   └── TamperedError                  ... an encrypted object was changed, cut or swapped
    ├── PosMismatchError                   files do not join: bring the replica up anew
    ├── NotRestorableError (LookupError)   nothing to restore there: choose another target
    ├── PinExistsError (ValueError)         the name of a pin is taken: choose another name
    ├── ConfigError (ValueError)            a configuration file is wrong: correct it
    ├── QueryError (ValueError)             SQL that was given is refused: correct it
    ├── TargetExistsError (FileExistsError) the restore target is taken: choose another path
    ├── StoreError                         object storage failed: retry (``transient``) or alert
    │   ├── EncryptionError                keys and replica do not fit: give the right ones
    │   └── AnotherWriterError             someone else writes to this replica: stop one of the two
    │       └── LeaseLostError             ... another host took the lease: stop writing here
    ├── DatabaseStateError                 the source database cannot be replicated as it is: fix it
    │   ├── DivergedError                  it is not what another host has replicated
    │   └── MixedSQLiteCopiesError         two copies of SQLite on one file in one process
    ├── LeaseHeldError                     another host replicates: wait, or stop that one
    ├── SyncTimeoutError (TimeoutError)    durability was not confirmed in time: unknown
    ├── FollowTimeoutError (TimeoutError)  a follower did not get that far in time: read on
    ├── VerificationError                  a replica is not what it should be: heal it, or alert
    ├── VerifyStoppedError                 a verification was ended early: nothing is known
    ├── JobLostError                       one job of many did not end: nothing is known
    └── ReplicatorClosedError              used before ``start`` or after ``stop``

Each error carries its data as attributes and a short stable ``kind`` that programs can test;
the message is made from them and says, where there is one, what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlitereplica.pickled import parts_of, revived

__all__ = [
    "AnotherWriterError",
    "ChecksumMismatchError",
    "ConfigError",
    "DatabaseStateError",
    "DivergedError",
    "EncryptionError",
    "FollowTimeoutError",
    "InvalidFileError",
    "JobLostError",
    "LeaseHeldError",
    "LeaseLostError",
    "MixedSQLiteCopiesError",
    "NearestPoint",
    "NotRestorableError",
    "PinExistsError",
    "PosMismatchError",
    "QueryError",
    "ReplicatorClosedError",
    "SQLiteReplicaError",
    "StoreError",
    "SyncTimeoutError",
    "TamperedError",
    "TargetExistsError",
    "VerificationError",
    "VerifyStoppedError",
]


class SQLiteReplicaError(Exception):
    """Root of the tree. ``kind`` is a stable code such as ``"page-size"``."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error with its fields and causes."""
        return revived, parts_of(self)


class InvalidFileError(SQLiteReplicaError, ValueError):
    """Bytes that are not a valid LTX file, WAL or wal-index.

    ``kind`` names the rule that was broken; ``offset`` is the byte offset in the file
    where that was noticed, when known.
    """

    def __init__(
        self, message: str, *, kind: str = "malformed", offset: int | None = None
    ) -> None:
        where = "" if offset is None else f" (at byte {offset})"
        super().__init__(message + where, kind=kind)
        self.offset = offset


class ChecksumMismatchError(InvalidFileError):
    """A checksum differs: ``expected`` is what was recorded, ``actual`` what was found."""

    def __init__(self, what: str, *, expected: int, actual: int) -> None:
        super().__init__(
            f"{what} checksum mismatch: recorded {expected:016x}, found {actual:016x}",
            kind="checksum",
        )
        self.expected = expected
        self.actual = actual


class TamperedError(InvalidFileError):
    """An object of an encrypted replica is not what was encrypted, under this name."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="tampered")


class PosMismatchError(SQLiteReplicaError):
    """LTX files that do not join: ``expected_txid`` should come next, ``found_txid`` does."""

    def __init__(
        self,
        message: str,
        *,
        expected_txid: int | None = None,
        found_txid: int | None = None,
        kind: str = "gap",
    ) -> None:
        super().__init__(message, kind=kind)
        self.expected_txid = expected_txid
        self.found_txid = found_txid


@dataclass(frozen=True, slots=True)
class NearestPoint:
    """A state that can be restored, beside one that cannot; ``time`` is aware, UTC."""

    txid: int
    time: datetime

    def __str__(self) -> str:
        return f"txid={self.txid} of {self.time.isoformat(timespec='milliseconds')}"


class NotRestorableError(SQLiteReplicaError, LookupError):
    """The replica cannot give the state asked for.

    ``kind`` is ``"empty"`` (no backup there), ``"txid"``, ``"time"``, ``"gap"`` or
    ``"pin"``. ``earliest`` and ``latest`` describe what can be restored instead, when
    anything can, in the way that was asked: a time for a time. ``before`` and ``after``
    are the nearest states on both sides that can be restored.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        earliest: object | None = None,
        latest: object | None = None,
        before: NearestPoint | None = None,
        after: NearestPoint | None = None,
    ) -> None:
        sides = (("before", before), ("after", after))
        nearest = [f"Nearest {side}: {point}." for side, point in sides if point]
        super().__init__(" ".join([message, *nearest]), kind=kind)
        self._message = message
        self.earliest = earliest
        self.latest = latest
        self.before = before
        self.after = after

    def named(
        self,
        replica: str,
        *,
        before: NearestPoint | None = None,
        after: NearestPoint | None = None,
    ) -> NotRestorableError:
        """The same error, saying which replica it is about; with other points if given."""
        return NotRestorableError(
            f"{replica}: {self._message}",
            kind=self.kind,
            earliest=self.earliest,
            latest=self.latest,
            before=before or self.before,
            after=after or self.after,
        )


class PinExistsError(SQLiteReplicaError, ValueError):
    """A pin of this ``name`` keeps another transaction, ``txid``; it was not changed."""

    def __init__(self, name: str, txid: int) -> None:
        super().__init__(
            f"the pin {name!r} keeps transaction {txid}: choose another name, or take it"
            f" away first with unpin({name!r})",
            kind="pin-exists",
        )
        self.name = name
        self.txid = txid


class ConfigError(SQLiteReplicaError, ValueError):
    """A configuration file, or what a command line says instead, cannot be meant.

    ``file`` is its name and ``line`` the line, counted from 1, where that is known. Shows
    no value that came from a variable or is secret.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        kind: str = "value",
    ) -> None:
        where = "" if file is None else f"{file}: "
        if line is not None:
            where = f"{file}:{line}: "
        super().__init__(where + message, kind=kind)
        self.file = file
        self.line = line


class QueryError(SQLiteReplicaError, ValueError):
    """SQL for a replica that SQLite refuses; its own words are the message."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="query")


class TargetExistsError(SQLiteReplicaError, FileExistsError):
    """The path to restore to is taken, by ``path``; nothing was changed."""

    def __init__(self, path: str, message: str | None = None) -> None:
        super().__init__(
            message
            or f"{path} exists: pass if_exists='skip' to keep it"
            " or if_exists='replace' to overwrite it",
            kind="target-exists",
        )
        self.path = path


class StoreError(SQLiteReplicaError):
    """Object storage failed.

    ``transient`` is True when trying again may help; ``operation`` is ``"put"``, ``"get"``,
    ``"list"``, ``"delete"`` or ``"open"``; ``key`` is the object. The foreign
    exception is ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        key: str = "",
        transient: bool = True,
        kind: str = "store",
    ) -> None:
        super().__init__(message, kind=kind)
        self.operation = operation
        self.key = key
        self.transient = transient


class EncryptionError(StoreError):
    """The keys that were given and a replica do not fit together.

    ``kind`` is ``"no-key"`` (it is encrypted, and there is nothing to read it with),
    ``"wrong-key"`` (it is encrypted for others), ``"not-encrypted"`` (it should be and is
    not), ``"no-recipient"`` (nothing to write with), ``"version"`` (a later version encrypted
    it) or ``"package"`` (``cryptography`` is not installed).
    """

    def __init__(self, message: str, *, kind: str, key: str = "") -> None:
        super().__init__(message, operation="get", key=key, transient=False, kind=kind)


class AnotherWriterError(StoreError):
    """The replica holds other bytes under a name that we were to write."""

    def __init__(self, key: str, message: str | None = None) -> None:
        super().__init__(
            message
            or f"{key} already holds other bytes: another writer uses this replica."
            " Give each database a replica path of its own, or stop the other writer.",
            operation="put",
            key=key,
            transient=False,
            kind="another-writer",
        )


class LeaseLostError(AnotherWriterError):
    """Another host has taken the lease of the replica over; nothing is written any more.

    ``holder`` is who, as ``"host:pid"``, and ``epoch`` the number of its turn, when known.
    Commits that were not confirmed are in the database here and nowhere else.
    """

    def __init__(self, key: str, *, holder: str = "", epoch: int = 0) -> None:
        who = holder or "another host"
        super().__init__(
            key,
            f"{who} has taken over the replica at {key}: nothing of this host is"
            " replicated any more. End the application here; what it committed since the"
            " last confirmation is only in its database",
        )
        self.kind = "lease-lost"
        self.holder = holder
        self.epoch = epoch


class LeaseHeldError(SQLiteReplicaError):
    """Another host holds the lease of the replica, so this one does not replicate.

    ``holder`` is who, as ``"host:pid"``, and ``epoch`` the number of its turn; empty and 0
    when the store did not say.
    """

    def __init__(
        self,
        replica: str,
        *,
        holder: str,
        epoch: int,
        cause: str | None = None,
        message: str | None = None,
    ) -> None:
        who = f"{holder} holds the lease of" if holder else "nobody got the lease of"
        why = f" Last error: {cause}" if cause else ""
        super().__init__(
            message
            or f"{who} {replica}, so this host does not replicate. Stop the other one, or"
            f" pass standby=True to wait for it.{why}",
            kind="lease-held",
        )
        self.replica = replica
        self.holder = holder
        self.epoch = epoch


class DatabaseStateError(SQLiteReplicaError):
    """The source database cannot be replicated in the state it is in.

    ``kind`` is ``"journal-mode"``, ``"exclusive"``, ``"not-a-database"``, ``"branch"``
    (not one yet), ``"cannot-open"``, ``"unreadable"``, ``"busy"``, ``"replaced"``, ``"wal-lost"``,
    ``"continuity"`` (locks of ours were dropped), ``"diverged"`` (not what another host
    replicated), ``"elsewhere"`` (another Replicator has it), ``"forked"`` (inherited
    connections are open in this child), ``"server"`` (one that forks without telling Python,
    or runs no threads), ``"meta-folder"``, ``"mixed-sqlite"`` or
    ``"sqlite"`` (anything else that SQLite says); of a database of a group also ``"twice"``,
    ``"name"``, ``"link"``, ``"folder"``, ``"unknown"``, ``"removed"``. ``path`` is the file.
    """

    def __init__(self, message: str, *, path: str, kind: str) -> None:
        super().__init__(message, kind=kind)
        self.path = path


class DivergedError(DatabaseStateError):
    """The database is not the newest state of the replica, which another host wrote.

    To go on from it would undo what that host has confirmed to its users.
    """

    def __init__(self, path: str, *, replica: str, txid: int) -> None:
        super().__init__(
            f"{path} is not transaction {txid}, the newest state of {replica}, which"
            " another host has written. Put that state here first: restore(...,"
            " if_exists='replace', keep_old=True), or start with standby=True. If the"
            " database here is the right one, start once without lease=",
            path=path,
            kind="diverged",
        )
        self.replica = replica
        self.txid = txid


class MixedSQLiteCopiesError(DatabaseStateError):
    """Two copies of the SQLite library have one database file open in one process.

    POSIX file locks belong to the process, so two copies do not exclude each other and
    closing a file in one drops the locks of the other: data are lost. Use one of them.
    """

    def __init__(self, path: str, *, ours: str, other: str) -> None:
        super().__init__(
            f"{path} is opened by {other} while the Replicator uses {ours}: two copies of"
            " SQLite on one file in one process lose data. Pass the connection factory"
            " that the application uses, for example Replicator(db,"
            " connect=sqlite3.connect) or Replicator(db, connect=apsw.Connection), and"
            " use only that one for this database in this process.",
            path=path,
            kind="mixed-sqlite",
        )
        self.ours = ours
        self.other = other


class SyncTimeoutError(SQLiteReplicaError, TimeoutError):
    """``sync()`` ended before durability was confirmed; whether it was reached is unknown.

    ``pending`` names the replicas that had not confirmed; the last failure of a store,
    if there was one, is ``__cause__``.
    """

    def __init__(
        self, timeout: float, *, pending: tuple[str, ...], cause: str | None = None
    ) -> None:
        why = f" Last error: {cause}" if cause else ""
        super().__init__(
            f"not confirmed durable within {timeout:g} s by: {', '.join(pending)}.{why}",
            kind="sync-timeout",
        )
        self.timeout = timeout
        self.pending = pending


class FollowTimeoutError(SQLiteReplicaError, TimeoutError):
    """``Follower.wait`` ended before the file held what was waited for.

    ``txid`` is what it holds, ``wanted`` what was asked for, None for the newest; the
    failure that keeps it back, if there is one, is ``__cause__``.
    """

    def __init__(
        self, timeout: float, *, txid: int, wanted: int | None, cause: str | None = None
    ) -> None:
        what = "the newest transaction" if wanted is None else f"transaction {wanted}"
        why = f" Last error: {cause}" if cause else ""
        super().__init__(
            f"{what} was not there within {timeout:g} s; the file holds {txid}.{why}",
            kind="follow-timeout",
        )
        self.timeout = timeout
        self.txid = txid
        self.wanted = wanted


class VerificationError(SQLiteReplicaError):
    """``verify`` found problems; ``report`` is the ``VerifyReport`` that has them.

    ``kind`` is ``"latest"`` if the newest state is concerned, else ``"history"``.
    """

    def __init__(self, message: str, *, report: Any, kind: str) -> None:
        super().__init__(message, kind=kind)
        self.report = report


class VerifyStoppedError(SQLiteReplicaError):
    """``verify`` ended early since its ``stop`` said so; whatever was found is dropped."""

    def __init__(self, replica: str) -> None:
        super().__init__(f"{replica}: the verification was stopped", kind="stopped")


class JobLostError(SQLiteReplicaError):
    """A job on one of many replicas did not end, so nothing is known of it.

    ``kind`` is ``"lost"`` (whoever did it ended, or it was cancelled) or ``"not-started"``
    (nobody took it). What the executor said is ``__cause__``.
    """

    def __init__(self, replica: str, *, kind: str, cause: BaseException) -> None:
        what = "was not begun" if kind == "not-started" else "did not end"
        why = str(cause) or type(cause).__name__
        super().__init__(f"{replica}: the job {what}: {why}", kind=kind)
        self.replica = replica


class ReplicatorClosedError(SQLiteReplicaError):
    """The Replicator is not running.

    ``kind`` is ``"closed"`` (not started, or stopped) or ``"forked"`` (a Follower made
    before a ``fork()``, used in the child).
    """

    def __init__(self, message: str, *, kind: str = "closed") -> None:
        super().__init__(message, kind=kind)
