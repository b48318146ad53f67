"""The page table on disk: finds old states, believes nothing that does not check."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlitereplica.capture import PageTable, TableFile


def change(table: PageTable, rng: random.Random, file: TableFile | None) -> None:
    """A random transaction, recorded in ``file``."""
    commit = rng.randrange(1, 60)
    changes = [
        (p, (1 << 63) | rng.getrandbits(63))
        for p in sorted(rng.sample(range(1, commit + 1), min(commit, 5)))
    ]
    table.apply(commit, changes)
    if file is not None:
        file.append(commit, table.checksum, changes)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), rewrites=st.sets(st.integers(0, 20)))
def test_every_recorded_state_is_found_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rewrites: set[int]
) -> None:
    """States since the last rewrite come back exactly, older ones not at all."""
    folder = tmp_path_factory.mktemp("tables")
    rng = random.Random(seed)
    table, file = PageTable(4096), TableFile(folder)
    change(table, rng, None)
    file.rewrite(table)
    states = [table.copy()]
    for i in range(20):
        if i in rewrites:
            file.rewrite(table)
            states = [table.copy()]
        change(table, rng, file)
        states.append(table.copy())
        if rng.random() < 0.2:
            file.close()
            file = TableFile(folder)
            change(table, rng, None)
            file.begin(table)
            states.append(table.copy())
    file.close()
    again = TableFile(folder)
    for state in states:
        found = again.find(state.checksum)
        assert found is not None
        assert found.sums == state.sums
    assert again.find(1 << 63 | 12345) is None


@pytest.mark.parametrize("name", ["pages", "pages.log"])
def test_damage_is_taken_as_absence(tmp_path: Path, name: str) -> None:
    """Cut or flipped at any byte: a found table is right, or there is none."""
    rng = random.Random(1)
    table, file = PageTable(4096), TableFile(tmp_path)
    change(table, rng, None)
    file.rewrite(table)
    states = {table.checksum: table.copy()}
    for _ in range(4):
        change(table, rng, file)
        states[table.checksum] = table.copy()
    file.close()
    path = tmp_path / name
    data = path.read_bytes()
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        for damaged in (data[:at], bytes(flipped)):
            path.write_bytes(damaged)
            for checksum, state in states.items():
                found = TableFile(tmp_path).find(checksum)
                assert found is None or found.sums == state.sums


def test_torn_record_is_cut_off(tmp_path: Path) -> None:
    """A process was killed while it wrote it, so nothing of it went further."""
    rng = random.Random(2)
    table, file = PageTable(512), TableFile(tmp_path)
    change(table, rng, None)
    file.rewrite(table)
    change(table, rng, file)
    before = table.copy()
    change(table, rng, file)
    file.close()
    log = tmp_path / "pages.log"
    log.write_bytes(log.read_bytes()[:-3])
    file = TableFile(tmp_path)
    file.begin(table)
    change(table, rng, file)
    file.close()
    for state in (before, table):
        found = TableFile(tmp_path).find(state.checksum)
        assert found is not None and found.is_state_of(state)


def test_first_table_is_not_the_answer_to_anything(tmp_path: Path) -> None:
    """It says what the database is now, not what a replica holds; checksums come again."""
    rng = random.Random(4)
    table, file = PageTable(512), TableFile(tmp_path)
    change(table, rng, None)
    file.begin(table)
    assert file.find(table.checksum) is None
    assert file.wants_rewrite  # once every replica is known to hold it
    file.rewrite(table)
    assert file.find(table.checksum) is not None
    file.forget()
    assert file.find(table.checksum) is None
    file.close()


def test_two_states_of_one_checksum_are_not_told_apart(tmp_path: Path) -> None:
    """Neither is given: it may be the other that is meant."""
    sums = [1 << 63 | n for n in (3, 5, 9)]
    table, file = PageTable(512, array("Q", sums)), TableFile(tmp_path)
    file.rewrite(table)
    changes = [(1, 1 << 63 | 3 ^ 16), (2, 1 << 63 | 5 ^ 16)]
    checksum = table.checksum
    table.apply(3, changes)
    file.append(3, table.checksum, changes)
    assert table.checksum == checksum
    assert file.find(checksum) is None
    file.close()


def test_full_disk_stops_recording_and_says_so(tmp_path: Path) -> None:
    """Replication goes on without a table file; a rewrite that succeeds resumes it."""
    rng = random.Random(3)
    folder = tmp_path / "gone"
    folder.mkdir()
    table, file = PageTable(512), TableFile(folder)
    change(table, rng, None)
    file.begin(table)
    file.close()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    file.rewrite(table)
    assert file.error is not None
    folder.mkdir()
    file.rewrite(table)
    assert file.error is None
    file.close()
    assert TableFile(folder).find(table.checksum) is not None


@pytest.mark.parametrize("closed", [True, False])
def test_log_of_another_boot_is_believed_only_if_it_was_closed(
    tmp_path: Path, closed: bool
) -> None:
    """A loss of power may take the end of a log, and with it states that a replica has."""
    table, file = PageTable(4096), TableFile(tmp_path, boot=b"a" * 16)
    rng = random.Random(1)
    change(table, rng, None)
    file.rewrite(table)
    change(table, rng, file)
    if closed:
        file.close()
    again = TableFile(tmp_path, boot=b"a" * 16)
    assert again.find(table.checksum) is not None
    other = TableFile(tmp_path, boot=b"b" * 16)
    assert (other.find(table.checksum) is not None) == closed
    other.begin(table)
    change(table, rng, other)
    assert (other.find(table.checksum) is not None) == closed
    # From here on it stands on the word of the second boot, until that closes it.
    assert TableFile(tmp_path, boot=b"c" * 16).find(table.checksum) is None
    other.close()
    found = TableFile(tmp_path, boot=b"c" * 16).find(table.checksum)
    assert (found is not None) == closed
    file.close()


def test_log_that_lacks_a_state_is_not_left_behind(tmp_path: Path) -> None:
    """A disk is full for a moment, and then the process is killed."""
    table, file = PageTable(512), TableFile(tmp_path)
    rng = random.Random(5)
    change(table, rng, None)
    file.rewrite(table)
    change(table, rng, file)
    known = table.checksum
    assert TableFile(tmp_path).find(known) is not None
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.MonkeyPatch().context() as m,
    ):
        m.setattr(file, "_log", full)
        change(table, rng, file)
        assert file.error is not None and file.wants_rewrite
    assert TableFile(tmp_path).find(known) is None
    file.rewrite(table)
    assert TableFile(tmp_path).find(table.checksum) is not None
    file.close()
