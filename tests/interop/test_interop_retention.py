"""The real Litestream on replicas that we compacted and that retention went over."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from support.bothrestore import Both
from support.litestream import Litestream
from support.recording import START, Recording

from sqlitereplica import ltx
from sqlitereplica.ltx import SNAPSHOT_LEVEL, FileInfo
from sqlitereplica.policy import Retention
from sqlitereplica.replicate.retention import kept_points, unneeded_files
from sqlitereplica.replicate.schedule import compaction_inputs
from sqlitereplica.restore.plan import decisive, plan_restore, reachable_txids
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.interop

# One transaction a second: windows of some of these, and two hours of them.
POLICIES = [
    Retention(window="7s", fine="3s"),
    Retention(window="1s", fine=0, keep_last=2),
    Retention(window="12s", fine="2s", hourly=2),
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Twenty transactions that let a database grow, shrink and grow again."""
    folder = tmp_path_factory.mktemp("recorded")
    made = Recording(folder / "source.db", LTXStore.open(folder / "x"), page_size=1024)
    made.commit("CREATE TABLE t(b)", "INSERT INTO t VALUES (zeroblob(30000))")
    for number in range(19):
        made.commit(f"INSERT INTO t VALUES (randomblob({number * 500}))")
        if number == 9:
            made.commit("DELETE FROM t WHERE rowid < 7", "VACUUM")
    made.close()
    return made


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_litestream_restores_every_point_that_retention_kept(
    litestream: Litestream, recorded: Recording, tmp_path: Path, policy: Retention
) -> None:
    """By transaction, by time and the latest state, the bytes that were recorded."""
    replica = tmp_path / "replica"
    store = recorded.store = LTXStore.open(replica)
    rng = random.Random(repr(policy))
    for txid in range(1, recorded.txid + 1):
        recorded.publish(0, txid, txid)
        for level, step in ((1, 2), (2, 6)):
            if txid % step == 0:
                merge(store, level, compaction_inputs(store.list_all(), level).files)
        if rng.random() < 0.2:
            merge(store, SNAPSHOT_LEVEL, decisive(plan_restore(store.list_all())))
        now = START + 1000 * txid
        store.delete(unneeded_files(store.list_all(), policy, now, {3}))
    files = store.list_all(accurate=True)
    assert len(files) < 25 and 3 in reachable_txids(files)

    both = Both(litestream, replica, tmp_path / "out")
    assert both.latest() == recorded.images[-1]
    for point in kept_points(files, policy, START + 1000 * recorded.txid, {3}):
        assert both.at_txid(point.txid) == recorded.images[point.txid]
        if point.txid < recorded.txid:  # later times are refused by Litestream
            assert both.before(point.by + 1) == recorded.images[point.txid]


def merge(store: LTXStore, level: int, files: tuple[FileInfo, ...]) -> None:
    """Compact files of the replica into one of a level."""
    merged = bytearray()
    inputs = [io.BytesIO(store.get(file)) for file in files]
    header = ltx.compact(inputs, merged.extend)
    first, last = header.min_txid, header.max_txid
    store.put(level, first, last, bytes(merged), timestamp=header.timestamp)
