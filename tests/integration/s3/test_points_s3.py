"""Restore points and pins on S3, where a listing tells times of uploads."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.recording import START, Recording

from sqlitereplica.errors import NotRestorableError, PinExistsError
from sqlitereplica.restore import restore, restore_points
from sqlitereplica.store import LTXStore, pinned_txids
from sqlitereplica.store.pins import delete_pin, list_pins, put_pin
from sqlitereplica.store.reach import to_datetime

pytestmark = pytest.mark.s3


def test_points_and_pins_go_by_the_times_in_the_files(
    store: LTXStore, tmp_path: Path
) -> None:
    """The listing is from today, the states are not; a pin is created only once."""
    made = Recording(tmp_path / "source.db", store)
    made.commit("CREATE TABLE t(a)")
    made.commit("INSERT INTO t VALUES (1)")
    made.commit("INSERT INTO t VALUES (2)")
    made.close()
    own = [to_datetime(START + 1000 * txid) for txid in (1, 2, 3)]
    assert [point.time for point in restore_points(store)] == own
    uploads = restore_points(store, accurate=False)
    assert uploads[0].time > own[2]

    pin, _ = put_pin(store, "second", 2)
    assert (pin.txid, pin.time) == (2, own[1])
    assert list_pins(store) == [pin] and pinned_txids(store) == {2}
    with pytest.raises(PinExistsError):
        put_pin(store, "second")
    restore(store, tmp_path / "restored.db", at="second")
    assert (tmp_path / "restored.db").read_bytes() == made.images[2]
    assert restore_points(store).at("second").pins == ("second",)

    store.delete([file for file in store.list_all() if file.max_txid == 2])
    with pytest.raises(NotRestorableError) as caught:
        restore(store, tmp_path / "other.db", at="second")
    assert caught.value.before is not None and caught.value.before.time == own[0]
    delete_pin(store, "second")
    assert list_pins(store) == []
