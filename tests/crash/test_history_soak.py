"""T33: points are restored all the time while the history of the replica is worked on.

``SEED`` replays the decisions of a run, ``SOAK_SECONDS`` is the length of the torture.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.soak import Reader, Told
from support.soak_child import RETENTION, SoakOrders, spawn_soak

from sqlitereplica import restore, restore_points, verify
from sqlitereplica.replicate.retention import kept_points
from sqlitereplica.store import LTXStore

pytestmark = pytest.mark.crash

SEED = os.environ.get("SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"
SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))


def soak(folder: Path, seconds: float, readers: int) -> None:
    """Write, compact, thin out and restore at once; then look at what is left."""
    print(f"SEED={SEED}")
    replica = folder / "replica"
    orders = SoakOrders(
        database=str(folder / "app.db"),
        replica=str(replica),
        log=str(folder / "log"),
        seed=SEED,
    )
    with spawn_soak(orders) as child:
        try:
            told = Told(child, folder / "log")
            told.wait_for(lambda: told.pins)
            done = read(folder, told, replica, seconds, readers)
            assert child.stdin is not None
            child.stdin.close()
            told.wait_for_end()
            assert child.wait(60) == 0
        finally:
            child.kill()
    print(f"{dict(done)}; {told.counts}")
    assert told.errors == []
    for action in ("compact", "snapshot", "retention", "verify"):
        assert told.counts[action] > 0
    for action in ("txid", "time", "pin", "latest"):
        assert done[action] > 0
    check_what_is_left(folder, told, replica)


def read(
    folder: Path, told: Told, replica: Path, seconds: float, count: int
) -> Counter[str]:
    """Have readers restore for some seconds; returns what they did."""
    stop, done = threading.Event(), Counter[str]()
    with ThreadPoolExecutor(count) as pool:
        running = [
            pool.submit(
                Reader(folder / f"reader-{i}", replica, told, f"{SEED}/{i}").run, stop
            )
            for i in range(count)
        ]
        end = time.monotonic() + seconds
        while time.monotonic() < end and not told.errors and not stop.wait(0.1):
            pass
        stop.set()
    for future in running:
        done += future.result()
    return done


def check_what_is_left(folder: Path, told: Told, replica: Path) -> None:
    """The replica is sound, and all that it lists and has to keep restores."""
    report = verify(replica, "checksums", at_least=told.newest)
    assert report.ok, str(report)
    points = restore_points(replica)
    pins = {told.pins[name] for name in told.live_pins()}
    assert {pin.txid for pin in points.pins} == pins
    files = LTXStore.open(replica).list_all(accurate=True)
    kept = kept_points(files, RETENTION, time.time_ns() // 1_000_000, pins)
    assert pins < {point.txid for point in kept} <= {point.txid for point in points}
    for point in points:
        target = folder / "left.db"
        restore(replica, target, txid=point.txid)
        told.check(point.txid, hashlib.sha256(target.read_bytes()).hexdigest())
        target.unlink()
    assert not list(replica.rglob("*.tmp"))


def test_points_restore_while_history_is_worked_on(tmp_path: Path) -> None:
    """For a few seconds, with levels and retention at milliseconds."""
    soak(tmp_path, 5.0, 2)


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_points_restore_for_minutes(tmp_path: Path) -> None:
    """The same for as long as one likes."""
    soak(tmp_path, SECONDS, 3)
