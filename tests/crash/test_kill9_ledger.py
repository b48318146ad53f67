"""T42: an application that replicates is killed at any moment; what it had been told is
durable can be restored, to the byte, and the next start goes on from there.

``SEED`` replays the decisions of a run, ``LEDGER_CYCLES`` is the length of the torture.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ledger import Judge
from support.torment import LedgerPlace, torment

pytestmark = pytest.mark.crash

SEED = os.environ.get("SEED") or f"{random.SystemRandom().randrange(1 << 32):08x}"
CYCLES = 26
"""Of each of the six tests with one database; with the others they are more than 200."""
TORTURE_CYCLES = int(os.environ.get("LEDGER_CYCLES", "2000"))
FRESH, LONG = 3, 50
"""Cycles after which a new database is begun, where its beginning matters or it grows."""


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """The process that looks at databases."""
    found = Judge()
    yield found
    found.close()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> str:
    """What this test's decisions come from."""
    print(f"SEED={SEED}")
    return f"{SEED}-{request.node.name}"


@pytest.mark.parametrize("part", range(4))
def test_killed_again_and_again_nothing_durable_is_lost(
    tmp_path: Path, judge: Judge, seed: str, part: int
) -> None:
    """One process that writes and replicates; the same database and replica throughout."""
    torment(LedgerPlace(tmp_path / "a", judge), seed, CYCLES)


@pytest.mark.parametrize("part", range(2))
def test_replicator_is_killed_while_others_write_on(
    tmp_path: Path, judge: Judge, seed: str, part: int
) -> None:
    """Two more processes commit, checkpoint and vacuum, also while nobody replicates."""
    torment(LedgerPlace(tmp_path / "a", judge, shared=True), seed, CYCLES, writers=2)


@pytest.mark.parametrize("start", ["missing", "delete"])
def test_killed_while_a_database_is_made_or_switched_to_wal(
    tmp_path: Path, judge: Judge, seed: str, start: str
) -> None:
    """The Replicator comes before the database, or finds it in journal mode DELETE."""
    for i in range(CYCLES // FRESH):
        place = LedgerPlace(tmp_path / str(i), judge, exact=False)
        torment(place, f"{seed}-{i}", FRESH, start=start)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("start", ["open", "missing", "delete", "several"])
def test_killed_thousands_of_times(
    tmp_path: Path, judge: Judge, seed: str, start: str
) -> None:
    """The same for as long as one likes, on new databases now and then."""
    several = start == "several"
    mode = "open" if several else start
    for i in range(0, TORTURE_CYCLES, LONG):
        place = LedgerPlace(
            tmp_path / str(i), judge, exact=mode == "open", shared=several
        )
        torment(place, f"{seed}-{i}", LONG, start=mode, writers=2 * several)
        shutil.rmtree(place.folder)
