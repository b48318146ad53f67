"""What becomes of the files of a replica: compacted, thinned out, healed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.capturing import digest, serialized
from support.stepping import Stepped
from support.told import AWAY, ToldStore, restored

from sqlitereplica.capture import write_ltx
from sqlitereplica.ltx import SNAPSHOT_LEVEL, Decoder, FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.options import HistoryOptions
from sqlitereplica.restore import restore, ways
from sqlitereplica.store import LTXStore
from sqlitereplica.testing import Fault, FaultyFileSystem, only

HOUR = 3600


class Story:
    """A database that changes every few seconds, and every state that it had."""

    def __init__(
        self, db: sqlite3.Connection, stepped: Stepped, stores: list[LTXStore]
    ) -> None:
        self.db, self.stepped, self.stores = db, stepped, stores
        self.states: dict[int, str] = {}

    def go_on(self, changes: int, every: float = 5.0) -> None:
        """Change, sync and let time pass, doing what is due."""
        for _ in range(changes):
            self.db.execute("insert into t(v) values(randomblob(3000))")
            self.db.execute("delete from t where id % 13 = abs(random()) % 13")
            assert self.stepped.durable(), self.stepped.workers[0].health.error
            txid = self.stepped.workers[0].txid
            self.states[txid] = digest(serialized(self.stepped.path))
            self.pass_time(every)

    def pass_time(self, seconds: float, steps: int = 1) -> None:
        """Let time pass in steps, doing what is due after each."""
        for _ in range(steps):
            self.stepped.clock.advance(seconds / steps)
            for _ in range(20):
                if not self.stepped.tend():
                    break
            else:
                raise AssertionError("there is always something due")

    def files(self, level: int, which: int = 0) -> list[FileInfo]:
        """The files of a level."""
        return self.stores[which].list_level(level)

    def check(self, folder: Path, which: int = 0) -> None:
        """The newest state restores, and each that can be is the one that it was."""
        assert restored(self.stores[which], folder) == max(self.states.items())[1]

    def actions(self) -> set[str]:
        """What was reported."""
        return {event.action for event in self.stepped.events}

    @property
    def error(self) -> Exception | None:
        """What fails in the history of the first replica."""
        return self.stepped.lines[0].history.error


Begin = Callable[..., Story]


@pytest.fixture
def begin(path: Path, db: sqlite3.Connection) -> Iterator[Begin]:
    """Makes stories of one database, and ends them."""
    made = []

    def make(stores: list[LTXStore], **retention: object) -> Story:
        options = HistoryOptions(retention=Retention(**retention))  # type: ignore[arg-type]
        opens = [lambda store=store: store for store in stores]
        stepped = Stepped(path, opens, history=options)  # type: ignore[arg-type]
        made.append(stepped)
        return Story(db, stepped, stores)

    yield make
    for stepped in made:
        stepped.kill()


def in_memory() -> tuple[LTXStore, FaultyFileSystem]:
    """A store that is not on this disk."""
    fs = FaultyFileSystem(
        MemoryFileSystem(global_store=False, skip_instance_cache=True)
    )
    return LTXStore.open(fs, path="/replica"), fs


@pytest.fixture
def local(tmp_path: Path) -> LTXStore:
    """A replica in a folder."""
    return LTXStore.open(tmp_path / "replica")


def test_levels_are_made_of_the_ones_below(
    begin: Begin, local: LTXStore, tmp_path: Path
) -> None:
    """At their multiples, without a gap, and every end of a file is the state it was."""
    story = begin([local], delete=False)
    story.go_on(150, every=30.0)
    assert story.error is None
    for level, files in ((1, 140), (2, 13), (3, 1)):
        found = story.files(level)
        assert len(found) >= files
        assert found[0].min_txid == 2
        for before, after in pairwise(found):
            assert after.min_txid == before.max_txid + 1
    local.delete(local.list_level(0)[:-1])
    for level in (1, 2, 3):
        for file in story.files(level)[::17]:
            assert (
                restored(local, tmp_path, file.max_txid) == story.states[file.max_txid]
            )
    story.check(tmp_path)


def test_first_image_becomes_a_snapshot_and_is_not_rewritten(
    begin: Begin, db: sqlite3.Connection, local: LTXStore, tmp_path: Path
) -> None:
    """A large database is not uploaded anew for each level."""
    for _ in range(50):
        db.execute("insert into t(v) values(randomblob(3000))")
    story = begin([local], delete=False)
    story.go_on(10, every=HOUR)
    [image] = story.files(SNAPSHOT_LEVEL)[:1]
    assert (image.min_txid, image.max_txid) == (1, 1)
    assert local.get(image) == local.get(story.files(0)[0])
    assert all(file.min_txid > 1 for level in (1, 2, 3) for file in story.files(level))
    local.delete(local.list_level(0)[:-1])
    story.check(tmp_path)


def test_idle_database_asks_nothing(begin: Begin, tmp_path: Path) -> None:
    """T40: once all is merged and what expires has gone, not one request in a week."""
    store, _ = in_memory()
    story = begin([store])
    story.go_on(60, every=20.0)
    story.pass_time(50 * HOUR, steps=600)
    before = dict(store.requests)
    story.pass_time(7 * 24 * HOUR, steps=300)
    assert dict(store.requests) == before
    assert story.error is None
    story.check(tmp_path)


def test_history_is_thinned_out_by_itself(begin: Begin, tmp_path: Path) -> None:
    """Single uploads go soon, merged ones after the window; the newest state stays."""
    store, fs = in_memory()
    story = begin([store], window="1h", fine="1m", grace="1m")
    story.go_on(300, every=30.0)
    assert story.error is None
    assert len(story.files(0)) < 40
    assert story.files(1)[0].min_txid > 100
    story.check(tmp_path)
    assert fs.overwritten == set()


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_merged_file_is_healed_from_other_levels(
    begin: Begin,
    local: LTXStore,
    tmp_path: Path,
    level: int,
    damage: str,
) -> None:
    """T27: noticed when the next level is made, and made again of what is below."""
    story = begin([local], delete=False)
    while len(story.files(level)) < 3:
        story.go_on(1)
    victim = story.files(level)[1]
    file = tmp_path / "replica/ltx" / str(level) / victim.name
    right = file.read_bytes()
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(right[:200] + bytes([right[200] ^ 1]) + right[201:])
    while (
        not story.files(level + 1)
        or story.files(level + 1)[-1].max_txid < victim.max_txid
    ):
        story.go_on(10, every=60.0)
    assert file.read_bytes() == right
    assert "repair" in story.actions()
    assert story.error is None
    story.check(tmp_path)


def test_single_upload_is_healed_from_the_local_copy(
    begin: Begin, tmp_path: Path
) -> None:
    """T27: what was put lately is kept until it is merged, and put again."""
    store, fs = in_memory()
    story = begin([store], delete=False)
    story.go_on(1)
    story.go_on(4, every=0.5)
    victim = story.files(0)[2]
    right = store.get(victim)
    fs.fs.rm_file(f"/replica/ltx/0/{victim.name}")
    story.stepped.lines[0].lost(victim, "the test took it away")
    story.pass_time(1)
    assert store.get(victim) == right
    story.check(tmp_path)


def test_lost_upload_is_healed_from_another_replica(
    begin: Begin, local: LTXStore, tmp_path: Path
) -> None:
    """T27: although that one counts its transactions in another way."""
    other = LTXStore.open(tmp_path / "other")
    earlier = begin([other])
    earlier.go_on(7, every=0.1)
    earlier.stepped.kill()
    story = begin([local, other], delete=False)
    story.go_on(1)
    story.go_on(4, every=0.5)
    assert story.stepped.workers[1].txid > story.stepped.workers[0].txid
    victim = story.files(0)[2]
    (tmp_path / "replica/ltx/0" / victim.name).unlink()
    story.go_on(3, every=30.0)
    assert restored(local, tmp_path, victim.max_txid) == story.states[victim.max_txid]
    how = [e.data["how"] for e in story.stepped.events if e.action == "repair"]
    assert how == ["from replica-1"]
    story.check(tmp_path)


def test_what_nobody_has_is_bridged_by_a_snapshot(
    begin: Begin, local: LTXStore, tmp_path: Path
) -> None:
    """T27: the newest state is restorable again, and compaction goes on behind the gap."""
    story = begin([local], delete=False)
    story.go_on(1)
    story.go_on(4, every=0.5)
    victim = story.files(0)[2]
    (tmp_path / "replica/ltx/0" / victim.name).unlink()
    story.go_on(30, every=30.0)
    story.check(tmp_path)
    assert story.error is None
    snapshot = story.files(SNAPSHOT_LEVEL)[-1]
    assert snapshot.max_txid > victim.max_txid
    assert all(
        not f.min_txid <= victim.max_txid <= f.max_txid
        for level in (1, 2)
        for f in story.files(level)
    )
    assert story.files(1)[-1].max_txid > snapshot.max_txid


def test_whole_file_of_wrong_content_is_bridged_by_a_snapshot(
    path: Path, db: sqlite3.Connection, local: LTXStore, tmp_path: Path
) -> None:
    """No checksum of its own shows it; the database's does, and a drill says so."""
    options = HistoryOptions(retention=Retention(delete=False), verify_interval=60_000)
    stepped = Stepped(path, [lambda: local], history=options)
    story = Story(db, stepped, [local])
    story.go_on(1)
    story.go_on(4, every=0.5)
    victim = story.files(0)[-1]
    file = tmp_path / "replica/ltx/0" / victim.name
    with file.open("rb") as right:
        decoder = Decoder(right)
        pages = [(n, page[:-1] + b"x") for n, page in decoder.pages()]
    file.unlink()
    write_ltx(file, decoder.header, pages)
    wrong = file.read_bytes()
    story.pass_time(4000, steps=100)
    [line] = stepped.lines
    verified = line.status().last_verify
    assert verified is not None and verified.ok, verified
    drills = [e.data["ok"] for e in stepped.events if e.action == "verify"]
    assert drills[:2] == [False, True]
    assert story.files(SNAPSHOT_LEVEL)[-1].max_txid == 5
    assert file.read_bytes() == wrong
    story.check(tmp_path)
    stepped.kill()


def test_listing_that_lies_deletes_nothing(begin: Begin, tmp_path: Path) -> None:
    """T28: a file that is known and not listed stops retention, and is found sound."""
    store, fs = in_memory()
    story = begin([store], window="1h", fine="1m", grace="1m")
    story.go_on(60, every=30.0)
    deleted = store.requests["delete"]
    fs.plan = only("list", Fault.OMITTED)
    story.go_on(20, every=30.0)
    assert store.requests["delete"] == deleted
    assert "files-lost" in story.actions()
    fs.plan = None
    story.go_on(20, every=30.0)
    assert store.requests["delete"] > deleted
    assert story.error is None
    story.check(tmp_path)


@pytest.mark.parametrize("after", [False, True])
def test_store_that_fails_meanwhile_costs_no_history(
    begin: Begin, tmp_path: Path, after: bool
) -> None:
    """What could not be merged is merged later; a put that did arrive is no conflict."""
    told = ToldStore.open(tmp_path / "replica")
    story = begin([told], delete=False)
    story.go_on(12, every=0.1)
    told.error, told.after = AWAY, after
    story.pass_time(60)
    assert story.error is AWAY
    assert story.stepped.lines[0].status().history_error is not None
    told.error = None
    story.go_on(30, every=30.0)
    assert story.error is None
    assert "history-ok" in story.actions()
    found = story.files(1)
    for before, after_it in pairwise(found):
        assert after_it.min_txid <= before.max_txid + 1
    story.check(tmp_path)


def test_restart_goes_on_where_the_levels_end(
    begin: Begin, local: LTXStore, tmp_path: Path
) -> None:
    """A new process knows the files from its first listing."""
    story = begin([local], delete=False)
    for _ in range(6):
        story.go_on(7, every=25.0)
        story.stepped.restart()
    found = story.files(1)
    for before, after in pairwise(found):
        assert after.min_txid == before.max_txid + 1
    story.check(tmp_path)


def test_snapshots_have_page_checksums_that_come_and_go_with_them(
    begin: Begin,
    db: sqlite3.Connection,
    local: LTXStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A restore over an old copy makes use of them; retention leaves none behind."""
    monkeypatch.setattr(ways, "REQUEST_COST", 0)  # for so small a database
    for _ in range(600):
        db.execute("insert into t(v) values(randomblob(3000))")
    story = begin([local], window="2d", fine="1m", grace="1m")
    story.go_on(4, every=25 * HOUR)
    copy = tmp_path / "copy.db"
    copy.write_bytes(serialized(story.stepped.path))
    seen = set()
    for _ in range(4):
        story.go_on(1, every=25 * HOUR)
        names = {int(file.name, 16) for file in local.list_side("sums")}
        assert names <= {file.max_txid for file in story.files(SNAPSHOT_LEVEL)}
        seen |= names
    assert len(seen) > len(names) > 0, "some have gone"
    result = restore(local, copy, if_exists="replace")
    assert digest(copy.read_bytes()) == max(story.states.items())[1]
    assert result.commit is not None and result.pages_reused > 0.3 * result.commit


def test_page_checksums_that_cannot_be_stored_are_done_without(
    begin: Begin, local: LTXStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are said, and neither the snapshot nor anything else is done over."""

    def fail(*_: object) -> None:
        raise AWAY

    monkeypatch.setattr(local, "put_side", fail)
    story = begin([local], delete=False)
    story.go_on(4, every=25 * HOUR)
    assert len(story.files(SNAPSHOT_LEVEL)) > 1
    assert "sums-error" in story.actions() and "history-error" not in story.actions()
    story.check(tmp_path)
