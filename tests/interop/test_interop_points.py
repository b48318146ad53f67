"""Litestream agrees on what can be restored when, and does not mind pins."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from support.capturing import make_database, serialized
from support.histories import fill
from support.litestream import Litestream
from support.places import Place

from sqlitereplica import restore, restore_points

pytestmark = pytest.mark.interop

MILLISECOND = timedelta(milliseconds=1)


def test_points_are_what_litestream_restores_and_pins_do_not_disturb_it(
    tmp_path: Path, litestream: Litestream
) -> None:
    """At each time the same bytes as by transaction; Litestream goes on beside the pin."""
    place = Place.local(tmp_path, litestream)
    with closing(make_database(place.database)) as connection:
        with place.ours() as replicator:
            for commit in range(4):
                fill(connection, 20)
                replicator.sync()
                if commit == 1:
                    replicator.pin("second")
                    pinned = serialized(place.database)
        fill(connection, 20)
        place.once()
        place.agree()
    points = restore_points(place.replica)
    assert len(points) >= 5 and points.gaps == ()
    # Of two in one millisecond a time gives the later; none is after the newest file,
    # since Litestream refuses that.
    told_apart = [a for a, b in pairwise(points) if a.time < b.time]
    assert len(told_apart) >= 3
    for point in told_apart:
        assert place.at_time(point.time + MILLISECOND) == place.at_txid(point.txid)
    restore(place.replica, tmp_path / "pinned.db", at="second")
    assert (tmp_path / "pinned.db").read_bytes() == pinned
