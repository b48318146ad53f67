"""Restores to a pin, by its name in the place of a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.recording import Recording
from support.troubled import TroubledStore, copy, make

from sqlitereplica.errors import InvalidFileError, NotRestorableError, StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.restore import restore, restore_points
from sqlitereplica.store import LTXStore
from sqlitereplica.store.pins import put_pin


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Recording]:
    """Six transactions, of which the third is pinned."""
    recording = make(tmp_path / "source.db", TroubledStore.at(tmp_path / "replica"), 6)
    put_pin(recording.store, "before-migration", 3)
    yield recording
    recording.close()


def test_name_of_a_pin_restores_its_state(made: Recording, tmp_path: Path) -> None:
    """Where a time could stand; blanks around it do not matter."""
    for number, at in enumerate(["before-migration", " before-migration "]):
        target = tmp_path / f"{number}.db"
        assert restore(made.store, target, at=at).txid == 3
        assert target.read_bytes() == made.images[3]
    assert restore_points(made.store).at("before-migration").txid == 3


def test_pin_survives_until_its_files_are_gone(made: Recording, tmp_path: Path) -> None:
    """The error then names the pin, the transaction, and what is near it."""
    made.publish(1, 3, 5)
    made.store.delete([f for f in made.store.list_level(0) if 3 <= f.max_txid <= 4])
    with pytest.raises(
        NotRestorableError, match=r"pin 'before-migration': transaction 3"
    ) as caught:
        restore(made.store, tmp_path / "r.db", at="before-migration")
    assert caught.value.kind == "txid" and caught.value.before is not None
    assert caught.value.before.txid == 2
    assert not (tmp_path / "r.db").exists()


def test_each_replica_has_its_own_transaction_for_a_name(
    made: Recording, tmp_path: Path
) -> None:
    """Replicas count for themselves: what is chosen is what the replica's own pin says."""
    other = LTXStore.open(tmp_path / "other")
    for file in made.store.list_level(0):
        copy(made.store, other, file)
    put_pin(other, "before-migration", 5)
    for sources in ([made.store, other], [other, made.store]):
        target = tmp_path / "r.db"
        result = restore(sources, target, at="before-migration", if_exists="replace")
        assert (result.txid, result.source) == (5, other.name)


def test_replica_without_the_pin_is_passed_over(
    made: Recording, tmp_path: Path
) -> None:
    """One that has it is enough."""
    other = LTXStore.open(tmp_path / "other")
    for file in made.store.list_level(0):
        copy(made.store, other, file)
    result = restore([other, made.store], tmp_path / "r.db", at="before-migration")
    assert (result.txid, result.source) == (3, made.store.name)
    with pytest.raises(NotRestorableError) as caught:
        restore([other, made.store], tmp_path / "s.db", at="after-migration")
    assert caught.value.kind == "pin"
    assert "there are no pins" in str(caught.value)
    assert "the pins are before-migration" in caught.value.__notes__[0]


def test_text_that_is_neither_names_the_pins_and_the_forms_of_times(
    made: Recording, tmp_path: Path
) -> None:
    """A typo in a time and one in a name are met by the same error."""
    with pytest.raises(NotRestorableError) as caught:
        restore(made.store, tmp_path / "r.db", at="before-migraton")
    assert caught.value.kind == "pin"
    for part in (
        made.store.name,
        "no pin is named 'before-migraton': the pins are before-migration.",
        "ISO 8601",
        "5 minutes ago",
    ):
        assert part in str(caught.value)


def test_text_that_cannot_be_a_name_asks_nobody(
    made: Recording, tmp_path: Path
) -> None:
    """Neither does a time without a zone, which is a time all the same."""
    made.store.requests.clear()
    for at in ("", "5 fortnights ago", "2026-01-31", "2026-13-01T00:00:00Z"):
        with pytest.raises(ValueError, match="at="):
            restore(made.store, tmp_path / "r.db", at=at)
    assert made.store.requests == {}


def test_only_a_name_costs_another_listing(made: Recording, tmp_path: Path) -> None:
    """A pin takes one listing and one read; both layouts are listed but for a TXID."""
    made.store.requests.clear()
    restore(made.store, tmp_path / "1.db", txid=3)
    by_txid = made.store.requests.copy()
    made.store.requests.clear()
    restore(made.store, tmp_path / "2.db", at="before-migration")
    assert made.store.requests - by_txid == {"list": 1, "get": 1}
    made.store.requests.clear()
    restore(made.store, tmp_path / "3.db", at="1 second ago")
    assert (by_txid["list"], made.store.requests["list"]) == (1, 2)


def test_backup_that_is_missing_may_be_skipped_under_any_name(tmp_path: Path) -> None:
    """A first start has no pins either."""
    empty = LTXStore.open(tmp_path / "empty")
    result = restore(empty, tmp_path / "r.db", at="before-migration", missing="skip")
    assert result.reason == "missing"
    with pytest.raises(NotRestorableError) as caught:
        restore(empty, tmp_path / "r.db", at="before-migration")
    assert caught.value.kind == "empty"


def test_name_that_is_not_there_is_never_a_missing_backup(
    made: Recording, tmp_path: Path
) -> None:
    """An application must not start afresh because of a typo."""
    with pytest.raises(NotRestorableError, match="no pin is named"):
        restore(made.store, tmp_path / "r.db", at="typo", missing="skip")


def test_damaged_pin_is_an_error_and_another_replica_serves(
    made: Recording, tmp_path: Path
) -> None:
    """Only that pin: others are not read."""
    made.store.put_side("pins", "torn", b"{")
    assert restore(made.store, tmp_path / "1.db", at="before-migration").txid == 3
    with pytest.raises(InvalidFileError, match="'torn' is damaged"):
        restore(made.store, tmp_path / "2.db", at="torn")
    other = LTXStore.open(tmp_path / "other")
    for file in made.store.list_level(0):
        copy(made.store, other, file)
    put_pin(other, "torn", 2)
    assert restore([made.store, other], tmp_path / "3.db", at="torn").txid == 2


def test_pinned_files_that_go_away_midway_are_planned_anew(
    made: Recording, tmp_path: Path
) -> None:
    """A restore to a pin goes on as any other: by the transaction that it keeps."""
    store = made.store
    assert isinstance(store, TroubledStore)
    made.publish(1, 2, 3)

    def compact_away(file: FileInfo, start: int) -> None:
        if file.level == 1:
            store.before_get = None
            store.delete([file])

    store.before_get = compact_away
    assert restore(store, tmp_path / "r.db", at="before-migration").txid == 3
    assert (tmp_path / "r.db").read_bytes() == made.images[3]


def test_error_keeps_its_points_if_their_files_cannot_be_read(
    made: Recording, tmp_path: Path
) -> None:
    """What is said is that the state is not there; only its times are less exact."""
    store = made.store
    assert isinstance(store, TroubledStore)
    made.publish(1, 2, 4)
    store.delete([f for f in store.list_level(0) if 2 <= f.max_txid <= 4])

    def fail(file: FileInfo, start: int) -> None:
        raise StoreError("no answer", operation="get")

    store.before_get = fail
    with pytest.raises(NotRestorableError, match=r"txid=1 of .* txid=4 of"):
        restore(store, tmp_path / "r.db", txid=3)
