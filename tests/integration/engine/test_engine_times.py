"""Times of a replica of ours never fall, so that a restore to a time is never too late."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.capturing import digest, make_database, serialized
from support.stepping import FakeClock, Stepped
from support.told import AWAY, ToldStore

from sqlitereplica import NotRestorableError, restore, restore_points
from sqlitereplica.store import LTXStore

HOUR = 3_600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Life:
    """A database with two replicas whose clock is set back and forth, and its states.

    ``seen`` has the digest of each state that was made durable, with what the clock showed
    when it was committed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.path = folder / "a.db"
        self.app = make_database(self.path)
        self.stores = [ToldStore.open(folder / name) for name in ("one", "two")]
        self.clock = FakeClock()
        self.stepped = Stepped(
            self.path,
            [lambda s=store: s for store in self.stores],  # type: ignore[misc]
            clock=self.clock,
        )
        self.seen: list[tuple[str, int]] = []

    def live(self) -> None:
        """One thing that may happen."""
        what = self.random.choice(["commit"] * 4 + ["clock", "snapshot", "restart"])
        if what == "clock":
            change = self.random.choice([-2, -1, -1, 1]) * HOUR
            self.clock.wall_ms += change + self.random.randrange(-5, 5)
        elif what == "restart":
            self.stepped.restart()
        elif what == "snapshot":
            for line in self.stepped.lines:
                line.request_snapshot()
            self.stepped.tend()
        else:
            self.commit()

    def commit(self) -> None:
        """A commit, durable in one replica or in both, in the same millisecond or later."""
        self.app.execute("insert into t(v) values(randomblob(50))")
        self.seen.append((digest(serialized(self.path)), self.clock.wall_ms))
        away = self.random.choice([None, None, *self.stores])
        if away is not None:
            away.error = AWAY
        self.stepped.sync()
        self.clock.advance(self.random.choice([0, 0, 0.001, 30, 100]))
        for store in self.stores:
            store.error = None

    def end(self) -> None:
        """Bring both replicas up to date and stop."""
        self.clock.advance(100)
        assert self.stepped.durable()
        self.stepped.engine.close()
        self.app.close()

    def restored(self, store: LTXStore, before: int) -> int | None:
        """The index in ``seen`` of what a restore to a time gives."""
        target = self.folder / "restored.db"
        moment = EPOCH + timedelta(milliseconds=before)
        try:
            result = restore(store, target, at=moment, if_exists="replace")
        except NotRestorableError:
            return None
        assert restore_points(store).at(moment).txid == result.txid
        digests = [found for found, _ in self.seen]
        return digests.index(digest(target.read_bytes()))


@pytest.mark.parametrize("seed", range(6))
def test_no_restore_to_a_time_gives_what_was_committed_at_it_or_later(
    tmp_path: Path, seed: int
) -> None:
    """Times rise with transactions over all levels, whatever the clock and the store do."""
    life = Life(tmp_path, seed)
    life.commit()
    for _ in range(25):
        life.live()
    life.end()
    for store in life.stores:
        files = store.list_all(accurate=True)
        for end in {file.max_txid for file in files}:
            till = max(f.timestamp for f in files if f.max_txid <= end)
            after = [f.timestamp for f in files if f.max_txid > end]
            assert till <= min(after, default=till)
        times = sorted({file.timestamp for file in files})
        for time in life.random.sample(times, min(4, len(times))):
            for before in (time, time + 1):
                last = life.restored(store, before)
                if last is not None:
                    shown = max(wall for _, wall in life.seen[: last + 1])
                    assert shown < before


def test_takeover_goes_on_from_the_time_of_the_replica(
    tmp_path: Path,
) -> None:
    """Another machine's clock may be hours behind: its states are later all the same."""
    path = tmp_path / "a.db"
    app = make_database(path)
    store = ToldStore.open(tmp_path / "replica")
    clock = FakeClock()
    for hours in (0, 5, 1):
        clock.wall_ms -= hours * HOUR
        app.execute("insert into t(v) values(1)")
        stepped = Stepped(path, [lambda: store], clock=clock)
        assert stepped.durable()
        stepped.engine.close()
        for file in stepped.meta.iterdir():
            if file.is_file():
                file.unlink()
    app.close()
    times = [file.timestamp for file in store.list_all(accurate=True)]
    assert times == sorted(times) and len(times) == 3
    points = restore_points(store)
    assert points.at(points[2].time + timedelta(milliseconds=1)).txid == 3
