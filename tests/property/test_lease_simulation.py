"""The lease and the fence in thousands of histories of hosts over a bad network."""

from __future__ import annotations

import os

import pytest
from support.leasesim import Conditions, World

SEEDS = 4000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 300

pytestmark = pytest.mark.property


@pytest.mark.parametrize("block", range(5))
def test_whatever_happens_nothing_acknowledged_is_lost_or_forked(block: int) -> None:
    """One chain with all that was acknowledged, rising epochs, and it goes on in the end."""
    run(block, Conditions())


@pytest.mark.parametrize("block", range(2))
def test_clocks_that_stand_still_lose_nothing_either(block: int) -> None:
    """The fence does not rest on clocks: those of stopped hosts stop, others run wild."""
    run(block, Conditions(frozen_clocks=True, skew=0.8, delay=0.1))


def run(block: int, conditions: Conditions) -> None:
    """Live through a block of seeds."""
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        try:
            World(seed, conditions).run()
        except AssertionError as error:
            error.add_note(f"seed {seed}, {conditions}")
            raise
