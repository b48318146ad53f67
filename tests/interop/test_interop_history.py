"""Histories that were compacted and thinned out: each tool restores, and continues, the other's.

Ours are stepped over a clock of the test's, so an hour passes in a second or two and the same
files are merged and deleted every time. Litestream's daemon has its levels at fractions of a
second; what it has to come to is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import pytest
from support.capturing import make_database, serialized
from support.daemon import Daemon
from support.histories import fill, steps
from support.litestream import Litestream
from support.places import Place, only_litestream_checkpoints
from support.servers import S3Server
from support.stepping import FakeClock, Stepped

from sqlitereplica import Retention
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.replicate.options import HistoryOptions
from sqlitereplica.restore.plan import plan_restore, reachable_txids, to_datetime

pytestmark = pytest.mark.interop

MILLISECOND = timedelta(milliseconds=1)
MINUTE = 60_000

HOUR = HistoryOptions(
    snapshot_interval=15 * MINUTE,
    retention=Retention(window="20m", fine="2m", grace="1m"),
)
"""Within an hour of the test's clock all happens that can happen."""
SECOND = HistoryOptions(
    levels=(200, 600),
    snapshot_interval=1000,
    retention=Retention(window="900ms", fine="300ms", grace="100ms"),
)
"""Within two seconds, and as well with the daemon's:"""
THEIRS: dict[str, Any] = {
    "levels": [{"interval": "200ms"}, {"interval": "600ms"}],
    "snapshot": {"interval": "1s", "retention": "1500ms"},
    "l0_retention": "300ms",
    "l0_retention_check_interval": "100ms",
    "verify_compaction": True,
}
PATIENCE = 80.0


class Known:
    """A place, and every state that was shipped there, as the application saw it."""

    def __init__(self, place: Place, page_size: int = 4096) -> None:
        self.place = place
        self.app = make_database(place.database, page_size=page_size, auto_vacuum=2)
        only_litestream_checkpoints(self.app)
        self.images: dict[int, bytes] = {}
        self.times: dict[int, int] = {}
        """By TXID, in milliseconds; of those that we shipped."""
        self._steps = chain.from_iterable(
            steps(self.app, page_size) for _ in repeat(None)
        )

    def close(self) -> None:
        """Let the database go."""
        self.app.close()

    # -- replication: everything that is committed is shipped, and remembered ----------

    @contextmanager
    def ours(self, history: HistoryOptions, *, ago: float = 0.0) -> Iterator[Ours]:
        """Our engine, over a clock that begins so many seconds ago."""
        clock = FakeClock()
        clock.wall_ms = round((time.time() - ago) * 1000)
        stepped = Stepped(
            self.place.database, [self.place.replica.open], clock=clock, history=history
        )
        try:
            yield Ours(self, stepped)
        finally:
            stepped.kill()

    def change(self, *, little: bool = False) -> None:
        """Do something to the database: among it are VACUUM, and what shrinks it."""
        if little:
            fill(self.app, 3)
        else:
            next(self._steps)

    def note(self, sync: Callable[[], object]) -> None:
        """Ship what is committed by the daemon, and remember it by its TXID.

        The daemon writes to the database when it likes, so again until it did not.
        """
        txid = -1
        while txid != (txid := self._shipped(sync)):
            image = serialized(self.place.database)
        self.images[txid] = image

    def go_on_beside(self, daemon: Daemon) -> None:
        """A small change, shipped by the daemon."""
        self.change(little=True)
        self.note(daemon.sync)

    def _shipped(self, sync: Callable[[], object]) -> int:
        sync()
        return self.place.txid

    def until(
        self, is_done: Callable[[list[FileInfo]], bool], go_on: Callable[[], object]
    ) -> None:
        """Go on until the files of the replica are as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not is_done(files := self.place.replica.open().list_all()):
            assert time.monotonic() < deadline, listed(files)
            go_on()

    # -- restores ----------------------------------------------------------------------

    def check(self, most: int = 4) -> None:
        """By both tools, at TXIDs and at times: the same bytes, and the right ones."""
        assert self.place.latest() == serialized(self.place.database)
        files = self.place.files()
        txids = [t for t in reachable_txids(files) if t in self.images]
        assert txids, listed(files)
        for txid in spread(txids, most):
            assert self.place.at_txid(txid) == self.images[txid], txid
        # Before the first image there is nothing to restore, for either of us, and
        # Litestream refuses times after its newest file.
        first = min(f.timestamp for f in files if f.min_txid == 1)
        times = sorted({f.timestamp for f in files if f.timestamp >= first})
        for moment, after in spread(list(pairwise(times)), most):
            self._check_at(files, moment + 1)
            if after == times[-1]:
                self._check_at(files, after)

    def _check_at(self, files: list[FileInfo], asked: int) -> None:
        txid = plan_restore(files, before=asked)[-1].max_txid
        found = self.place.at_time(to_datetime(asked))
        assert found == self.images.get(txid, found)
        if self.times.keys() >= {f.max_txid for f in files}:
            # All of it is ours: what has to come is known without any plan.
            right = [t for t in reachable_txids(files) if self.times[t] < asked]
            assert found == self.images[right[-1]]


class Ours:
    """Our engine on a known place."""

    def __init__(self, known: Known, stepped: Stepped) -> None:
        self.known, self.stepped = known, stepped

    def ship(self, milliseconds: int) -> None:
        """Ship what is committed, let time pass, and do all that is due then."""
        known, stepped = self.known, self.stepped
        assert stepped.durable(), stepped.workers[0].health.error
        txid = stepped.workers[0].txid
        if txid not in known.images:
            known.images[txid] = serialized(known.place.database)
            known.times[txid] = stepped.clock.wall_ms
        stepped.clock.advance(milliseconds / 1000)
        while stepped.tend():
            continue
        assert stepped.lines[0].history.error is None

    def keep_pace(self) -> None:
        """As the daemon does it, whose time must not be overtaken."""
        self.known.change(little=True)
        self.ship(20)
        while (time.time_ns() // 1_000_000) < self.stepped.clock.wall_ms:
            time.sleep(0.001)


def spread(items: list[Any], most: int) -> list[Any]:
    """Some of them: the first, the last and some between."""
    if len(items) <= most:
        return items
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def listed(files: list[FileInfo]) -> list[tuple[int, int, int]]:
    """Levels and transactions, to be read."""
    return [(file.level, file.min_txid, file.max_txid) for file in files]


def of_level(files: list[FileInfo], level: int) -> list[FileInfo]:
    """The files of a level, in order."""
    return [file for file in files if file.level == level]


def is_thinned_out(files: list[FileInfo]) -> bool:
    """True once levels 1, 2 and 9 were made, and each level lost its beginning."""
    firsts = {file.level: file.min_txid for file in reversed(files)}
    snapshots = of_level(files, SNAPSHOT_LEVEL)
    return (
        all(firsts.get(level, 0) > 2 for level in (0, 1, 2))
        and bool(snapshots)
        and snapshots[0].max_txid > 1
    )


@pytest.fixture
def make(
    request: pytest.FixtureRequest, tmp_path: Path, litestream: Litestream
) -> Iterator[Callable[..., Known]]:
    """Makes one with a replica in a folder or on S3."""
    made = []

    def make_one(where: str = "file", page_size: int = 4096) -> Known:
        place = Place.local(tmp_path, litestream)
        if where == "s3":
            server: S3Server = request.getfixturevalue("s3_server")
            bucket = server.make_bucket()
            place = Place.on_s3(tmp_path, litestream, server, bucket, "app")
        made.append(Known(place, page_size))
        return made[-1]

    yield make_one
    for known in made:
        known.close()


@pytest.mark.parametrize(
    ("where", "page_size"),
    [
        ("file", 512),
        ("file", 65536),
        pytest.param("s3", 4096, marks=pytest.mark.s3),
    ],
)
def test_what_we_compacted_and_thinned_out_is_restored(
    make: Callable[..., Known], where: str, page_size: int
) -> None:
    """Latest, by TXID and by time, soon after the first compaction and in the long run."""
    known = make(where, page_size)
    with known.ours(HOUR, ago=7200) as ours:
        for _ in range(9):
            known.change()
            ours.ship(MINUTE // 4)
        # The first image has become a snapshot, and level 1 begins behind it.
        files = known.place.files()
        assert (9, 1, 1) in listed(files)
        assert of_level(files, 1)[0].min_txid == 2
        known.check(2)
        for number in range(14):
            known.change(little=number % 2 > 0)
            ours.ship(3 * MINUTE)
    files = known.place.files()
    assert is_thinned_out(files), listed(files)
    known.check()


@pytest.mark.parametrize("page_size", [512, 65536])
def test_what_its_daemon_compacted_and_thinned_out_is_restored(
    make: Callable[..., Known], page_size: int
) -> None:
    """The same the other way round."""
    known = make("file", page_size)
    with known.place.theirs(**THEIRS) as daemon:
        for _ in range(9):
            known.change()
            known.note(daemon.sync)
        known.until(is_thinned_out, lambda: known.go_on_beside(daemon))
    known.check(3)


def test_its_daemon_takes_over_right_after_our_first_compaction(
    make: Callable[..., Known],
) -> None:
    """The first image is a snapshot by then and level 1 begins behind it: nothing is lost."""
    known = make()
    with known.ours(HOUR, ago=3600) as ours:
        for _ in range(3):
            known.change()
            ours.ship(MINUTE // 4)
    files = known.place.files()
    assert {f.level for f in files} == {0, 1, 9}
    assert of_level(files, 1)[0].min_txid == 2
    last = known.place.txid
    with known.place.theirs(**THEIRS) as daemon:
        known.until(
            lambda files: all(
                files and files[0].min_txid > last
                for files in (of_level(files, 0), of_level(files, 1))
            ),
            lambda: known.go_on_beside(daemon),
        )
    known.check(3)


@pytest.mark.parametrize("first", [0, 1], ids=["ours-first", "theirs-first"])
def test_tools_that_alternate_compact_and_thin_out_without_a_gap(
    make: Callable[..., Known], first: int
) -> None:
    """Each goes on with the levels of the other, and deletes what is due of its files."""
    known = make()
    for turn in range(first, first + 3):
        last = known.place.txid

        def is_done(files: list[FileInfo], last: int = last) -> bool:
            new = {f.level for f in files if f.max_txid > last}
            return new >= {0, 1, 2, 9} and files[0].min_txid > last

        known.change()
        if turn % 2 == 0:
            with known.ours(SECOND) as ours:
                known.until(is_done, ours.keep_pace)
        else:
            with known.place.theirs(**THEIRS) as daemon:
                known.until(is_done, lambda: known.go_on_beside(daemon))
        known.check(3)
