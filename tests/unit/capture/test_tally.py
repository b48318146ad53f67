"""Checkpoints are counted, also those that fail."""

from __future__ import annotations

import pytest
from support.stepping import FakeClock

from sqlitereplica.capture.tally import Checkpoints, CheckpointTally


def test_checkpoints_are_counted_once_by_mode() -> None:
    """With the time that they took; one that raises is an error, too."""
    clock = FakeClock()
    checkpoints = Checkpoints(clock)
    for _ in range(2):
        with checkpoints.counted("passive"):
            clock.advance(0.5)

    def failing() -> None:
        clock.advance(3)
        raise OSError

    with pytest.raises(OSError, match=r"^$"), checkpoints.counted("truncate"):
        failing()
    assert checkpoints.take() == {
        "passive": CheckpointTally(count=2, errors=0, seconds=1.0),
        "truncate": CheckpointTally(count=1, errors=1, seconds=3.0),
    }
    assert checkpoints.take() == {}
