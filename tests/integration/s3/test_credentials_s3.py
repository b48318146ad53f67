"""Credentials that rotate, at a real server that refuses those of before."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.capturing import make_database
from support.lifetime import await_true, write
from support.s3stores import put
from support.servers import Identity, S3Server

from sqlitereplica import Replica, Replicator, restore
from sqlitereplica.errors import StoreError
from sqlitereplica.store import LTXStore

pytestmark = [pytest.mark.s3, pytest.mark.timeout(180)]


class Vault:
    """Where the application keeps its credentials; ``asked`` counts."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.now = identity.new_key()
        self.given = [self.now]
        self.asked = 0

    def __call__(self) -> Mapping[str, Any]:
        """What the library calls."""
        self.asked += 1
        return dict(self.now)

    def rotate(self) -> None:
        """A new key, and the end of the one before."""
        old, self.now = self.now, self.identity.new_key()
        self.given.append(self.now)
        self.identity.revoke(old)

    def leaks(self, text: str) -> bool:
        """Whether a text shows any secret that there was."""
        return any(given["secret"] in text for given in self.given)


@pytest.fixture
def vault(s3_server: S3Server) -> Vault:
    """Of a user that was just made."""
    return Vault(Identity(s3_server))


@pytest.fixture
def replica(s3_server: S3Server, bucket: str, path: str, vault: Vault) -> Replica:
    """One that asks the vault."""
    return Replica(s3_server.url(bucket, path), credentials=vault)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The application's connection."""
    with closing(make_database(tmp_path / "app.db")) as connection:
        yield connection


def test_replication_goes_on_with_new_credentials(
    replica: Replica, vault: Vault, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Nothing fails, nothing is asked twice, and nobody is told a secret."""
    events: list[Any] = []
    with Replicator(tmp_path / "app.db", replica, observer=events.append) as replicator:
        replicator.sync()
        for number in range(2, 4):
            vault.rotate()
            write(db)
            replicator.sync()
            assert vault.asked == number
        assert replicator.status().replicas[0].error is None
        assert not vault.leaks(repr(events) + repr(replicator.status()))
    assert [e for e in events if e.level >= 30] == []
    restore(replica, tmp_path / "restored.db")
    assert (tmp_path / "restored.db").read_bytes() == db.serialize()


def test_store_and_its_lease_share_what_is_new(replica: Replica, vault: Vault) -> None:
    """Whichever part is refused first, all of them have the new credentials."""
    store = replica.open()
    lease = store.lease_object()
    assert lease is not None
    put(store, 1)
    vault.rotate()
    assert lease.probe() is None
    assert [f.max_txid for f in store.list_all()] == [1]
    assert vault.asked == 2
    vault.rotate()
    assert len(store.list_all()) == 1
    assert lease.probe() is None
    assert vault.asked == 3


def test_credentials_that_stay_wrong_are_an_error_and_not_a_loop(
    replica: Replica, vault: Vault, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """The callable has nothing new: the refusal is told; with new ones it heals."""
    with Replicator(tmp_path / "app.db", replica) as replicator:
        replicator.sync()
        vault.identity.revoke(vault.now)
        write(db)
        with pytest.raises(StoreError) as caught:
            replicator.sync(timeout=60)
        assert not caught.value.transient
        assert not vault.leaks("".join(traceback.format_exception(caught.value)))
        assert vault.asked < 50
        vault.now = vault.identity.new_key()
        await_true(lambda: replicator.status().ok)
        replicator.sync()


def test_session_token_is_sent(
    s3_server: S3Server, bucket: str, path: str, vault: Vault
) -> None:
    """The server refuses one that it does not know; without it, it does not."""
    token = "planted-session-token"
    options = {**vault.now, "token": token}
    store = LTXStore.open(s3_server.url(bucket, path), storage_options=options)
    with pytest.raises(StoreError) as caught:
        put(store)
    assert token not in "".join(traceback.format_exception(caught.value))
    answers = iter([options, vault.now])
    store = LTXStore.open(
        s3_server.url(bucket, path), credentials=lambda: next(answers)
    )
    put(store)


def test_each_replica_has_credentials_of_its_own(
    s3_server: S3Server, bucket: str, path: str, db: sqlite3.Connection, tmp_path: Path
) -> None:
    """Two users, one server, one process; one that is refused does not disturb the other."""
    vaults = [Vault(Identity(s3_server)) for _ in range(2)]
    replicas = [
        Replica(s3_server.url(bucket, f"{path}-{n}"), credentials=vault)
        for n, vault in enumerate(vaults)
    ]
    with Replicator(tmp_path / "app.db", replicas) as replicator:
        replicator.sync()
        vaults[1].identity.revoke(vaults[1].now)
        write(db)
        replicator.sync(require=1)
        with pytest.raises(StoreError):
            replicator.sync(timeout=60)
        vaults[1].now = vaults[1].identity.new_key()
        await_true(lambda: replicator.status().ok)
