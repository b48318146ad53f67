"""``verify`` on sound replicas: what each level reads, proves and reports."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback
from support.oldreplica import OldReplica
from support.recording import Recording
from support.replicas import arrange, memory_store, record
from support.troubled import TroubledStore, overwrite

from sqlitereplica import (
    Replica,
    Replicator,
    VerificationError,
    VerifyReport,
    VerifyStoppedError,
    verify,
)
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore import findings
from sqlitereplica.restore.plan import decisive, plan_restore
from sqlitereplica.store import LTXStore
from sqlitereplica.store.pins import put_pin

LEVELS = ("listing", "checksums", "restore")
COMPACTED = [(0, n, n) for n in range(3, 10)] + [(1, 1, 4), (1, 5, 7), (9, 1, 4)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Nine transactions."""
    return record(tmp_path_factory.mktemp("recorded"), "source")


@pytest.fixture
def store(recorded: Recording) -> TroubledStore:
    """A replica of them that was compacted, with a snapshot."""
    made = memory_store()
    arrange(recorded, made, COMPACTED)
    made.requests.clear()
    return made


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary databases, in which nothing is left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def size_of(files: tuple[FileInfo, ...] | list[FileInfo]) -> int:
    """Bytes of some files."""
    return sum(file.size for file in files)


@pytest.mark.parametrize("level", LEVELS)
def test_replica_of_a_replicator_is_sound_at_every_level(
    tmp_path: Path, scratch: Path, level: Any
) -> None:
    """What we write ourselves, a snapshot included, passes."""
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t(id integer primary key, v)")
    with Replicator(tmp_path / "a.db", [tmp_path / "r"], sync_interval=60) as r:
        for _ in range(4):
            connection.execute("insert into t(v) values(randomblob(9000))")
            r.sync()
        r.snapshot()
        txid = r.status().txid
        report = verify(Replica(tmp_path / "r"), level, at_least=txid, scratch=scratch)
    connection.close()
    assert report.ok and report.latest_ok and report.problems == ()
    assert report.latest_txid == txid
    assert report.started <= report.ended <= datetime.now(UTC)
    assert report.duration_seconds >= 0
    assert report.files_signed == (0 if level == "listing" else report.files)
    assert (report.restored is not None) == (level == "restore")


def test_listing_reads_no_file(store: TroubledStore, recorded: Recording) -> None:
    """Three: for files, for pins, and for files of Litestream 0.3."""
    report = verify(store, "listing")
    assert dict(store.requests) == {"list": 3}
    assert (report.ok, report.bytes_read, report.files_read) == (True, 0, 0)
    [span] = report.ranges
    assert (span.min_txid, span.max_txid, span.states) == (4, 9, 6)
    assert report.total_bytes == size_of(store.list_all())
    assert recorded.txid == report.latest_txid


def test_checksums_read_every_file_once(store: TroubledStore) -> None:
    """No byte is fetched twice, and none is left out."""
    report = verify(store, "checksums")
    assert report.ok
    assert dict(store.requests) == {"list": 3, "get": len(COMPACTED)}
    assert report.bytes_read == report.total_bytes
    assert report.files == report.files_read == report.files_signed == len(COMPACTED)


def test_times_are_those_of_the_headers_once_these_were_read(
    store: TroubledStore, recorded: Recording
) -> None:
    """A listing may tell times of uploads."""
    lying = [
        FileInfo(f.level, f.min_txid, f.max_txid, f.size, 10**12)
        for f in store.list_all()
    ]
    store.list_all = lambda **_: lying  # type: ignore[method-assign]
    [listed] = verify(store, "listing").ranges
    assert listed.min_time == listed.max_time == datetime.fromtimestamp(10**9, UTC)
    [read] = verify(store).ranges
    assert (read.max_time - read.min_time).total_seconds() == 5


@pytest.mark.parametrize("level", ["checksums", "restore"])
def test_scope_latest_reads_what_the_newest_state_needs(
    store: TroubledStore, scratch: Path, level: Any
) -> None:
    """Each of these files once, and the listing is judged as a whole."""
    plan = decisive(plan_restore(store.list_all()))
    report = verify(store, level, scope="latest", scratch=scratch)
    assert report.ok
    assert report.bytes_read == size_of(list(plan)) < report.total_bytes
    [span] = report.ranges
    assert (span.min_txid, span.max_txid) == (4, 9)


def test_scope_latest_reads_all_once_something_is_damaged(
    store: TroubledStore, recorded: Recording
) -> None:
    """Then it matters what else there is; what is fine and not needed is not suspected."""
    [file] = [f for f in store.list_all() if (f.level, f.min_txid) == (1, 5)]
    overwrite(store, file, recorded.files[5, 7][:-9])
    report = verify(store, scope="latest")
    assert [f.name for f in report.bad_files] == [file.name]
    assert not report.bad_files[0].needed
    assert report.files_read == len(COMPACTED) - 1
    assert report.latest_ok and not report.ok


def test_restore_is_real_and_leaves_nothing(
    store: TroubledStore, recorded: Recording, scratch: Path
) -> None:
    """The newest state by default; its proof says what it is."""
    report = verify(store, "restore", scratch=scratch)
    proof = report.restored
    assert report.ok and proof is not None
    assert (proof.txid, proof.page_size) == (9, 512)
    assert proof.commit * 512 == len(recorded.images[9])
    assert proof.checksum == recorded.checksum(9)
    assert (proof.check, proof.integrity, proof.foreign_key_violations) == (
        "full",
        (),
        (),
    )
    assert proof.time.timestamp() * 1000 == 1_700_000_000_000 + 9000


def test_restore_of_an_earlier_state(
    store: TroubledStore, recorded: Recording, scratch: Path
) -> None:
    """By transaction or by time, as for ``restore``; one that is not there is reported."""
    proof = verify(store, "restore", txid=4, scratch=scratch).restored
    assert proof is not None and proof.txid == 4
    at = (1_700_000_000_000 + 6500) / 1000
    proof = verify(store, "restore", at=at, scope="latest", scratch=scratch).restored
    assert proof is not None and proof.txid == 6
    report = verify(store, "restore", txid=2, scratch=scratch)
    assert report.restored is None and not report.ok
    assert report.restore_error is not None
    assert "transaction 2 cannot be restored" in report.restore_error


def test_empty_replica_is_a_problem_and_no_error(tmp_path: Path) -> None:
    """There is no backup: a cron job has to hear of it."""
    for level in LEVELS:
        report = verify(tmp_path / "nothing", level, scratch=tmp_path)  # type: ignore[arg-type]
        assert not report.ok and not report.latest_ok
        assert report.problems == ("there is no backup: no LTX files",)
        assert (report.latest_txid, report.ranges) == (None, ())


def test_replica_of_litestream_0_3_is_proven_by_a_restore(
    tmp_path: Path, scratch: Path
) -> None:
    """It has no transactions; the listing tells whether the newest state is there."""
    old = OldReplica(tmp_path)
    old.checkpoint()
    old.snapshot()
    old.commit("INSERT INTO t(v) VALUES (randomblob(3000))")
    old.segment()
    image = old.image
    old.close()
    for level in LEVELS:
        report = verify(old.replica, level, scratch=scratch)  # type: ignore[arg-type]
        assert report.ok and report.ranges == ()
        assert [note.kind for note in report.notes] == ["generations"]
    assert report.restored is not None and report.restored.txid is None
    assert report.restored.commit * 1024 == len(image)
    assert "the state of 2020-09-13" in str(report)
    for path in old.replica.rglob("*.snapshot.lz4"):
        path.unlink()
    assert not verify(old.replica, "listing").latest_ok
    assert not verify(old.replica, "restore", scratch=scratch).latest_ok


def test_pins_are_promises(
    store: TroubledStore, recorded: Recording, scratch: Path
) -> None:
    """A pinned state that is lost is a problem, and so is a pin that cannot be read."""
    put_pin(store, "before", 6)
    put_pin(store, "release", 8)
    proof = verify(store, "restore", at="before", scratch=scratch).restored
    assert proof is not None and proof.txid == 6
    store.delete([f for f in store.list_level(0) if f.max_txid == 6])
    store.put_side("pins", "torn", b"{")
    report = verify(store, "listing")
    assert [pin.name for pin in report.lost_pins] == ["before"]
    assert report.damaged_pins == ("torn",)
    assert report.latest_ok and set(report.problems) == {
        "the pin 'before' keeps transaction 6, which is lost",
        "the pin 'torn' cannot be read",
    }
    report = verify(store, "restore", at="unknown", scratch=scratch)
    assert report.restore_error is not None and "'unknown'" in report.restore_error


def test_state_that_should_be_there_is_missed(store: TroubledStore) -> None:
    """Only who knows it can tell that the newest files are gone."""
    assert verify(store, at_least=9).ok
    report = verify(store, "listing", at_least=12)
    assert report.problems == (
        "transaction 12 should be there: the newest that can be restored is 9",
    )
    assert not report.latest_ok


# -- the report --------------------------------------------------------------------------


def hurt(store: TroubledStore) -> VerifyReport:
    """The report on a replica with a damaged file, of a name that is no HTML."""
    [file] = [f for f in store.list_all() if f.min_txid == 9]
    overwrite(store, file, b"<b>" * 50)
    store.name = store.label = "memory://<replica>"
    return verify(store)


def test_report_raises_for_problems(store: TroubledStore) -> None:
    """A cron job is two lines: the error carries the report and reads like it."""
    good = verify(store)
    assert good.raise_for_problems() is good
    report = hurt(store)
    with pytest.raises(VerificationError) as caught:
        report.raise_for_problems()
    assert caught.value.report is report and caught.value.kind == "latest"
    assert str(caught.value) == str(report)
    assert "level 0, 0000000000000009-0000000000000009.ltx: " in str(report)


def test_error_says_if_only_history_is_concerned(
    store: TroubledStore, recorded: Recording
) -> None:
    """The newest state may be fine all the same."""
    [file] = [f for f in store.list_all() if f.min_txid == 3]
    overwrite(store, file, recorded.files[3, 3][:-1])
    with pytest.raises(VerificationError) as caught:
        verify(store).raise_for_problems()
    assert caught.value.kind == "history"


def test_report_is_json_for_programs(store: TroubledStore, scratch: Path) -> None:
    """All fields by their names; times in RFC 3339."""
    found = json.loads(verify(store, "restore", scratch=scratch).to_json())
    assert found["ok"] and found["latest_ok"] and found["problems"] == []
    assert found["restored"]["txid"] == 9
    assert datetime.fromisoformat(found["started"]).utcoffset() is not None
    assert found["ranges"][0]["min_txid"] == 4
    found = json.loads(hurt(store).to_json())
    assert found["bad_files"][0]["kind"] == "magic"
    assert found["gaps"] == found["lost"] == [{"min_txid": 9, "max_txid": 9}]


def test_report_reads_well_and_shows_no_foreign_html(store: TroubledStore) -> None:
    """A few lines as text; a table in a notebook, with everything escaped."""
    good = verify(store)
    assert str(good).splitlines()[0] == "VerifyReport of memory:///replica: ok"
    assert len(str(good).splitlines()) < 6
    report = hurt(store)
    assert "problems, the newest state cannot be trusted" in str(report)
    html = report._repr_html_()
    assert "&lt;replica&gt;" in html and "<replica>" not in html


def test_long_report_is_cut(recorded: Recording) -> None:
    """A replica of which everything is damaged does not fill the log."""
    store = memory_store()
    for file in arrange(recorded, store, [(n % 8, n, n) for n in range(1, 10)] * 2):
        overwrite(store, file, b"x")
    for file in arrange(recorded, store, [(8, 1, n) for n in range(2, 9)]):
        overwrite(store, file, b"")
    report = verify(store)
    assert len(report.bad_files) == 16
    assert len(str(report).splitlines()) < 20
    assert "more" in str(report).splitlines()[-1]


def test_findings_are_what_has_to_be_healed(
    store: TroubledStore, recorded: Recording
) -> None:
    """What is needed comes first; what is lost without a name is a span."""
    [covered] = [f for f in store.list_all() if (f.level, f.min_txid) == (1, 5)]
    overwrite(store, covered, b"")
    store.delete([f for f in store.list_all() if (f.level, f.min_txid) == (0, 8)])
    lost, damaged = findings(verify(store))
    assert (lost.kind, lost.level, lost.min_txid, lost.max_txid) == ("lost", None, 8, 8)
    assert lost.needed and lost.file is None
    assert (damaged.kind, damaged.needed) == ("empty", False)
    assert damaged.file is not None
    store.delete([damaged.file])
    assert covered.name not in {f.name for f in store.list_all() if f.level == 1}


# -- progress, pace, stop ----------------------------------------------------------------


def test_callback_is_told_the_bytes(store: TroubledStore, scratch: Path) -> None:
    """In the end what was expected has been read."""
    for level in ("checksums", "restore"):
        callback = Callback()
        report = verify(store, level, callback=callback, scratch=scratch)  # type: ignore[arg-type]
        assert callback.size == callback.value == report.bytes_read


def test_pace_is_told_each_piece(tmp_path: Path) -> None:
    """So a background thread can sleep in proportion; pieces are small."""
    made = Recording(tmp_path / "a.db", memory_store())
    made.commit("CREATE TABLE t(b)", "INSERT INTO t VALUES (randomblob(6000000))")
    made.close()
    pieces: list[int] = []
    report = verify(made.store, parallel=1, pace=pieces.append)
    assert sum(pieces) == report.bytes_read
    assert max(pieces) <= 1 << 20 < report.bytes_read / 4


@pytest.mark.parametrize("level", LEVELS)
def test_verification_can_be_stopped_at_any_moment(
    store: TroubledStore, scratch: Path, level: Any
) -> None:
    """It ends with an error of its own and leaves nothing."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > most

    most = 10**9
    assert verify(store, level, stop=stop, scratch=scratch).ok
    needed = asked
    assert needed >= (1 if level == "listing" else len(COMPACTED))
    for most in range(needed):  # noqa: B007
        asked = 0
        with pytest.raises(VerifyStoppedError) as caught:
            verify(store, level, stop=stop, scratch=scratch)
        assert caught.value.kind == "stopped"
        assert list(scratch.iterdir()) == []


# -- arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "full"}, "level='full' is none of 'listing'"),
        ({"scope": "all"}, "scope='all' is none of"),
        ({"level": "restore", "check": True}, "check=True is none of"),
        ({"level": "checksums", "txid": 3}, "at and txid choose"),
        ({"level": "restore", "txid": 3, "at": "1h ago"}, "not both"),
        ({"level": "restore", "txid": 0}, "count from 1"),
        ({"level": "restore", "at": "2026-01-31"}, "has no time zone"),
        ({"parallel": 0}, "parallel=0"),
        ({"at_least": 0}, "at_least=0"),
        ({"storage_options": {"a": 1}}, "storage_options are for a URL"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    store: TroubledStore, options: dict[str, Any], message: str
) -> None:
    """Before any request is made."""
    with pytest.raises(ValueError, match=message):
        verify(store, **options)
    assert store.requests.total() == 0


def test_several_replicas_are_refused(tmp_path: Path) -> None:
    """Each has a report of its own."""
    with pytest.raises(ValueError, match="one replica is verified at a time"):
        verify([tmp_path / "a", tmp_path / "b"])  # type: ignore[arg-type]


def test_parallel_bounds_requests_and_memory(tmp_path: Path) -> None:
    """One request at a time with ``parallel=1``; a large file is never in memory whole."""
    import tracemalloc

    made = Recording(tmp_path / "a.db", LTXStore.open(tmp_path / "r"))
    made.commit("CREATE TABLE t(b)", "INSERT INTO t VALUES (randomblob(40000000))")
    made.close()
    store = TroubledStore.at(tmp_path / "r")
    reading, most = 0, 0

    def begin(file: FileInfo, start: int) -> None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)

    real = store._read

    def read(key: str, start: int, end: int, size: int) -> bytes:
        nonlocal reading
        try:
            return real(key, start, end, size)
        finally:
            reading -= 1

    store.before_get, store._read = begin, read  # type: ignore[method-assign]
    made.images.clear(), made.files.clear()
    tracemalloc.start()
    report = verify(store, parallel=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.ok and most == 1
    assert report.bytes_read > 40_000_000 > 2 * peak
