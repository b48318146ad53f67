"""T29, T33, T34: histories of real LTX bytes under compaction, snapshots and retention.

Model: the bytes of the database at each TXID, and the time of it. After any sequence of
commits, compactions, snapshots, pins, jumps of the clock and deletions, every state that
can be restored has its bytes, and all that the policy promises can be restored.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.pagemodel import PAGE_SIZE, checksum, overlay, restored
from support.planmodel import model_plan

from sqlitereplica import ltx
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.retention import due, kept_points, unneeded_files
from sqlitereplica.replicate.schedule import (
    DEFAULT_LEVELS,
    compaction_inputs,
    snapshot_due,
)
from sqlitereplica.restore.plan import decisive, plan_restore, reachable_txids
from sqlitereplica.store.reach import Gap, find_gaps

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
START = 1_706_655_600_000  # 2024-01-30, 23:00 UTC

policies = st.builds(
    Retention,
    window=st.sampled_from(["0s", "40s", "10m", "2h", "1d", "3d"]),
    fine=st.sampled_from(["0s", "5s", "1m", "5m"]),
    keep_last=st.sampled_from([0, 0, 1, 2]),
    hourly=st.sampled_from([0, 0, 2, 5]),
    daily=st.sampled_from([0, 0, 2, 5]),
    weekly=st.sampled_from([0, 0, 2]),
    monthly=st.sampled_from([0, 0, 1, 2]),
    grace=st.sampled_from(["0s", "2m", "1h"]),
)
PERIODS = {"hourly": HOUR, "daily": DAY}


def gaps_of(files: list[FileInfo]) -> list[Gap]:
    """What ``verify`` would call missing."""
    return find_gaps(files, reachable_txids(files))


@dataclass
class Reading:
    """A restore that began: when, and what it is going to read."""

    since: float
    files: frozenset[FileInfo]


class HistoryMachine(RuleBasedStateMachine):
    """One replica, written and tended by the pure decisions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.content: dict[FileInfo, bytes] = {}
        self.pages: dict[int, bytes] = {}
        self.states = [b""]
        self.times = [0]
        self.now, self.clock = START, 0.0
        self.doomed: dict[FileInfo, float] = {}
        self.last_run: dict[int, int] = {}
        self.merged: set[int] = set()
        self.images: set[int] = set()
        self.pins: set[int] = set()
        self.periods: dict[str, set[int]] = {rule: set() for rule in PERIODS}
        self.latest_judged = 0
        self.readings: list[Reading] = []
        self.proven: set[tuple[FileInfo, ...]] = set()
        self.is_usual = True  # times rise, and every file has that of its state

    @initialize(policy=policies)
    def begin(self, policy: Retention) -> None:
        """One policy for the whole history: what it promises holds for good."""
        self.policy = policy
        self.write({1: b"\1" * PAGE_SIZE})

    # -- what happens ------------------------------------------------------------------

    @rule(
        size=st.integers(1, 6),
        changed=st.sets(st.integers(1, 6), max_size=3),
        times=st.integers(1, 5),
        pause=st.sampled_from([0, 1, SECOND, 20 * SECOND]),
    )
    def commit(self, size: int, changed: set[int], times: int, pause: int) -> None:
        """A few uploads; the database grows or shrinks."""
        for _ in range(times):
            pages = {p for p in changed if p <= size}
            pages |= set(range(len(self.pages) + 1, size + 1))
            stamp = len(self.states).to_bytes(7, "big")
            self.write(
                {p: (stamp + bytes([p])) * (PAGE_SIZE // 8) for p in pages}, size
            )
            self.pass_time(pause)

    @rule(time=st.sampled_from([SECOND, 30 * SECOND, 5 * MINUTE, HOUR, 7 * HOUR, DAY]))
    def pass_time(self, time: int) -> None:
        """Both clocks go on."""
        self.now += time
        self.clock += time / 1000

    @rule(time=st.sampled_from([1, MINUTE, 2 * HOUR, 2 * DAY]))
    def set_clock_back(self, time: int) -> None:
        """The time of day jumps; levels, periods and times of files do not fit any more."""
        self.now -= time
        self.is_usual = False

    @rule(most=st.integers(1, 9))
    def compact_what_is_due(self, most: int) -> None:
        """Each level whose interval ended, the lowest first, in pieces."""
        for level, interval in enumerate(DEFAULT_LEVELS, 1):
            if self.last_run.get(level, -1) // interval == self.now // interval:
                continue
            while self.compact(level, most):
                pass
            self.last_run[level] = self.now

    @rule(level=st.integers(1, 3), most=st.integers(1, 9))
    def compact_now(self, level: int, most: int) -> None:
        """One run of a level, out of turn."""
        self.compact(level, most)

    def compact(self, level: int, most: int) -> bool:
        """One run of a level; True if there is more to do."""
        run = compaction_inputs(list(self.content), level, max_files=most)
        assert run.gap is None or run.files, "nothing is lost here"
        if run.files:
            self.merge(level, run.files)
        return run.more

    @precondition(lambda self: self.is_advanced())
    @rule()
    def snapshot(self) -> None:
        """A snapshot made of what the replica has."""
        self.merge(SNAPSHOT_LEVEL, decisive(plan_restore(list(self.content))))

    @precondition(lambda self: self.is_advanced() and self.now >= max(self.times))
    @rule()
    def snapshot_of_litestream(self) -> None:
        """A snapshot with the time when it was made, not that of its state."""
        header = self.header(1, timestamp=self.now)
        self.put(SNAPSHOT_LEVEL, ltx.encode(header, sorted(self.pages.items())))
        self.is_usual = self.is_usual and self.now == self.times[-1]

    @rule(
        rounds=st.integers(2, 12),
        uploads=st.integers(0, 4),
        pause=st.sampled_from([10 * SECOND, MINUTE, 20 * MINUTE, 5 * HOUR]),
        most=st.integers(2, 9),
    )
    def work(self, rounds: int, uploads: int, pause: int, most: int) -> None:
        """What a Replicator does in a while, all of it."""
        for _ in range(rounds):
            self.commit(2 + rounds % 3, {1, rounds % 5 + 1}, uploads, SECOND)
            self.pass_time(pause)
            self.compact_what_is_due(most)
            if snapshot_due(list(self.content), self.now, amplification=4, floor=2000):
                self.snapshot()
            self.judge()

    @rule(number=st.integers(0, 99))
    def pin(self, number: int) -> None:
        """A state that can be restored now."""
        ends = reachable_txids(self.content)
        self.pins.add(ends[number % len(ends)])

    @precondition(lambda self: self.pins)
    @rule()
    def unpin(self) -> None:
        """The newest pin goes."""
        self.pins.remove(max(self.pins))

    @rule()
    def read_latest(self) -> None:
        """Somebody begins to restore the newest state, of the files as they are now."""
        plan = plan_restore(list(self.content))
        self.readings.append(Reading(self.clock, frozenset(plan)))

    @rule(wait=st.sampled_from([0, 0, 30, 301, 3601]))
    def retain(self, wait: int) -> None:
        """Retention looks, waits, and deletes what was not needed all the time."""
        self.judge()
        if wait:
            self.pass_time(wait * 1000)
            self.judge()

    # -- what must hold ----------------------------------------------------------------

    def judge(self) -> None:
        """Run retention once; see that everything promised is there afterwards."""
        before = list(self.content)
        self.latest_judged = max(self.latest_judged, self.now)
        for rule_, length in PERIODS.items():
            self.periods[rule_] |= {time // length for time in self.points_of(before)}
        kept = kept_points(before, self.policy, self.now, self.pins)
        plans = {point.txid: plan_restore(before, txid=point.txid) for point in kept}
        decision = due(
            before,
            self.policy,
            self.now,
            pins=self.pins,
            doomed=self.doomed,
            clock=self.clock,
        )
        self.doomed = dict(decision.doomed)
        whole = not gaps_of(before)
        for file in decision.delete:
            del self.content[file]
            assert plan_restore(list(self.content)) == plan_restore(before)
            if whole:
                assert not gaps_of(list(self.content)), "a file that nothing leads to"
        after = list(self.content)
        for point in kept:
            plan = plans[point.txid]
            assert plan_restore(after, txid=point.txid) == plan
            assert tuple(model_plan(after, txid=point.txid)) == plan
            assert plan_restore(after, before=point.by + 1)[-1].max_txid >= point.txid
        self.check_readings(decision.delete)
        self.check_promises(after)
        spare = unneeded_files(before, self.policy, self.now, self.pins)
        rest = [file for file in before if file not in spare]
        assert unneeded_files(rest, self.policy, self.now, self.pins) == []

    def check_readings(self, deleted: Iterable[FileInfo]) -> None:
        """Whoever began to read the newest state within the grace goes on."""
        grace = self.policy.grace_seconds
        self.readings = [r for r in self.readings if self.clock - r.since < grace]
        for file in deleted:
            for reading in self.readings:
                long = file.level > 0 or self.clock - reading.since < 300
                assert not (long and file in reading.files), "deleted while read"

    def check_promises(self, after: list[FileInfo]) -> None:
        """What the policy says to whoever wrote it, by the model's times alone."""
        ends = set(reachable_txids(after))
        assert len(self.states) - 1 in ends
        assert self.pins <= ends
        newest = sorted(self.images)[-max(1, self.policy.keep_last) :]
        held = {f.max_txid for f in after if f.level == SNAPSHOT_LEVEL}
        assert set(newest) <= held
        assert any(f.level == 0 and f.max_txid == len(self.times) - 1 for f in after)
        window = self.latest_judged - self.policy.window_ms
        fine = self.latest_judged - self.policy.fine_ms
        latest = 0
        for txid in range(1, len(self.times)):
            latest = max(latest, self.times[txid])
            if latest >= (window if txid in self.merged else fine):
                assert txid in ends
        if self.is_usual:
            times = self.points_of(after)
            for rule_, length in PERIODS.items():
                has = {time // length for time in times}
                count = getattr(self.policy, rule_)
                assert set(sorted(self.periods[rule_], reverse=True)[:count]) <= has

    @invariant()
    def every_state_that_can_be_restored_has_its_bytes(self) -> None:
        """Whatever was merged, overlaid and deleted."""
        listing = list(self.content)
        for txid in reachable_txids(listing):
            plan = plan_restore(listing, txid=txid)
            if plan not in self.proven:
                content, header = restored((f, self.content[f]) for f in plan)
                assert header.max_txid == txid
                assert content == self.states[txid]
                self.proven.add(plan)

    @invariant()
    def no_time_finds_a_later_state(self) -> None:
        """All that is in the state was captured before the time asked for (I6)."""
        listing = list(self.content)
        times = {file.timestamp for file in listing}
        for before in {time + delta for time in times for delta in (0, 1)}:
            if any(f.min_txid == 1 and f.timestamp < before for f in listing):
                found = plan_restore(listing, before=before)[-1].max_txid
                assert max(self.times[1 : found + 1]) < before

    @invariant()
    def idle_replica_gets_nothing(self) -> None:
        """If all is merged and snapshotted, then nothing is due, however late it is."""
        listing = list(self.content)
        if listing and not self.is_advanced():
            assert snapshot_due(listing, self.now + 99 * DAY) is None

    # -- files -------------------------------------------------------------------------

    def is_advanced(self) -> bool:
        """Whether the newest state is in no snapshot."""
        newest = len(self.states) - 1
        return bool(newest) and newest not in self.images

    def points_of(self, listing: list[FileInfo]) -> set[int]:
        """The times of all states that can be restored."""
        return {
            plan_restore(listing, txid=txid)[-1].timestamp
            for txid in reachable_txids(listing)
        }

    def header(self, first: int, *, timestamp: int) -> ltx.Header:
        """The header of a file that ends with the newest state."""
        state = tuple(page for _, page in sorted(self.pages.items()))
        return ltx.Header(
            page_size=PAGE_SIZE,
            commit=len(state),
            min_txid=first,
            max_txid=len(self.states) - 1,
            timestamp=timestamp,
            post_checksum=checksum(state),
        )

    def write(self, changed: dict[int, bytes], size: int = 1) -> None:
        """Upload one transaction."""
        if self.times[-1] > self.now:
            self.is_usual = False
        self.pages = overlay(self.pages, [(size, changed)])
        self.states.append(b"".join(p for _, p in sorted(self.pages.items())))
        self.times.append(self.now)
        header = self.header(len(self.states) - 1, timestamp=self.now)
        self.put(0, ltx.encode(header, sorted(changed.items())))

    def merge(self, level: int, files: Iterable[FileInfo]) -> None:
        """Compact files into one of a level."""
        merged = bytearray()
        ltx.compact([io.BytesIO(self.content[f]) for f in files], merged.extend)
        self.put(level, bytes(merged))

    def put(self, level: int, data: bytes) -> None:
        """Put a file under a name that must be free."""
        header = ltx.Header.unpack(data)
        names = {(f.level, f.min_txid, f.max_txid) for f in self.content}
        assert (level, header.min_txid, header.max_txid) not in names
        info = FileInfo(
            level, header.min_txid, header.max_txid, len(data), header.timestamp
        )
        self.content[info] = data
        if level == SNAPSHOT_LEVEL:
            self.images.add(info.max_txid)
        if level:
            self.merged.add(info.max_txid)


HistoryMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("HISTORY_EXAMPLES", "25")),
    stateful_step_count=40,
    deadline=None,
    # Shrinking takes minutes: a failure prints how to replay it, for who wants to.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestHistory = HistoryMachine.TestCase
