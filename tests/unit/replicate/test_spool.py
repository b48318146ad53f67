"""The line of increments: in order, shared, bounded."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlitereplica.capture import Increment, State
from sqlitereplica.replicate.spool import Spool


def increment(seq: int, pages: int = 2, *, body: bool = True) -> Increment:
    """An increment of random pages, which do not compress.

    (Capture's own numbers begin at 2: the state that it attached to is 1.)
    """
    seq += 1
    rng = random.Random(seq)
    state = State(
        seq=seq, timestamp=seq, page_size=512, commit=99, checksum=(1 << 63) | seq
    )
    content = {p: rng.randbytes(512) for p in range(1, pages + 1)}
    return Increment(state, 1 << 63, tuple(content), content if body else None)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=30),
    takes=st.lists(st.integers(0, 2), max_size=60),
    disk=st.sampled_from([0, 20_000, 10_000_000]),
)
def test_every_replica_gets_every_increment_in_order_or_is_told_what_it_misses(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    takes: list[int],
    disk: int,
) -> None:
    """What a replica took, plus what it was told it misses, is everything."""
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, memory_limit=30_000, disk_limit=disk)
    names = ["a", "b", "c"]
    got: dict[str, list[int]] = {n: [] for n in names}
    missing: dict[str, set[int]] = {}
    for name in names:
        spool.subscribe(name, 0)
    pace = iter(takes)
    for seq, pages in enumerate(sizes, 1):
        missing |= {n: set(p) for n, p in spool.add(increment(seq, pages)).items()}
        take = next(pace, None)
        if take is not None and (found := spool.next(names[take])) is not None:
            got[names[take]].append(found.state.seq - 1)
            spool.done(names[take], found.state.seq)
        assert sum(f.stat().st_size for f in folder.iterdir()) <= max(disk, 60_000)
    for name in names:
        while (found := spool.next(name)) is not None:
            assert found.content(found.state.seq) is not None
            got[name].append(found.state.seq - 1)
            spool.done(name, found.state.seq)
        assert got[name] == list(range(1, len(got[name]) + 1))
        if name in missing:
            lost = sizes[len(got[name]) :][: len(sizes)]
            assert missing[name] >= set(range(1, min(lost, default=0) + 1))
        else:
            assert len(got[name]) == len(sizes)
    assert list(folder.iterdir()) == []


def test_increment_without_a_body_takes_everybody_out(tmp_path: Path) -> None:
    """What could not be kept is caught up by a delta, by every replica."""
    spool = Spool(tmp_path, memory_limit=1 << 20, disk_limit=1 << 20)
    spool.subscribe("a", 0)
    spool.subscribe("b", 0)
    spool.add(increment(1, 3))
    dropped = spool.add(increment(2, 5, body=False))
    assert dropped == {"a": {1, 2, 3, 4, 5}, "b": {1, 2, 3, 4, 5}}
    assert spool.next("a") is None


def test_backlog_tells_count_bytes_and_age(tmp_path: Path) -> None:
    """For ``status()``."""
    spool = Spool(tmp_path, memory_limit=1 << 20, disk_limit=1 << 20)
    assert spool.backlog("a") == (0, 0, None)
    spool.subscribe("a", 0)
    spool.add(increment(7))
    spool.add(increment(8))
    assert spool.backlog("a") == (2, 2048, 8)


def test_memory_goes_to_files_and_comes_back(tmp_path: Path) -> None:
    """Past the memory bound increments wait on disk, readable as before."""
    spool = Spool(tmp_path, memory_limit=5_000, disk_limit=1 << 20)
    spool.subscribe("a", 0)
    for seq in range(1, 10):
        spool.add(increment(seq, 6))
    assert len(list(tmp_path.iterdir())) >= 7
    for seq in range(1, 10):
        found = spool.next("a")
        assert found is not None
        assert found.state.seq == seq + 1
        assert found.content(seq + 1) is not None
        spool.done("a", seq + 1)
    assert list(tmp_path.iterdir()) == []


def test_long_line_is_not_counted_over_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a day without the store the capture thread does what it did in the first minute."""
    spool = Spool(tmp_path, memory_limit=5_000, disk_limit=1 << 30)
    spool.subscribe("a", 0)
    looked = []

    def in_memory(increment: Increment) -> int:
        looked.append(increment)
        return 6 * 512 if isinstance(increment.body, dict) else 0

    monkeypatch.setattr(Increment, "in_memory", in_memory)
    for seq in range(1, 200):
        looked.clear()
        spool.add(increment(seq, 6))
        assert len(looked) < 5
    assert spool.backlog("a")[0] == 199


def test_spool_whose_files_are_gone_can_be_counted(tmp_path: Path) -> None:
    """``status()`` never raises, whatever somebody did to the folder."""
    spool = Spool(tmp_path, memory_limit=5_000, disk_limit=1 << 20)
    spool.subscribe("a", 0)
    for seq in range(1, 10):
        spool.add(increment(seq, 6))
    before = spool.backlog("a")
    for file in tmp_path.iterdir():
        file.unlink()
    assert spool.backlog("a") == before
    spool.add(increment(10, 6))
    spool.clear()
    assert spool.backlog("a") == (0, 0, None)


def test_large_file_that_is_made_anew_holds_up_nobody(tmp_path: Path) -> None:
    """To number a large transaction takes long; nobody waits for that with the lock held."""
    spool = Spool(tmp_path, memory_limit=5_000, disk_limit=1 << 20)
    spool.subscribe("a", 0)
    spool.add(increment(1, 6))
    large = increment(2, 6)
    large.spill(tmp_path)
    spool.add(large)

    def go_on() -> None:
        for seq in range(3, 9):
            spool.add(increment(seq, 6))

    with large._lock:  # as by who encodes it under another number
        capture = threading.Thread(target=go_on, daemon=True)
        capture.start()
        capture.join(60)
        assert not capture.is_alive()
    assert spool.backlog("a")[0] == 8


def test_small_files_are_counted_by_what_they_take(tmp_path: Path) -> None:
    """The bound is one on the disk: a file of one byte takes a block of it."""
    spool = Spool(tmp_path, memory_limit=1, disk_limit=20 * 4096)
    spool.subscribe("a", 0)
    for seq in range(1, 22):
        assert spool.add(increment(seq, 1)) == {}
    assert len(list(tmp_path.iterdir())) == 20
    assert spool.add(increment(22, 1)) == {"a": {1}}
    assert list(tmp_path.iterdir()) == []
