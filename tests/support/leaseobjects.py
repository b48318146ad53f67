"""What the object of a lease has to do, wherever it is: one winner for each replacement."""

from __future__ import annotations

import threading

import pytest

from sqlitereplica.errors import StoreError
from sqlitereplica.store import LTXStore
from sqlitereplica.store.lease import Record, Seen
from sqlitereplica.store.leaseobject import LeaseObject, RefusedError

__all__ = ["check_one_wins", "check_replaced_by_its_tag_only", "lease_of", "record"]


def record(epoch: int, nonce: str = "n") -> Record:
    """A body."""
    return Record(epoch=epoch, owner="h:1", node=1, nonce=nonce)


def lease_of(store: LTXStore) -> LeaseObject:
    """The object of a replica."""
    found = store.lease_object()
    assert found is not None
    return found


def check_replaced_by_its_tag_only(lease: LeaseObject) -> str:
    """Whoever expects anything else is refused, and changes nothing; the last tag."""
    assert lease.read() == Seen(None, None)
    first = lease.write(record(1), None)
    assert lease.read() == Seen(record(1), first)
    with pytest.raises(RefusedError):
        lease.write(record(1, "x"), None)
    second = lease.write(record(2), first)
    for stale in (None, first):
        with pytest.raises(RefusedError):
            lease.write(record(3), stale)
    assert lease.read() == Seen(record(2), second)
    return second


def check_one_wins(lease: LeaseObject, turns: int) -> None:
    """Four replace it at once: one succeeds, each time anew."""
    tag = lease.write(record(1), None)
    for turn in range(turns):
        won: list[str] = []
        start = threading.Barrier(4)

        def contend(
            n: int, expect: str, won: list[str], start: threading.Barrier
        ) -> None:
            start.wait()
            try:
                won.append(lease.write(record(2, f"{expect}-{n}"), expect))
            except (RefusedError, StoreError):
                return

        threads = [
            threading.Thread(target=contend, args=(n, tag, won, start))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, turn
        tag = won[0]
        assert lease.read().tag == tag
