"""Errors come through pickle as they were."""

from __future__ import annotations

import copy
import pickle
import threading
from datetime import UTC, datetime

import pytest

from sqlitereplica import errors
from sqlitereplica.errors import SQLiteReplicaError, StoreError
from sqlitereplica.pickled import portable

NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
NEAREST = errors.NearestPoint(4, NOON)

SAMPLES: list[SQLiteReplicaError] = [
    SQLiteReplicaError("root", kind="some"),
    errors.InvalidFileError("cut", kind="short", offset=7),
    errors.ChecksumMismatchError("page", expected=1, actual=2),
    errors.TamperedError("changed"),
    errors.PosMismatchError("gap", expected_txid=3, found_txid=5),
    errors.NotRestorableError("none", kind="txid", earliest=1, before=NEAREST),
    errors.PinExistsError("release", 9),
    errors.ConfigError("unknown key", file="l.yml", line=3),
    errors.QueryError("no such table"),
    errors.TargetExistsError("/srv/app.db"),
    StoreError("away", operation="put", key="k", transient=False, kind="access"),
    errors.EncryptionError("no key", kind="no-key", key="k"),
    errors.AnotherWriterError("k"),
    errors.LeaseLostError("k", holder="b:1", epoch=3),
    errors.LeaseHeldError("r", holder="b:1", epoch=3, cause="x"),
    errors.DatabaseStateError("busy", path="app.db", kind="busy"),
    errors.DivergedError("app.db", replica="r", txid=8),
    errors.MixedSQLiteCopiesError("app.db", ours="sqlite3", other="apsw"),
    errors.SyncTimeoutError(1.5, pending=("a", "b"), cause="x"),
    errors.FollowTimeoutError(1.5, txid=2, wanted=3),
    errors.VerificationError("2 problems", report=("any", "value"), kind="latest"),
    errors.VerifyStoppedError("r"),
    errors.JobLostError("r", kind="lost", cause=OSError("killed")),
    errors.ReplicatorClosedError("stopped"),
]


def through(error: BaseException) -> BaseException:
    """What comes out."""
    found = pickle.loads(pickle.dumps(error))
    assert isinstance(found, BaseException)
    return found


def test_every_public_error_has_a_sample() -> None:
    """A new class is tried, too."""
    public = {getattr(errors, name) for name in errors.__all__}
    raised = {found for found in public if issubclass(found, Exception)}
    assert raised == {type(sample) for sample in SAMPLES}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_error_keeps_its_class_message_and_fields(error: SQLiteReplicaError) -> None:
    """Whatever its ``__init__`` asks for; so does a copy of it."""
    for again in (through(error), through(through(error)), copy.copy(error)):
        assert type(again) is type(error) and again is not error
        assert str(again) == str(error) and again.args == error.args
        assert vars(again) == vars(error)


def test_error_keeps_its_causes_and_notes() -> None:
    """Those of foreign errors in between, and of ours below these."""
    root = StoreError("away", key="k")
    root.__cause__ = PermissionError(13, "refused")
    middle = OSError(5, "input/output error")
    middle.__cause__ = root
    error = errors.NotRestorableError("none", kind="empty")
    error.__cause__ = middle
    error.add_note("another replica: away")
    again = through(error)
    assert again.__notes__ == ["another replica: away"]
    found = [again.__cause__, again.__cause__.__cause__]  # type: ignore[union-attr]
    deepest = found[1].__cause__  # type: ignore[union-attr]
    assert [type(cause) for cause in found] == [OSError, StoreError]
    assert vars(found[1]) == vars(root)  # type: ignore[arg-type]
    assert isinstance(deepest, PermissionError) and deepest.errno == 13


class HeldError(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("held")
        self.lock = threading.Lock()


class ProudError(Exception):
    """Can be pickled, and not be read again."""

    def __init__(self, *, why: str) -> None:
        super().__init__(f"proud of {why}")


@pytest.mark.parametrize("cause", [HeldError(), ProudError(why="it")], ids=str)
def test_cause_that_does_not_come_through_is_replaced(cause: Exception) -> None:
    """By one that says what it was: the error is more than its cause."""
    error = StoreError("away", key="k")
    error.__cause__ = cause
    again = through(error)
    assert vars(again) == vars(error)
    replaced = again.__cause__
    assert type(replaced) is RuntimeError
    assert str(replaced).endswith(f"{type(cause).__name__}: {cause}")
    assert type(portable(cause)) is RuntimeError
    assert portable(error) is error


def chain_of(error: BaseException) -> list[BaseException]:
    """The causes of an error, at most twenty."""
    found: list[BaseException] = []
    while len(found) < 20 and (cause := (found or [error])[-1].__cause__):
        found.append(cause)
    return found


def test_chain_of_causes_is_bounded() -> None:
    """Neither a long one nor a circle is followed for ever."""
    long = error = StoreError("away")
    for number in range(15):
        error.__cause__ = OSError(5, f"cause {number}")
        error = error.__cause__
    assert len(chain_of(long)) == 15 and len(chain_of(through(long))) == 8
    one, two = OSError(1, "one"), OSError(2, "two")
    one.__cause__, two.__cause__ = two, one
    circle = StoreError("away")
    circle.__cause__ = one
    assert len(chain_of(circle)) == 20 and len(chain_of(through(circle))) == 2
