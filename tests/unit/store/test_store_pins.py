"""Pins: what they keep, what they refuse, and that none is ever taken for none."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.shortfiles import START, put_file, put_level_0

from sqlitereplica.errors import (
    AnotherWriterError,
    InvalidFileError,
    NotRestorableError,
    PinExistsError,
    StoreError,
)
from sqlitereplica.store import LTXStore, Pin, Replica, pinned_txids
from sqlitereplica.store.pins import is_pin_name, list_pins, put_pin
from sqlitereplica.store.side import SideFile

NOW = 1_800_000_000.25


def at_ms(milliseconds: int) -> datetime:
    """A time of a pin."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LTXStore:
    """Five transactions, of which 2 and 3 are merged."""
    places = {
        "folder": tmp_path / "replica",
        "memory": f"memory://{secrets.token_hex(8)}/replica",
    }
    made = LTXStore.open(places[request.param])
    fill(made)
    return made


def fill(store: LTXStore) -> None:
    """States 1, 3, 4 and 5."""
    put_level_0(store, 1, 1)
    put_file(store, 1, 2, 3)
    put_level_0(store, 4, 5)


def pin(store: LTXStore, name: str, txid: int | None = None) -> Pin:
    """Pin at a fixed moment."""
    return put_pin(store, name, txid, now=lambda: NOW)[0]


def refusal(store: LTXStore, txid: int | None) -> NotRestorableError:
    """The error that pinning ends with; nothing is pinned."""
    with pytest.raises(NotRestorableError) as caught:
        pin(store, "x", txid)
    assert list_pins(store) == []
    return caught.value


# -- what is pinned --------------------------------------------------------------------


def test_pin_keeps_the_newest_state_or_the_one_asked_for(store: LTXStore) -> None:
    """A pin says which transaction, its time, and when it was pinned."""
    newest = pin(store, "newest")
    assert newest == Pin(
        name="newest",
        txid=5,
        time=at_ms(START + 5000),
        created=at_ms(round(NOW * 1000)),
    )
    older = pin(store, "v1.0_before-migration", 3)
    assert (older.txid, older.time) == (3, at_ms(START + 3000))
    assert list_pins(store) == [newest, older]
    assert pinned_txids(store) == {3, 5}


def test_time_of_a_pin_is_the_files_own_not_that_of_the_listing(
    store: LTXStore, tmp_path: Path
) -> None:
    """Object stores list times of uploads, and copies have times of their own."""
    for file in (tmp_path / "replica").rglob("*.ltx"):
        file.touch()
    assert pin(store, "x", 4).time == at_ms(START + 4000)


def test_pinning_the_same_state_again_changes_nothing(store: LTXStore) -> None:
    """It can be said twice, as scripts do; the first pin stays."""
    first, is_new = put_pin(store, "x", 4)
    again, is_new_again = put_pin(store, "x", 4)
    assert (again, is_new, is_new_again) == (first, True, False)


def test_name_that_keeps_another_state_is_refused(store: LTXStore) -> None:
    """A pin never moves without a word."""
    pin(store, "x", 4)
    with pytest.raises(PinExistsError, match=r"'x' keeps transaction 4") as caught:
        pin(store, "x")
    assert (caught.value.kind, caught.value.txid) == ("pin-exists", 4)
    assert isinstance(caught.value, ValueError)
    assert pinned_txids(store) == {4}


def test_files_of_the_replica_are_as_before(store: LTXStore) -> None:
    """A pin is beside the levels."""
    before = store.list_all()
    pin(store, "x")
    assert store.list_all() == before


@pytest.mark.parametrize(
    "name",
    ["", ".x", "a b", "a/b", "x" * 129, "ä", "2026-01-31", "20260131T1200Z", "42"],
)
def test_name_that_cannot_be_one_or_is_a_time_is_refused(
    store: LTXStore, name: str
) -> None:
    """Where a time is asked for, a pin's name must not look like one."""
    assert not is_pin_name(name)
    with pytest.raises(ValueError, match="cannot be the name of a pin"):
        pin(store, name)


def test_txid_that_is_none_is_refused(store: LTXStore) -> None:
    """Transactions count from 1."""
    with pytest.raises(ValueError, match="count from 1"):
        pin(store, "x", 0)


# -- what is not there -----------------------------------------------------------------


def test_state_that_cannot_be_restored_is_refused_with_its_neighbours(
    store: LTXStore,
) -> None:
    """A pin of a merged transaction would promise what no file holds."""
    error = refusal(store, 2)
    assert error.kind == "txid"
    assert error.before is not None and error.before.txid == 1
    assert error.after is not None and error.after.txid == 3
    assert refusal(store, 6).after is None


def test_nothing_to_pin_is_an_error_that_says_so() -> None:
    """An empty replica has no newest state."""
    empty = LTXStore.open(f"memory://{secrets.token_hex(8)}/replica")
    assert refusal(empty, None).kind == "empty"
    assert refusal(empty, 1).kind == "empty"


def test_newest_state_behind_a_gap_is_refused_not_an_older_one_pinned(
    store: LTXStore,
) -> None:
    """Who pins the newest state wants what is in it."""
    put_level_0(store, 7, 7)
    assert refusal(store, None).kind == "gap"
    assert pin(store, "older", 5).txid == 5


class Meddling(LTXStore):
    """A store in which something happens right before or after a pin is written."""

    before: Any = None
    after: Any = None

    def put_side(self, folder: str, name: str, data: bytes | Path) -> SideFile:
        """Write between the two."""
        if self.before:
            self.before()
        written = super().put_side(folder, name, data)
        if self.after:
            self.after()
        return written


def meddling() -> Meddling:
    """One with the five transactions."""
    made = Meddling.open(f"memory://{secrets.token_hex(8)}/replica")
    fill(made)
    return made


@pytest.mark.parametrize("moment", ["before", "after"])
def test_state_that_retention_deletes_meanwhile_is_not_pinned(moment: str) -> None:
    """The pin is taken away again, and who wanted it is told."""
    store = meddling()
    doomed = [file for file in store.list_all() if file.max_txid == 4]
    setattr(store, moment, lambda: store.delete(doomed))
    error = refusal(store, 4)
    assert error.kind == "txid" and error.before is not None
    assert error.before.txid == 3
    assert pinned_txids(store) == frozenset()


def test_pin_made_by_another_just_then_is_the_same_or_a_conflict() -> None:
    """Two who pin at once: equal ones both succeed, others do not overwrite."""
    store = meddling()
    other = Meddling.open(f"{store.name}")
    store.before = lambda: pin(other, "x", 4)
    assert put_pin(store, "x", 4)[1] is False
    store.before = lambda: pin(other, "y", 3)
    with pytest.raises(PinExistsError, match="transaction 3"):
        pin(store, "y", 4)
    assert pinned_txids(store) == {3, 4}


def test_state_that_goes_away_is_not_pinned_because_another_pinned_it() -> None:
    """Their pin is theirs to take away; ours is refused all the same."""
    store = meddling()
    other = Meddling.open(f"{store.name}")
    doomed = [file for file in store.list_all() if file.max_txid == 4]

    def pinned_by_another_and_deleted() -> None:
        put_pin(other, "x", 4)
        store.delete(doomed)

    store.before = pinned_by_another_and_deleted
    with pytest.raises(NotRestorableError):
        pin(store, "x", 4)
    assert pinned_txids(store) == {4}


def test_pin_made_and_taken_away_by_another_is_another_writer() -> None:
    """There is nothing to compare with: trying again is for the caller."""
    store = meddling()

    def make_and_hide() -> None:
        pin(Meddling.open(f"{store.name}"), "x", 3)
        store.list_side = lambda folder: []  # type: ignore[method-assign]

    store.before = make_and_hide
    with pytest.raises(AnotherWriterError):
        pin(store, "x", 4)


# -- reading and taking away -----------------------------------------------------------


def test_pin_is_taken_away_by_name(tmp_path: Path) -> None:
    """By the methods of a replica, as users do it."""
    replica = Replica(tmp_path / "replica")
    fill(replica.open())
    replica.pin("a", txid=3)
    replica.pin("b")
    replica.unpin("a")
    assert [(p.name, p.txid) for p in replica.pins()] == [("b", 5)]
    replica.pin("a", txid=4)
    assert [p.txid for p in replica.pins()] == [4, 5]


def test_taking_away_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    """A typo must not leave a pin for ever."""
    replica = Replica(tmp_path / "replica")
    fill(replica.open())
    with pytest.raises(NotRestorableError, match="there are no pins") as caught:
        replica.unpin("a")
    assert caught.value.kind == "pin"
    for n in range(25):
        replica.pin(f"p{n:02}", txid=3)
    with pytest.raises(NotRestorableError, match=r"p00, p01, .*p19 and 5 more"):
        replica.unpin("p")


HOSTILE = {
    "empty": b"",
    "no JSON": b"\x00\x01",
    "not UTF-8": b'{"name": "x\xff", "txid": 3, "timestamp": 0, "created": 0}',
    "torn": b'{"name": "x", "txid": 3, "timesta',
    "a field missing": b'{"name": "x", "timestamp": 0, "created": 0}',
    "another type": b'{"name": "x", "txid": "3", "timestamp": 0, "created": 0}',
    "a bool": b'{"name": "x", "txid": true, "timestamp": 0, "created": 0}',
    "a fraction": b'{"name": "x", "txid": 3.5, "timestamp": 0, "created": 0}',
    "TXID 0": b'{"name": "x", "txid": 0, "timestamp": 0, "created": 0}',
    "TXID too large": b'{"name": "x", "txid": 18446744073709551616,'
    b' "timestamp": 0, "created": 0}',
    "another name": b'{"name": "y", "txid": 3, "timestamp": 0, "created": 0}',
    "deep": b'{"z": ' + b"[" * 4000,
    "large": b'{"name": "x", "txid": 3, "timestamp": 0, "created": 0}' + b" " * 5000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_damaged_pin_stops_retention_and_can_be_taken_away(
    store: LTXStore, data: bytes
) -> None:
    """It might keep anything: whoever asks what is pinned gets an error."""
    pin(store, "sound")
    store.put_side("pins", "x", data)
    with pytest.raises(InvalidFileError, match=r"'x' is damaged.*unpin") as caught:
        pinned_txids(store)
    assert caught.value.kind == "pin"
    with pytest.raises(InvalidFileError):
        pin(store, "x", 3)


def test_damaged_pin_is_taken_away_without_being_read(tmp_path: Path) -> None:
    """The way out that the error tells."""
    replica = Replica(tmp_path / "replica")
    fill(replica.open())
    replica.open().put_side("pins", "x", b"?")
    with pytest.raises(InvalidFileError):
        replica.pins()
    replica.unpin("x")
    assert replica.pins() == []


def test_fields_of_a_later_version_do_not_damage_a_pin(store: LTXStore) -> None:
    """What is not known is left alone; times out of range are the nearest there are."""
    content = b'{"name": "x", "txid": 3, "timestamp": 1e3, "created": 1, "by": ["me"]}'
    store.put_side("pins", "x", content.replace(b"1e3", str(10**18).encode()))
    (found,) = list_pins(store)
    assert (found.txid, found.time.year) == (3, 9999)


class Losing(LTXStore):
    """A store that cannot read some pins; those in ``gone`` are taken away at that."""

    lost: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()

    def get_side(self, file: SideFile, start: int = 0, end: int | None = None) -> bytes:
        """Read, or not."""
        if file.name in self.gone:
            self.delete_side([file])
        if file.name in self.lost:
            raise StoreError("no such key", operation="get", kind="missing")
        return super().get_side(file, start, end)


def losing(tmp_path: Path, *names: str) -> Losing:
    """One with some pins."""
    made = Losing.open(tmp_path / "replica")
    fill(made)
    for name in names:
        pin(made, name)
    return made


def test_pin_taken_away_while_pins_are_read_is_none(tmp_path: Path) -> None:
    """A listing without it is what proves that it is gone."""
    store = losing(tmp_path, "a", "b")
    store.gone = frozenset({"a"})
    assert [p.name for p in list_pins(store)] == ["b"]


def test_pin_that_is_listed_but_not_readable_stops_retention(tmp_path: Path) -> None:
    """A store that says 404 for what it lists has not proven anything."""
    store = losing(tmp_path, "a", "b")
    store.lost = frozenset({"a"})
    with pytest.raises(StoreError):
        pinned_txids(store)


def test_store_that_is_down_stops_retention(tmp_path: Path) -> None:
    """No answer is not the answer that there are none."""

    class Down(LTXStore):
        def list_side(self, folder: str) -> list[SideFile]:
            raise StoreError("down", operation="list")

    with pytest.raises(StoreError, match="down"):
        pinned_txids(Down.open(tmp_path))


def test_pinning_costs_few_requests(store: LTXStore) -> None:
    """Two listings of the files, one of the pins, a header, and the pin itself."""
    store.requests.clear()
    pin(store, "x")
    assert store.requests == {"list": 3, "get": 1, "put": 1}


def test_lowest_level_tells_the_time_of_a_state(tmp_path: Path) -> None:
    """A snapshot of the same state is stamped when it is made, hours later."""
    store = LTXStore.open(tmp_path)
    put_level_0(store, 1, 2)
    put_file(store, 9, 1, 2, START + 3_600_000)
    assert pin(store, "x").time == at_ms(START + 2000)
