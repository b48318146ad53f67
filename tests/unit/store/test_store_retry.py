"""How often, and after what pauses, operations are tried again."""

from __future__ import annotations

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica.errors import StoreError
from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import LTXStore, RetryPolicy
from sqlitereplica.testing import FaultyFileSystem, only


def test_pauses_double_up_to_a_cap() -> None:
    """Each pause is a random part of its bound; there is one less than attempts."""
    policy = RetryPolicy(attempts=7, base=0.5, cap=4.0)
    assert list(policy.pauses(lambda: 1.0)) == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert list(policy.pauses(lambda: 0.25)) == [0.125, 0.25, 0.5, 1.0, 1.0, 1.0]
    assert list(RetryPolicy(attempts=1).pauses(lambda: 1.0)) == []


def test_store_pauses_as_its_policy_says() -> None:
    """Clock and chance are handed in; after the last attempt the error is told."""
    fs = FaultyFileSystem(MemoryFileSystem(), plan=only("read"))
    slept: list[float] = []
    policy = RetryPolicy(attempts=4, base=1.0, cap=3.0)
    store = LTXStore(fs, "/x", retry=policy, sleep=slept.append, rng=lambda: 0.5)
    with pytest.raises(StoreError) as caught:
        store.get(FileInfo(0, 1, 1, 10, 0))
    assert slept == [0.5, 1.0, 1.5]
    assert store.requests == {"get": 4}
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert (caught.value.operation, caught.value.transient) == ("get", True)
    assert caught.value.key == "/x/ltx/0/0000000000000001-0000000000000001.ltx"
