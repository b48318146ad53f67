"""Credentials by a callable: asked when there is need, by one thread, and never shown."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sqlitereplica import Replica
from sqlitereplica.errors import StoreError
from sqlitereplica.ltx import Header, encode
from sqlitereplica.store import LTXStore
from sqlitereplica.store.credentials import Rotation

FILE = encode(
    Header(
        page_size=512, commit=1, min_txid=1, max_txid=1, timestamp=1_700_000_000_000
    ),
    [(1, bytes(512))],
)


class Locked(MemoryFileSystem):  # type: ignore[misc]
    """Takes one password; which one, changes."""

    protocol = "locked"
    cachable = False
    right = "first-password"

    def __init__(self, password: str) -> None:
        super().__init__()
        self.password = password

    def _check(self) -> None:
        if self.password != Locked.right:
            raise PermissionError(13, f"wrong password {self.password}")

    def pipe_file(self, path: str, value: bytes, *rest: Any, **options: Any) -> Any:
        """As every store."""
        self._check()
        return super().pipe_file(path, value, *rest, **options)

    def info(self, path: str, **options: Any) -> Any:
        """As every store."""
        self._check()
        return super().info(path, **options)


class Asked:
    """Gives what it has now."""

    def __init__(self, password: str) -> None:
        self.password, self.count = password, 0

    def __call__(self) -> Mapping[str, Any]:
        """What the library calls."""
        self.count += 1
        return {"password": self.password}


@pytest.fixture(autouse=True)
def right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is the first one."""
    monkeypatch.setattr(Locked, "right", "first-password")
    monkeypatch.setattr(Locked, "store", {})


def store_of(ask: Any) -> LTXStore:
    """A store that asks."""
    rotation = Rotation(ask, lambda given: Locked(**given), "locked://r")
    return LTXStore(rotation.open(), "/r", rotation=rotation, sleep=lambda _: None)


def test_refusal_is_answered_with_new_credentials_once() -> None:
    """Any filesystem: the operation is done again, with what the callable says now."""
    ask = Asked("first-password")
    store = store_of(ask)
    store.put(0, 1, 1, FILE, timestamp=1)
    Locked.right = ask.password = "second-password"
    store.put(0, 1, 1, FILE, timestamp=1)
    assert ask.count == 2
    Locked.right = "third-password"
    with pytest.raises(StoreError) as caught:
        store.put(0, 1, 1, FILE, timestamp=1)
    assert ask.count == 3
    assert "second-password" not in "".join(traceback.format_exception(caught.value))


def test_threads_that_are_refused_together_ask_once() -> None:
    """One asks, the others take what it got."""
    ask = Asked("first-password")
    rotation = Rotation(ask, lambda given: Locked(**given), "locked://r")
    fs = rotation.open()
    ask.password = "second-password"
    barrier = threading.Barrier(8)

    def refused() -> bool:
        version = 1
        barrier.wait(30)
        return rotation.renew(fs, version)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: refused(), range(8)))
    assert (ask.count, fs.password) == (2, "second-password")


def test_credentials_that_are_the_same_again_change_nothing() -> None:
    """Whoever asks later is not told that there is something new."""
    ask = Asked("first-password")
    rotation = Rotation(ask, lambda given: Locked(**given), "locked://r")
    fs = rotation.open()
    assert not rotation.renew(fs, 1)
    assert not rotation.renew(fs, 1)
    assert (ask.count, rotation.version) == (3, 1)


@pytest.mark.parametrize(
    "what", [RuntimeError("it is hunter2-secret"), "hunter2-secret"]
)
def test_callable_that_fails_is_a_store_error_without_its_text(what: Any) -> None:
    """It may have spoken of the secret; it is tried again like a store that is away."""

    def ask() -> Any:
        if isinstance(what, Exception):
            raise what
        return what

    with pytest.raises(StoreError) as caught:
        Replica("s3://bucket/app", credentials=ask).open()
    assert (caught.value.kind, caught.value.transient) == ("credentials", True)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2-secret" not in shown
    assert type(what).__name__ in shown


def test_replica_with_credentials_compares_and_shows_none() -> None:
    """It is a value; a filesystem of one's own has its own credentials."""
    ask = Asked("planted-secret")
    replica = Replica("s3://bucket/app", credentials=ask)
    assert replica == Replica("s3://bucket/app", credentials=ask)
    assert repr(replica) == "Replica('s3://bucket/app')" and ask.count == 0
    with pytest.raises(ValueError, match="its own"):
        Replica(Locked("x"), path="/r", credentials=ask)
