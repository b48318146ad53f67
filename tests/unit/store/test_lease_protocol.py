"""The lease decides by what was read, its own state and its own clock; Litestream's too."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest

from sqlitereplica.store.lease import (
    Identity,
    Look,
    Purpose,
    Record,
    Rest,
    Seen,
    Stage,
    State,
    Write,
    decide,
    on_answered,
    on_no_answer,
    on_read,
    on_refused,
    on_sent,
    publish_until,
    record_for,
    release,
)

ME = Identity("here", 7, 0xABC, 30.0)
WALL = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
OTHER = Record(epoch=4, owner="there:1", node=0xDEF, ttl=30.0, nonce="n")


def write(state: State, now: float, nonce: str = "mine") -> tuple[State, Record]:
    """Send the write that is due."""
    action = decide(state, now)
    assert isinstance(action, Write)
    record = record_for(state, action, nonce, WALL)
    return on_sent(state, action, record, now), record


def held(at: float = 0.0) -> State:
    """One that acquired a free lease at a time."""
    state = on_read(State(me=ME), Seen(None, None), at)
    state, record = write(state, at)
    return on_answered(state, record, "tag-1", at)


def test_free_lease_is_acquired_and_renewed_at_a_third_of_the_ttl() -> None:
    """The epochs begin with 1; renewals keep it and expect the tag of the last write."""
    state = State(me=ME)
    assert decide(state, 0.0) == Look()
    state = on_read(state, Seen(None, None), 0.0)
    assert decide(state, 0.0) == Write(Purpose.ACQUIRE, 1, None)
    state = held()
    assert (state.stage, state.epoch) == (Stage.HELD, 1)
    assert decide(state, 9.9) == Rest(10.0)
    assert decide(state, 10.0) == Write(Purpose.RENEW, 1, "tag-1")


def test_lease_of_another_is_taken_over_when_it_did_not_change_for_its_ttl() -> None:
    """By the own clock, from the answer that showed it first; its epoch is exceeded."""
    state = on_read(State(me=ME), Seen(OTHER, "t"), 100.0)
    assert decide(state, 100.0) == Rest(105.0)
    assert decide(state, 105.0) == Look()
    state = on_read(state, Seen(OTHER, "t"), 129.0)
    assert decide(state, 129.9) == Rest(130.0)
    assert decide(state, 130.0) == Write(Purpose.ACQUIRE, 5, "t")


def test_change_of_another_begins_the_wait_anew() -> None:
    """A renewal has another tag."""
    state = on_read(State(me=ME), Seen(OTHER, "t"), 100.0)
    state = on_read(state, Seen(OTHER, "u"), 129.0)
    assert not isinstance(decide(state, 158.9), Write)
    assert decide(on_read(state, Seen(OTHER, "u"), 159.0), 159.0) == Write(
        Purpose.ACQUIRE, 5, "u"
    )


def test_released_lease_is_free_at_once_and_its_epoch_goes_on() -> None:
    """A release keeps the object and says so in it."""
    state = release(held())
    assert publish_until(state) == -math.inf
    state, record = write(state, 1.0, "bye")
    assert record.released
    state = on_answered(state, record, "tag-2", 1.1)
    assert (state.stage, decide(state, 2.0)) == (Stage.RELEASED, Rest(math.inf))
    heir = on_read(State(me=Identity("x", 1, 2, 30.0)), Seen(record, "tag-2"), 50.0)
    assert heir.holder is None
    assert decide(heir, 50.0) == Write(Purpose.ACQUIRE, 2, "tag-2")


def test_own_earlier_life_on_this_host_is_not_waited_for() -> None:
    """The operating system sees to it that it is over; on another host it may not be."""
    earlier = Record(epoch=3, owner="here:6", node=ME.node, nonce="n")
    state = on_read(State(me=ME), Seen(earlier, "t"), 0.0)
    assert decide(state, 0.0) == Write(Purpose.ACQUIRE, 4, "t")
    copied = Record(epoch=3, owner="there:6", node=ME.node, nonce="n")
    assert isinstance(decide(on_read(State(me=ME), Seen(copied, "t"), 0.0), 0.0), Rest)


def test_holder_may_publish_for_two_thirds_of_the_ttl_from_when_it_sent() -> None:
    """Not from the answer, which may come late."""
    state = on_read(State(me=ME), Seen(None, None), 0.0)
    state, record = write(state, 1.0)
    state = on_answered(state, record, "t", 9.0)
    assert publish_until(state) == 21.0
    assert publish_until(on_no_answer(state, 20.0, 1.0)) == 21.0


def test_lost_answer_is_found_by_its_nonce() -> None:
    """It counts from when it was sent; a refusal of one's own retry is the same case."""
    state = on_read(State(me=ME), Seen(None, None), 0.0)
    state, first = write(state, 1.0, "first")
    state = on_no_answer(state, 5.0, 2.0)
    assert decide(state, 6.0) == Rest(7.0)
    assert decide(state, 7.0) == Look()
    state = on_read(state, Seen(None, None), 7.0)
    state, _ = write(state, 7.5, "second")
    state = on_refused(state)
    assert decide(state, 8.0) == Look()
    state = on_read(state, Seen(first, "t"), 8.0)
    assert (state.stage, state.epoch, publish_until(state)) == (Stage.HELD, 1, 21.0)


def test_other_body_under_the_own_lease_means_that_it_is_lost() -> None:
    """For good: who comes back is a new contender."""
    state = on_read(on_refused(held()), Seen(OTHER, "theirs"), 31.0)
    assert (state.stage, publish_until(state)) == (Stage.LOST, -math.inf)
    assert state.holder == OTHER
    assert decide(state, 1e9) == Rest(math.inf)


def test_deleted_object_is_written_again_by_its_holder() -> None:
    """Nobody may delete it; if somebody does, the epoch stays."""
    state = on_read(on_refused(held()), Seen(None, None), 11.0)
    assert state.stage is Stage.HELD
    assert decide(state, 11.0) == Write(Purpose.RENEW, 1, None)


def test_contender_exceeds_the_highest_epoch_that_it_ever_saw() -> None:
    """Litestream deletes the object on release."""
    state = on_read(State(me=ME), Seen(OTHER, "t"), 0.0)
    state = on_read(state, Seen(None, None), 1.0)
    assert decide(state, 1.0) == Write(Purpose.ACQUIRE, 5, None)


def test_record_is_what_litestream_reads_and_writes() -> None:
    """Its three fields, times in RFC 3339; ours beside them are ignored by it."""
    _, record = write(on_read(State(me=ME), Seen(None, None), 0.0), 0.0)
    fields = json.loads(record.to_bytes())
    assert fields["generation"] == 1
    assert fields["owner"] == "here:7"
    assert fields["expires_at"] == "2026-05-04T03:02:31Z"
    assert Record.from_bytes(record.to_bytes()) == record
    theirs = {"generation": 9, "expires_at": "2026-05-04T03:02:31Z", "owner": "h:1"}
    found = Record.from_bytes(json.dumps(theirs).encode())
    assert (found.epoch, found.owner, found.node, found.ttl) == (9, "h:1", 0, 30.0)
    assert not found.released


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 3000,
        b"{" + b" " * 5000 + b"}",
        b'{"generation": 1e400, "ttl": 1e999, "owner": 3}',
        b'{"generation": -5, "ttl": -1, "node": "xyz", "nonce": []}',
        b'{"generation": true, "ttl": "soon", "node": "-1", "released": "yes"}',
        b'{"ttl": NaN, "node": "fffffffffffffffffff"}',
    ],
)
def test_object_that_says_nothing_of_use_is_somebodys_all_the_same(data: bytes) -> None:
    """It is waited for, for a time that makes sense, and replaced under a condition."""
    record = Record.from_bytes(data)
    assert record.epoch in (0, 1)
    assert 0.5 <= record.ttl <= 3600
    assert record.node == 0
    assert not record.released
    state = on_read(State(me=ME), Seen(record, "t"), 0.0)
    assert isinstance(decide(state, 0.0), Rest)
