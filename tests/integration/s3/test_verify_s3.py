"""``verify`` on S3: objects that are lost or damaged, and what the requests cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.replicas import arrange, flipped, record
from support.troubled import overwrite

from sqlitereplica import verify
from sqlitereplica.restore.plan import decisive, plan_restore
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.s3

FILES = [(0, n, n) for n in range(5, 10)] + [(1, 1, 4), (1, 5, 7), (9, 1, 4)]


def test_objects_that_are_lost_or_damaged_are_found(
    store: LTXStore, tmp_path: Path
) -> None:
    """Times are of uploads there, and sizes of listings; everything else is as on disk."""
    made = record(tmp_path, "source")
    arrange(made, store, FILES)
    for level in ("listing", "checksums", "restore"):
        report = verify(store, level, at_least=9, scratch=tmp_path)  # type: ignore[arg-type]
        assert report.ok, report
    [span] = report.ranges
    assert (span.max_time - span.min_time).total_seconds() == 5
    store.requests.clear()
    report = verify(store, "restore", scope="latest", scratch=tmp_path)
    assert report.ok
    plan = decisive(plan_restore(store.list_all()))
    assert report.bytes_read == sum(file.size for file in plan)
    assert store.requests["get"] == len(plan)
    assert store.requests["list"] <= 6

    damaged, lost = (f for f in store.list_level(0) if f.max_txid in (8, 9))
    overwrite(store, damaged, flipped(store.get(damaged), 200))
    report = verify(store)
    assert [(f.name, f.needed) for f in report.bad_files] == [(damaged.name, True)]
    store.delete([lost])
    assert not verify(store, "listing", at_least=9).latest_ok
    overwrite(store, damaged, made.files[8, 8])
    assert verify(store, "restore", scratch=tmp_path).ok
