"""Any history in the layout of Litestream 0.3, whole and damaged."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.corpus03 import Corpus
from support.oldreplica import OldReplica

from sqlitereplica import restore
from sqlitereplica.errors import InvalidFileError, NotRestorableError
from sqlitereplica.store.reach import to_datetime

pytestmark = pytest.mark.property

MILLISECOND = timedelta(milliseconds=1)
STATEMENTS = {
    "small": ["INSERT INTO t(v) VALUES (randomblob(20))"],
    "large": ["INSERT INTO t(v) VALUES (randomblob(20000))"],
    "update": ["UPDATE t SET v = randomblob(99) WHERE id % 2"],
    "same": ["UPDATE t SET v = v"],
    "shrink": ["DELETE FROM t WHERE id > 2", "VACUUM"],
    "unwritten": [
        "BEGIN",
        "CREATE TABLE big(v)",
        "INSERT INTO big VALUES (zeroblob(60000))",
        "DROP TABLE big",
        "COMMIT",
    ],
}
ACTIONS = ["segment", "part", "checkpoint", "backfill", "snapshot", "generation"]
steps = st.lists(
    st.sampled_from([*STATEMENTS, *STATEMENTS, *ACTIONS, "segment", "checkpoint"]),
    max_size=25,
)


def act(old: OldReplica, step: str) -> None:
    """One step of a history."""
    if step in STATEMENTS:
        old.commit(*STATEMENTS[step])
    elif step == "segment":
        old.segment()
    elif step == "part":
        old.segment(max(old.frames - 3, 1))
    elif step == "checkpoint":
        old.checkpoint()
    elif step == "backfill":
        old.backfill()
    elif step == "snapshot":
        if not old.snapshot_path.exists():
            old.snapshot()
    else:
        old.segment()
        old.begin_generation(f"{old.time:016x}")
        old.snapshot()
        old.segment()


@settings(max_examples=settings.default.max_examples // 2)
@given(history=steps)
def test_every_state_of_any_history_is_restored_or_refused(history: list[str]) -> None:
    """The bytes that SQLite has, at the end and at any time; never of two times.

    A state is refused only if a snapshot may be ahead of it, and then the error names a
    time that is not.
    """
    with TemporaryDirectory() as folder:
        old = OldReplica(Path(folder), page_size=512)
        target = Path(folder, "restored.db")
        old.snapshot()
        old.segment()
        for step in history:
            act(old, step)
        old.segment()
        restore(old.replica, target, verify="full")
        assert target.read_bytes() == old.image
        segments = {p.stat().st_mtime_ns for p in old.replica.rglob("*.wal.lz4")}
        states = [s for s in old.states if s[0] * 1_000_000 in segments]
        for time, image in states[:: max(1, len(states) // 6)]:
            found, moment = state_at(old, to_datetime(time) + MILLISECOND)
            if moment is not None:
                assert to_datetime(time) < moment
                assert found in [other for _, other in states]
            else:
                assert found == image
        old.close()


def state_at(old: OldReplica, moment: datetime) -> tuple[bytes, datetime | None]:
    """The state before a time; or, if that is refused, at the time that is offered."""
    target, offered = old.replica.parent / "at.db", None
    try:
        restore(old.replica, target, at=moment, if_exists="replace")
    except NotRestorableError as error:
        if error.kind != "time" or not isinstance(error.earliest, datetime):
            raise
        offered = error.earliest
        restore(old.replica, target, at=offered, if_exists="replace")
    return target.read_bytes(), offered


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A replica of the real Litestream 0.3.13."""
    return Corpus.unpack(tmp_path_factory.mktemp("corpus"), 512)


def begins(path: Path) -> bool:
    """Whether it is the first segment of a WAL."""
    return path.name.endswith("_00000000.wal.lz4")


def damaged(data: st.DataObject, content: bytes, other: bytes) -> bytes:
    """What may become of a file."""
    kind = data.draw(st.sampled_from(["cut", "flip", "insert", "append", "other"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        change = data.draw(st.integers(1, 255))
        return content[:at] + bytes([content[at] ^ change]) + content[at + 1 :]
    if kind == "insert":
        return (
            content[:at] + data.draw(st.binary(min_size=1, max_size=9)) + content[at:]
        )
    return content + other if kind == "append" else other


@pytest.fixture(scope="module")
def good() -> dict[datetime | None, bytes]:
    """The states restored from it while it was whole."""
    return {}


@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_damage_is_noticed_or_does_no_harm(
    corpus: Corpus, good: dict[datetime | None, bytes], data: st.DataObject
) -> None:
    """A cut, changed or exchanged segment: the right state comes out, or an error.

    Not if the beginning of one WAL is exchanged for that of another: both are whole, and
    nothing in 0.3's layout but the name says which is which.
    """
    files = corpus.files()
    path = data.draw(st.sampled_from(files))
    segments = [f for f in files if f.name.endswith(".wal.lz4")]
    other = data.draw(
        st.sampled_from([f for f in segments if not (begins(f) and begins(path))])
    )
    moment = data.draw(st.sampled_from([None, *corpus.times()[3:]]))
    target = corpus.replica.parent / "restored.db"
    if moment not in good:
        restore(corpus.replica, target, at=moment, if_exists="replace")
        good[moment] = target.read_bytes()
    content, time = path.read_bytes(), path.stat().st_mtime_ns
    try:
        path.write_bytes(damaged(data, content, other.read_bytes()))
        os.utime(path, ns=(time, time))
        restore(corpus.replica, target, at=moment, if_exists="replace")
        assert target.read_bytes() == good[moment]
    except (InvalidFileError, NotRestorableError):
        assert not list(target.parent.glob(".restored.db*"))
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
